"""Accuracy under attack: images changed by an adversary who knows the network's gradient.

FGSM (Goodfellow et al. 2015, arXiv:1412.6572, section 4) takes one step, PGD (Madry et al. 2018,
arXiv:1706.06083, section 2.1) many, from a random start. The adversary may change every value
of an image by up to epsilon, on the scale [0, 1], before normalisation and without rounding.
These are attacks of the first order and fixed length: what survives them is no proof.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from imgrec.data import Split
from imgrec.evaluation import bootstrap
from imgrec.evaluation.robustness.conditions import Progress, scores, side_by_side
from imgrec.evaluation.subject import Batch, Subject, Variables
from imgrec.randomness import named

# Handwriting is black and white, and survives changes that would drown a photograph.
PHOTOGRAPHS = (1 / 255, 2 / 255, 4 / 255, 8 / 255)
GREY_28 = (0.1, 0.2, 0.3)

Images = Float[Array, "batch height width channels"]
Labels = Int[Array, " batch"]
# Logits of images in [0, 1].
Network = Callable[[Images], Float[Array, "batch classes"]]


def adversarial(
    subject: Subject,
    split: Split,
    *,
    epsilons: Sequence[int | float] | None = None,
    steps: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Accuracy of a split's images under FGSM and PGD.

    One image costs about 3 (1 + steps) passes an epsilon; part of a split may do.

    Args:
      subject: the model.
      split: whose images are attacked.
      epsilons: largest changes of a value, on the scale [0, 1]; None for what is usual: 0.1 to
        0.3 for grey images of 28 pixels, as MNIST's, and 1/255 to 8/255 for all others.
      steps: of PGD, each of 2.5 epsilon / steps.
      seed: of the random starts, which an image has by its index, and of the resamples.
      progress: told of every batch and epsilon.

    Returns:
      n, seed, norm ("l_inf"), epsilons; clean_accuracy, with intervals;
      fgsm and pgd: {accuracy, accuracy_interval (Wilson)}, a number an epsilon; pgd also steps
      and step_over_epsilon.
    """
    if epsilons is None:
        epsilons = GREY_28 if subject.image_shape == (28, 28, 1) else PHOTOGRAPHS
    step = jax.jit(functools.partial(_attacked, subject, steps, seed))
    total, done = -(-len(split) // subject.batch_size) * len(epsilons), 0

    def compute(variables: Variables, batch: Batch) -> dict[str, Array]:
        nonlocal done
        columns = []
        for epsilon in epsilons:
            columns.append(step(variables, batch, jnp.float32(epsilon)))
            done += 1
            if progress is not None:
                progress(done, total)
        return side_by_side(columns)

    rows = subject.over(split, compute)
    clean, n = int(rows["clean"][:, 0].sum()), len(split)
    return {
        "n": n,
        "seed": seed,
        "norm": "l_inf",
        "epsilons": [float(epsilon) for epsilon in epsilons],
        "clean_accuracy": clean / n,
        "intervals": {"clean_accuracy": bootstrap.wilson(clean, n)},
        "fgsm": _accuracies(rows["fgsm"]),
        "pgd": _accuracies(rows["pgd"]) | {"steps": steps, "step_over_epsilon": 2.5 / steps},
    }


def fgsm(network: Network, images: Images, labels: Labels, epsilon: Float[Array, ""]) -> Images:
    """One step of epsilon along the sign of the loss's gradient, clipped to [0, 1]."""
    return jnp.clip(images + epsilon * jnp.sign(_ascent(network, images, labels)), 0, 1)


def pgd(
    network: Network,
    images: Images,
    labels: Labels,
    epsilon: Float[Array, ""],
    keys: PRNGKeyArray | Array,
    *,
    steps: int,
) -> Images:
    """Steps of 2.5 epsilon / steps along the sign, each taken back into reach of the image.

    Args:
      network: logits of images.
      images: in [0, 1].
      labels: that the adversary drives the network away from.
      epsilon: half the side of the cube about an image that the adversary may reach.
      keys: one an image, of its random start in that cube.
      steps: how many.
    """
    low, high = jnp.maximum(images - epsilon, 0), jnp.minimum(images + epsilon, 1)
    moves = jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:], minval=-1))(keys)
    size = 2.5 / steps * epsilon

    def step(_: Int[Array, ""], changed: Images) -> Images:
        moved = changed + size * jnp.sign(_ascent(network, changed, labels))
        return jnp.clip(moved, low, high)

    return jax.lax.fori_loop(0, steps, step, jnp.clip(images + epsilon * moves, low, high))


def _ascent(network: Network, images: Images, labels: Labels) -> Images:
    """The gradient of each image's cross-entropy in the image."""

    def loss(images: Images) -> Float[Array, ""]:
        log_probabilities = jax.nn.log_softmax(network(images).astype(jnp.float32))
        return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1).sum()

    return jax.grad(loss)(images)


def _attacked(
    subject: Subject,
    steps: int,
    seed: int,
    variables: Variables,
    batch: Batch,
    epsilon: Float[Array, ""],
) -> dict[str, Array]:
    """Whether each image of a batch is recognised as it is, and after each attack."""
    network = functools.partial(subject.logits, variables)
    images, labels = batch["image"].astype(jnp.float32) / 255, batch["label"]
    key = named(jax.random.key(seed), "pgd")
    keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(batch["index"])
    shown = {
        "clean": images,
        "fgsm": fgsm(network, images, labels, epsilon),
        "pgd": pgd(network, images, labels, epsilon, keys, steps=steps),
    }
    return {name: scores(network(each), labels)["correct"] for name, each in shown.items()}


def _accuracies(correct: Bool[np.ndarray, "n epsilons"]) -> dict[str, Any]:
    n = len(correct)
    return {
        "accuracy": correct.mean(axis=0).tolist(),
        "accuracy_interval": [bootstrap.wilson(int(k), n) for k in correct.sum(axis=0)],
    }
