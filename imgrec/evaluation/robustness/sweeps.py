"""Robustness curves: accuracy against an angle, a shift, a size, a shade, a hidden share.

Every image is changed on the device at every amount of every dial of `imgrec.corruptions.dials`,
and none is kept.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from imgrec.corruptions import dials
from imgrec.data import Split
from imgrec.errors import unknown
from imgrec.evaluation import bootstrap
from imgrec.evaluation.robustness.conditions import Change, Progress, answers, unchanged
from imgrec.evaluation.robustness.curves import curve
from imgrec.evaluation.subject import Subject


def sweep(
    subject: Subject,
    split: Split,
    *,
    names: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """A curve of accuracy for each dial.

    Args:
      subject: the model.
      split: whose images are changed.
      names: of dials in `dials.SWEEPS`; None for all.
      seed: of what is random in them, and of the resamples.
      progress: told of every batch at every amount.

    Returns:
      n; seed; chance, one over the number of classes; clean_accuracy, with intervals; curves:
      for each name what `curves.curve` returns, with the unit of its doses.

    Raises:
      UserError: no such dial.
    """
    names = tuple(dials.SWEEPS) if names is None else tuple(names)
    for name in names:
        if name not in dials.SWEEPS:
            raise unknown("robustness curve", name, dials.SWEEPS)
    # What leaves an image as it is comes first of every dial, and is evaluated once for all.
    conditions = [(0, 0.0)]
    columns: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        amounts = dials.SWEEPS[name].amounts[1:]
        columns[name] = [0, *range(len(conditions), len(conditions) + len(amounts))]
        conditions += [(place + 1, float(amount)) for amount in amounts]
    changes: list[Change] = [
        unchanged,
        *(functools.partial(_turned, name, seed) for name in names),
    ]
    correct = answers(subject, split, changes, conditions, progress=progress).correct

    n, chance = len(correct), 1 / len(subject.class_names)
    weights = bootstrap.resamples(n, seed=seed)
    clean = int(correct[:, 0].sum())
    return {
        "n": n,
        "seed": seed,
        "chance": chance,
        "clean_accuracy": clean / n,
        "intervals": {"clean_accuracy": bootstrap.wilson(clean, n)},
        "curves": {
            name: {"unit": dials.SWEEPS[name].unit}
            | curve(correct[:, columns[name]], dials.SWEEPS[name].amounts, chance, weights)
            for name in names
        },
    }


def _turned(
    name: str,
    seed: int,
    images: UInt8[Array, "batch height width channels"],
    index: Int[Array, " batch"],
    amount: Float[Array, ""],
) -> UInt8[Array, "batch height width channels"]:
    return dials.turn(images, index, name=name, amount=jnp.asarray(amount), seed=seed)
