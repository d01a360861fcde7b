"""The sections of a report, in its order: which numbers each is made of."""

from collections.abc import Callable
from typing import Any

from imgrec.evaluation import metrics, ranking
from imgrec.evaluation.calibration import calibration
from imgrec.evaluation.conformal import conformal
from imgrec.evaluation.selective import selective
from imgrec.evaluation.suite import Evaluated, MissingError, Section

RESAMPLES = 1000


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


ALL = (
    Section("classification", "classification", _classification),
    Section("ranking", "ranking", _ranking),
    Section("calibration", "calibration", _by_validation(calibration)),
    Section("selective", "rejecting the unsure", _by_validation(selective)),
    Section("conformal", "prediction sets", _conformal),
)
