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
Ascent = Callable[[Images, Labels], Images]


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
    # Steps are taken by the host: a network's gradient in a compiled loop can be ten times slower
    # on CPUs, where XLA's fast convolutions are not to be had inside loops.
    slope = jax.jit(lambda variables, *given: ascent(_network(subject, variables))(*given))
    judged = jax.jit(
        lambda variables, images, labels: scores(subject.logits(variables, images), labels)
    )
    total, done = -(-len(split) // subject.batch_size) * len(epsilons), 0

    def compute(variables: Variables, batch: Batch) -> dict[str, Array]:
        nonlocal done
        columns = []
        for epsilon in epsilons:
            reach = jnp.float32(epsilon)
            shown = _attacked(functools.partial(slope, variables), batch, reach, steps, seed)
            columns.append(
                {
                    name: judged(variables, images, batch["label"])["correct"]
                    for name, images in shown.items()
                }
            )
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


def ascent(network: Network) -> Ascent:
    """The gradient of each image's cross-entropy in the image, as a function."""

    def gradient(images: Images, labels: Labels) -> Images:
        def loss(images: Images) -> Float[Array, ""]:
            log_probabilities = jax.nn.log_softmax(network(images).astype(jnp.float32))
            return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1).sum()

        return jax.grad(loss)(images)

    return gradient


def fgsm(slope: Ascent, images: Images, labels: Labels, epsilon: Float[Array, ""]) -> Images:
    """One step of epsilon along the sign of the loss's gradient, clipped to [0, 1]."""
    return jnp.clip(images + epsilon * jnp.sign(slope(images, labels)), 0, 1)


def pgd(
    slope: Ascent,
    images: Images,
    labels: Labels,
    epsilon: Float[Array, ""],
    keys: PRNGKeyArray | Array,
    *,
    steps: int,
) -> Images:
    """Steps of 2.5 epsilon / steps along the sign, each taken back into reach of the image.

    Args:
      slope: of the loss, as `ascent` makes it of a network.
      images: in [0, 1].
      labels: that the adversary drives the network away from.
      epsilon: half the side of the cube about an image that the adversary may reach.
      keys: one an image, of its random start in that cube.
      steps: how many.
    """
    low, high = jnp.maximum(images - epsilon, 0), jnp.minimum(images + epsilon, 1)
    moves = jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:], minval=-1))(keys)
    changed = jnp.clip(images + epsilon * moves, low, high)
    for _ in range(steps):
        moved = changed + 2.5 / steps * epsilon * jnp.sign(slope(changed, labels))
        changed = jnp.clip(moved, low, high)
    return changed


def _network(subject: Subject, variables: Variables) -> Network:
    return functools.partial(subject.logits, variables)


def _attacked(
    slope: Ascent, batch: Batch, epsilon: Float[Array, ""], steps: int, seed: int
) -> dict[str, Images]:
    """The images of a batch as they are, and after each attack."""
    images, labels = batch["image"].astype(jnp.float32) / 255, batch["label"]
    key = named(jax.random.key(seed), "pgd")
    keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(batch["index"])
    return {
        "clean": images,
        "fgsm": fgsm(slope, images, labels, epsilon),
        "pgd": pgd(slope, images, labels, epsilon, keys, steps=steps),
    }


def _accuracies(correct: Bool[np.ndarray, "n epsilons"]) -> dict[str, Any]:
    n = len(correct)
    return {
        "accuracy": correct.mean(axis=0).tolist(),
        "accuracy_interval": [bootstrap.wilson(int(k), n) for k in correct.sum(axis=0)],
    }
