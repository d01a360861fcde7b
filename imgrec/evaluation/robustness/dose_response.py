"""Exact dose-response curves: the test scenes rendered again with one dial at an exact dose.

In the world of `imgrec.data.scenes` every difficulty is a dial, and turning one leaves all else
about a scene as it was. So a curve is of the same scenes, under a dose that is known and not
estimated, and says where the accuracy of a network is half gone, for each factor alone.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Bool
from ml_collections import ConfigDict

from imgrec import data
from imgrec.config import DataConfig
from imgrec.data import Split, scenes
from imgrec.data.scenes.knobs import BACKGROUNDS, Knobs
from imgrec.errors import UserError, unknown
from imgrec.evaluation import bootstrap
from imgrec.evaluation.robustness.conditions import scores
from imgrec.evaluation.robustness.curves import curve
from imgrec.evaluation.subject import Batch, Subject, Variables

# From the easiest on.
DOSES: Mapping[str, tuple[int | float, ...]] = {
    "occlusion": (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    "angle": (0, 5, 10, 15, 20, 30, 45, 60, 90, 135, 180),
    "scale": (0.6, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.125),
    "light": (1, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05),
    "shading": (0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95),
    "clutter": (0, 2, 4, 8, 16, 32, 64, 128),
    "pixel_noise": (0, 8, 16, 24, 32, 48, 64, 96, 128),
    "n_objects": (1, 2, 3, 4, 6, 8),
}
UNITS: Mapping[str, str] = {
    "occlusion": "share of the target hidden",
    "angle": "degrees clockwise",
    "scale": "target's diameter, share of the side",
    "light": "factor of every colour",
    "shading": "share of light lost from corner to corner",
    "clutter": "dashes behind the objects",
    "pixel_noise": "largest change of a value, of 255",
    "n_objects": "objects",
}
Progress = Callable[[int, int], None]  # (doses done, all of them)


def dose_response(
    subject: Subject,
    config: DataConfig,
    *,
    factors: Sequence[str] | None = None,
    most: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """A curve of accuracy for each factor, and the accuracy on each kind of background.

    Args:
      subject: a model of the data set `scenes`.
      config: of its data. Whatever a curve does not turn stays as the test split has it.
      factors: names in `DOSES`, and "background"; None for all.
      most: scenes to render at each dose, the first of the test split; 0 for all.
      seed: of the resamples. That of the scenes is the test split's own.
      progress: told of every dose.

    Returns:
      n; chance, one over the number of classes; accuracy of the test scenes as they are, with
      intervals; curves: for each factor what `curves.curve` returns, with the unit of its doses,
      trained ([low, high] of the factor in training) and left_out ({dose, reason}: what cannot
      be rendered with the other dials as they are);
      background: {kinds, accuracy, accuracy_interval, trained}, the kinds known in training.

    Raises:
      UserError: the data set is another one, or there is no such factor.
    """
    if config.dataset != "scenes":
        raise UserError(
            "Dose-response curves need the data set 'scenes', whose images can be rendered again "
            f"with one factor changed; this run's is {config.dataset!r}."
        )
    known = (*DOSES, "background")
    factors = known if factors is None else tuple(factors)
    for factor in factors:
        if factor not in known:
            raise unknown("factor of dose-response curves", factor, known)
    total = 1 + sum(len(DOSES.get(factor, BACKGROUNDS)) for factor in factors)
    step, done = subject.compiled(functools.partial(_correct, subject)), 0

    def correct(dials: Dials) -> Bool[np.ndarray, " n"]:
        nonlocal done
        try:
            return subject.over(turned_split(config, dials, most), step)["correct"]
        finally:
            done += 1
            if progress is not None:
                progress(done, total)

    as_tested = correct({})
    n, chance = len(as_tested), 1 / len(subject.class_names)
    weights, trained = bootstrap.resamples(n, seed=seed), scenes.parse(config.options).train
    report: dict[str, Any] = {
        "n": n,
        "chance": chance,
        "accuracy": float(as_tested.mean()),
        "intervals": {"accuracy": bootstrap.wilson(int(as_tested.sum()), n)},
        "curves": {},
    }
    for factor in factors:
        if factor == "background":
            report["background"] = _backgrounds(correct, trained)
            continue
        doses, columns, left_out = _answers(correct, factor)
        report["curves"][factor] = {
            "unit": UNITS[factor],
            **curve(np.stack(columns, axis=1), doses, chance, weights),
            "trained": _trained(trained, factor),
            "left_out": left_out,
        }
    return report


Dials = Mapping[str, Any]  # of the test split, by name
Correct = Callable[[Dials], Bool[np.ndarray, " n"]]


def _correct(subject: Subject, variables: Variables, batch: Batch) -> dict[str, Array]:
    logits = subject.logits(variables, batch["image"])
    return {"correct": scores(logits, batch["label"])["correct"]}


def turned_split(config: DataConfig, dials: Dials, most: int) -> Split:
    """The run's test split with some dials set otherwise, by the way that made the run's own.

    Of training images that way wants a few, and nothing here depends on them.
    """
    turned = {f"test_{name}": value for name, value in dials.items()}
    config = DataConfig(
        dataset=config.dataset,
        validation="0",
        image_size=config.image_size,
        channels=config.channels,
        crop=config.crop,
        crop_fraction=config.crop_fraction,
        interpolation=config.interpolation,
        options=ConfigDict({**config.options, "train": 16, **turned}),
        holdout_classes=config.holdout_classes,
    )
    split = data.load(config).test
    return dataclasses.replace(split, rows=split.rows[:most]) if most else split


def _answers(
    correct: Correct, factor: str
) -> tuple[list[int | float], list[Bool[np.ndarray, " n"]], list[dict[str, Any]]]:
    """The doses that can be rendered, the answers at each, and what cannot be."""
    doses, columns, left_out = [], [], []
    for dose in DOSES[factor]:
        try:
            columns.append(correct(_dials(factor, dose)))
        except UserError as error:  # the other dials leave no room for it
            left_out.append({"dose": dose, "reason": str(error)})
        else:
            doses.append(dose)
    return doses, columns, left_out


def _dials(factor: str, dose: int | float) -> Dials:
    """How the world is told: the orientation of an object is the sum of two dials."""
    return {"angle": dose, "rotation": 0} if factor == "angle" else {factor: dose}


def _trained(knobs: Knobs, factor: str) -> list[float]:
    """The least and the most of a factor in training."""
    value = getattr(knobs, factor)
    low, high = value if isinstance(value, tuple) else (value, value)
    spread = knobs.rotation if factor == "angle" else 0
    return [float(low - spread), float(high + spread)]


def _backgrounds(correct: Correct, trained: Knobs) -> dict[str, Any]:
    found = [correct({"background": (kind,)}) for kind in BACKGROUNDS]
    return {
        "kinds": list(BACKGROUNDS),
        "accuracy": [float(answers.mean()) for answers in found],
        "accuracy_interval": [bootstrap.wilson(int(a.sum()), len(a)) for a in found],
        "trained": list(trained.background),
    }
