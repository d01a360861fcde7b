"""Pictures that the loop and the dry run show: augmented batches, the confusion matrix."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from imgrec import randomness
from imgrec.reporting import plots
from imgrec.training.plan import Plan

SHOWN = 32


def augmented_grid(plan: Plan, batch: Mapping[str, jax.Array]) -> np.ndarray:
    """The first training batch as the model sees it in step 0, captioned with its targets.

    Returns:
      uint8 [height, width, 3].
    """
    key = randomness.named(randomness.at_step(plan.experiment.seed, 0), "augment")
    prepared = jax.device_get(jax.jit(plan.task.prepare)(batch, key))
    images = plots.denormalise(prepared["image"][:SHOWN], plan.task.mean, plan.task.std)
    names = plan.dataset.info.class_names
    captions = [caption(target, names) for target in prepared["target"][:SHOWN]]
    return plots.image_grid(images, captions, columns=8)


def confusion_picture(metrics: Mapping[str, Any], class_names: Sequence[str]) -> np.ndarray:
    """The confusion matrix of `evaluation.metrics`, as uint8 [height, width, 3]."""
    return plots.confusion_matrix(np.asarray(metrics["confusion_matrix"]), class_names)


def caption(target: np.ndarray, names: Sequence[str]) -> str:
    """The class, or the two largest shares of a mixed target."""
    first, second = np.argsort(-target, kind="stable")[:2]
    if target[second] < 0.005:
        return names[first]
    return f"{names[first]} {target[first]:.2f} + {names[second]} {target[second]:.2f}"
