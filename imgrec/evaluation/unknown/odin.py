"""ODIN (Liang, Li & Srikant 2018): a small step towards more confidence, then a soft softmax.

An image of a known kind gains more from a step along the gradient of its confidence than
another does. The temperature is the paper's 1000. The size of the step is chosen on
validation images alone, as Hsu et al. (2020, Generalized ODIN) propose: that which gives them the
greatest mean score. (The paper chose it on unknown images, which one does not have.)
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64
from scipy.special import logsumexp

from imgrec.data import Split
from imgrec.data import splits as cuts
from imgrec.evaluation.subject import Batch, Subject, Variables

TEMPERATURE = 1000.0
STEPS = (0.0, 0.0005, 0.001, 0.002, 0.004)
"""Candidates, on the scale of pixels from 0 to 1: the range of Liang et al.

Hsu et al. go up to 0.08. On grey drawings the mean score of validation rises all the way, and
a step that large tells known from unknown no better than a coin, or worse.
"""

_MOST_TO_CHOOSE = 1_000  # validation images


def measure(
    subject: Subject, validation: Split, others: Mapping[str, Split], seed: int = 0
) -> dict[str, Any]:
    """Chooses the step, and takes it.

    Args:
      subject: the network.
      validation: images of the known kind to choose by.
      others: further sets by name.
      seed: of the choice among many validation images.

    Returns:
      {"chosen": as of `choose`, "scores": {"validation": [n], and one array for each other}}.
    """
    chosen = choose(subject, validation, seed)
    splits = {"validation": validation, **others}
    return {
        "chosen": chosen,
        "scores": {name: scores(subject, splits[name], chosen["step"]) for name in splits},
    }


def choose(subject: Subject, validation: Split, seed: int = 0) -> dict[str, Any]:
    """The step by validation images, at most 1,000 of them.

    Returns:
      {"step": the one chosen, "temperature": 1000.0, "n": images it was chosen by, "tried":
      [[step, mean score], ...]}.
    """
    if len(validation) > _MOST_TO_CHOOSE:
        chosen = cuts.stratified(validation.labels(), _MOST_TO_CHOOSE, seed)
        validation = dataclasses.replace(validation, rows=validation.rows[chosen])
    means = _scores(subject, validation, STEPS).mean(axis=0)
    # Not a number is no maximum; a network that has diverged takes no step.
    best = int(np.argmax(np.where(np.isfinite(means), means, -np.inf)))
    return {
        "step": STEPS[best],
        "temperature": TEMPERATURE,
        "n": len(validation),
        "tried": [[step, float(mean)] for step, mean in zip(STEPS, means, strict=True)],
    }


def scores(subject: Subject, split: Split, step: float) -> Float64[np.ndarray, " n"]:
    """The score of every image of a split: its largest softmax probability after the step."""
    return _scores(subject, split, (step,))[:, 0]


def _scores(
    subject: Subject, split: Split, steps: tuple[float, ...]
) -> Float64[np.ndarray, "n steps"]:
    def confidence(images: Array, variables: Variables) -> Float[Array, ""]:
        log_probabilities = jax.nn.log_softmax(subject.logits(variables, images) / TEMPERATURE)
        return jnp.sum(jnp.max(log_probabilities, axis=1))

    @jax.jit
    def stepped(variables: Variables, batch: Batch) -> Mapping[str, Array]:
        images = batch["image"].astype(jnp.float32) / 255
        direction = jnp.sign(jax.grad(confidence)(images, variables))
        logits = jax.lax.map(
            lambda step: subject.logits(variables, images + step * direction), jnp.array(steps)
        )
        return {"logits": jnp.moveaxis(logits, 0, 1)}

    # Softmax probabilities at this temperature differ from 1 / classes in their fourth digit,
    # so they are worked out in float64.
    cooled = subject.over(split, stepped)["logits"].astype(np.float64) / TEMPERATURE
    probabilities: np.ndarray = np.exp(cooled.max(axis=2) - logsumexp(cooled, axis=2))
    return probabilities
