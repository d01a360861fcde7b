"""The sections of a report, in its order: which numbers each is made of."""

from collections.abc import Callable
from typing import Any

import numpy as np

from imgrec.errors import unknown
from imgrec.evaluation import image_columns, metrics, ranking
from imgrec.evaluation.calibration import calibration
from imgrec.evaluation.conformal import conformal
from imgrec.evaluation.groups import groups
from imgrec.evaluation.imbalance import imbalance
from imgrec.evaluation.label_errors import label_errors
from imgrec.evaluation.selective import selective
from imgrec.evaluation.suite import Evaluated, Found, MissingError, Section

RESAMPLES = 1000
_SHOWN = 24  # suspects whose images are shown
_NOT_GROUPS = ("clean_label",)  # columns that tell of labels, not of images


def _classification(e: Evaluated) -> dict[str, Any]:
    p = e.predictions
    return metrics.classification(
        p.logits, p.label, e.class_names, resamples=RESAMPLES, seed=e.options.seed
    )


def _ranking(e: Evaluated) -> dict[str, Any]:
    return ranking.ranking(
        e.predictions.logits, e.predictions.label, e.class_names, seed=e.options.seed
    )


def _by_validation(section: Callable[..., dict[str, Any]]) -> Callable[[Evaluated], dict[str, Any]]:
    """A section that fits something on validation, and does with less where there is none."""

    def run(e: Evaluated) -> dict[str, Any]:
        p = e.predictions
        try:
            v = e.validation
        except MissingError:
            return section(p.logits, p.label, seed=e.options.seed)
        return section(p.logits, p.label, v.logits, v.label, seed=e.options.seed)

    return run


def _conformal(e: Evaluated) -> dict[str, Any]:
    p, v = e.predictions, e.validation
    return conformal(p.logits, p.label, v.logits, v.label, e.class_names, seed=e.options.seed)


def _imbalance(e: Evaluated) -> dict[str, Any]:
    p = e.predictions
    counts = np.bincount(e.dataset.train.labels(), minlength=len(e.class_names))
    try:
        given = (e.validation.logits, e.validation.label)
    except MissingError:
        given = (None, None)
    return imbalance(p.logits, p.label, e.class_names, counts, *given, seed=e.options.seed)


def _groups(e: Evaluated) -> dict[str, Any]:
    p, known = e.predictions, e.split.columns()
    if absent := [name for name in e.options.columns if name not in known]:
        raise unknown("column of groups", absent[0], known)
    wanted = e.options.columns or [name for name in known if name not in _NOT_GROUPS]
    columns = {name: known[name] for name in wanted} | image_columns.derived_columns(e.split)
    return groups(p.logits, p.label, e.class_names, columns, seed=e.options.seed)


def _label_errors(e: Evaluated) -> Found:
    if e.split.name == "train":
        raise MissingError("the model was trained on these labels, and believes them")
    p, clean = e.predictions, e.split.columns().get("clean_label")
    found = label_errors(p.logits, p.label, e.class_names, clean, seed=e.options.seed)
    shown = found["suspects"][:_SHOWN]
    if not shown:
        return Found(found)
    images = e.split.gather(np.array([s["index"] for s in shown]))["image"]
    captions = [f"{s['given']}\n{s['suggested']}? {100 * s['probability']:.0f} %" for s in shown]
    return Found(found, {"images": images, "captions": captions})


ALL = (
    Section("classification", "classification", _classification),
    Section("ranking", "ranking", _ranking),
    Section("calibration", "calibration", _by_validation(calibration)),
    Section("selective", "rejecting the unsure", _by_validation(selective)),
    Section("conformal", "prediction sets", _conformal),
    Section("imbalance", "frequent and rare classes", _imbalance),
    Section("groups", "groups of images", _groups),
    Section("label_errors", "likely label errors", _label_errors),
)
