"""Pictures that the loop and the dry run show: augmented batches, the confusion matrix."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from imgrec import randomness
from imgrec.evaluation import exact
from imgrec.reporting import plots
from imgrec.training.plan import Plan

SHOWN = 32
COLUMNS = 8


def augmented_grid(plan: Plan, batch: Mapping[str, Any]) -> np.ndarray:
    """The first training batch as the model sees it, captioned with its targets.

    Where anything is augmented, the first row shows images as they are, and each row below the
    same images as steps 0, 1, 2 would change them.

    Args:
      plan: of the experiment.
      batch: what its feed hands out first; all processes have to ask, each with its part.

    Returns:
      uint8 [height, width, 3].
    """
    prepare = jax.jit(lambda fed, key: plan.task.prepare(plan.take(fed), key))
    plain = exact.gather(jax.jit(plan.take)(batch))

    def seen(step: int) -> tuple[np.ndarray, np.ndarray]:
        key = randomness.named(randomness.at_step(plan.experiment.seed, step), "augment")
        prepared = exact.gather(prepare(batch, key))
        images = plots.denormalise(prepared["image"], plan.task.mean, plan.task.std)
        return images, prepared["target"]

    originals = np.asarray(plain["image"], np.float32) / 255
    targets = np.eye(plan.dataset.info.num_classes, dtype=np.float32)[plain["label"]]
    first = seen(0)
    if np.allclose(first[0], originals, atol=1e-3):
        rows = [(first[0][:SHOWN], first[1][:SHOWN])]
    else:
        versions = [(originals, targets), first, *(seen(step) for step in (1, 2))]
        rows = [(images[:COLUMNS], target[:COLUMNS]) for images, target in versions]
    names = plan.dataset.info.class_names
    captions = [caption(target, names) for _, targets in rows for target in targets]
    images = np.concatenate([images for images, _ in rows])
    return plots.image_grid(images, captions, columns=min(COLUMNS, len(rows[0][0])))


def confusion_picture(metrics: Mapping[str, Any], class_names: Sequence[str]) -> np.ndarray:
    """The confusion matrix of `evaluation.metrics`, as uint8 [height, width, 3]."""
    return plots.confusion_matrix(np.asarray(metrics["confusion_matrix"]), class_names)


def caption(target: np.ndarray, names: Sequence[str]) -> str:
    """The class, or the two largest shares of a mixed target."""
    first, second = np.argsort(-target, kind="stable")[:2]
    if target[second] < 0.005:
        return names[first]
    return f"{names[first]} {target[first]:.2f} + {names[second]} {target[second]:.2f}"
