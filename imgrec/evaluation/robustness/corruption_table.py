"""What follows from answers under every kind of corruption at every severity.

Tables of kinds by severities, means over them, and the mean corruption error of Hendrycks and
Dietterich (2019, arXiv:1903.12261, section 4).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped
from scipy import sparse

from imgrec import corruptions
from imgrec.evaluation import bootstrap
from imgrec.evaluation.confidence import calibration
from imgrec.evaluation.robustness.conditions import Answers
from imgrec.evaluation.robustness.scalars import Scalars, finite

WORST = 5
ECE = f"ece_equal_width_{calibration.BINS}"
MCE = "mce_relative_to_reference"
RELATIVE_MCE = "relative_mce_relative_to_reference"

Weights = Float32[np.ndarray, "count n"]
Grids = Mapping[str, Float64[np.ndarray, "kinds severities"]]


def table(
    found: Answers,
    kinds: Sequence[str],
    severities: Sequence[int],
    *,
    clean: Answers | None,
    profile: str,
    reference: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """All that is to be said of answers under kinds x severities.

    Args:
      found: a column a condition, severities running faster than kinds.
      kinds: of corruption.
      severities: ascending.
      clean: answers to the same images as they were, one column; None where they are not known.
      profile: that the kinds are of; a reference must be of the same.
      reference: a report with such a table and `profile`, of a stated run.
      seed: of the resamples.

    Returns:
      n, profile, kinds, severities; categories, the category of each kind;
      accuracy, error, nll, ece_equal_width_15: tables, a row a kind and a column a severity;
      accuracy_interval: such a table of Wilson intervals;
      per_kind, per_category, per_severity: lists of {name (or severity), accuracy, error, nll,
      ece_equal_width_15, intervals: {accuracy, error}}, means over the conditions; per_kind
      also the category;
      worst_conditions: the five {kind, severity, accuracy} with the least accuracy;
      clean_accuracy, clean_error, clean_nll and clean_ece_equal_width_15 of the same images;
      mean_corrupted_accuracy and mean_corruption_error_unnormalised, means over all
      conditions; cnll and cece_equal_width_15, likewise of negative log likelihood and
      calibration error; accuracy_drop, clean less corrupted;
      mce_relative_to_reference: the mean over kinds of the sum of errors over severities over
      that of the reference, so 1 is as good as it; relative_mce_relative_to_reference: with the
      clean error taken off each first; reference: {name, mean_corruption_error_unnormalised,
      clean_error} or None;
      intervals of these scalars, images being resampled with all their conditions and the
      errors of the reference being taken as fixed; reasons, why a scalar is None.
    """
    n, shape = len(found), (len(kinds), len(severities))
    weights = bootstrap.resamples(n, seed=seed)
    hits = found.correct.sum(axis=0).reshape(shape)
    ece = calibration_errors(found, weights)
    grids = {
        "accuracy": hits / n,
        "error": 1 - hits / n,
        "nll": found.nll.mean(axis=0, dtype=np.float64).reshape(shape),
        ECE: ece.by_condition.reshape(shape),
    }
    scalars = Scalars(weights)
    _clean_scalars(scalars, found, clean, weights)
    scalars.mean("mean_corrupted_accuracy", found.correct.mean(axis=1))
    scalars.mean("mean_corruption_error_unnormalised", 1 - found.correct.mean(axis=1))
    scalars.mean("cnll", found.nll.mean(axis=1, dtype=np.float64))
    scalars.set(f"c{ECE}", ece.mean, ece.interval)
    report = {
        "n": n,
        "profile": profile,
        "kinds": list(kinds),
        "severities": list(severities),
        "categories": {kind: corruptions.CATEGORIES[kind] for kind in kinds},
        **{name: [[finite(v) for v in row] for row in grid] for name, grid in grids.items()},
        "accuracy_interval": [[bootstrap.wilson(int(k), n) for k in row] for row in hits],
        **_means(found.correct.reshape(n, *shape), grids, kinds, severities, weights),
        "worst_conditions": _worst(grids["accuracy"], kinds, severities),
    }
    report["reference"] = _relative(scalars, found, clean, report, reference)
    return {**report, **scalars.report()}


def _means(
    correct: Bool[np.ndarray, "n kinds severities"],
    grids: Grids,
    kinds: Sequence[str],
    severities: Sequence[int],
    weights: Weights,
) -> dict[str, list[dict[str, Any]]]:
    """Means over the conditions of a kind, of a category and of a severity."""

    def mean(rows: Sequence[int], columns: Sequence[int]) -> dict[str, Any]:
        part = np.ix_(rows, columns)
        own = correct[:, rows][:, :, columns].mean(axis=(1, 2))
        return {
            **{name: finite(grid[part].mean()) for name, grid in grids.items()},
            "intervals": {
                "accuracy": bootstrap.mean_interval(own, weights),
                "error": bootstrap.mean_interval(1 - own, weights),
            },
        }

    category = [corruptions.CATEGORIES[kind] for kind in kinds]
    rows, columns = range(len(kinds)), range(len(severities))
    return {
        "per_kind": [
            {"name": kind, "category": category[row], **mean([row], columns)}
            for row, kind in enumerate(kinds)
        ],
        "per_category": [
            {"name": name, **mean([row for row in rows if category[row] == name], columns)}
            for name in dict.fromkeys(category)
        ],
        "per_severity": [
            {"severity": severity, **mean(rows, [column])}
            for column, severity in enumerate(severities)
        ],
    }


def _worst(
    accuracy: Float64[np.ndarray, "kinds severities"],
    kinds: Sequence[str],
    severities: Sequence[int],
) -> list[dict[str, Any]]:
    least = np.argsort(accuracy, axis=None, kind="stable")[:WORST]
    return [
        {
            "kind": kinds[row],
            "severity": severities[column],
            "accuracy": float(accuracy[row, column]),
        }
        for row, column in zip(*np.unravel_index(least, accuracy.shape), strict=True)
    ]


def _clean_scalars(
    scalars: Scalars, found: Answers, clean: Answers | None, weights: Weights
) -> None:
    if clean is None:
        for name in ("accuracy", "error", "nll", ECE):
            scalars.lack(f"clean_{name}", _NO_CLEAN)
        scalars.lack("accuracy_drop", _NO_CLEAN)
        return
    right = clean.correct[:, 0].astype(np.float64)
    ece = calibration_errors(clean, weights)
    scalars.mean("clean_accuracy", right)
    scalars.mean("clean_error", 1 - right)
    scalars.mean("clean_nll", clean.nll[:, 0])
    scalars.set(f"clean_{ECE}", ece.mean, ece.interval)
    scalars.mean("accuracy_drop", right - found.correct.mean(axis=1))


_NO_CLEAN = "The images as they were before the corruption are not at hand."


def _relative(
    scalars: Scalars,
    found: Answers,
    clean: Answers | None,
    report: Mapping[str, Any],
    reference: Mapping[str, Any] | None,
) -> dict[str, Any] | None:
    """Puts the errors relative to a reference among the scalars; says what the reference is."""
    lack = _unfit(report, reference)
    if reference is None or lack:
        scalars.lack(MCE, lack)
        scalars.lack(RELATIVE_MCE, lack)
        return None
    kinds, severities = report["kinds"], report["severities"]
    rows = [list(reference["kinds"]).index(kind) for kind in kinds]
    columns = [list(reference["severities"]).index(severity) for severity in severities]
    errors = np.array(reference["error"], np.float64)[np.ix_(rows, columns)]
    wrong = ~found.correct.reshape(len(found), len(kinds), len(severities))
    _weighed(scalars, MCE, wrong.sum(axis=2), errors.sum(axis=1), kinds)
    clean_error = reference.get("clean_error")
    if clean is None:
        scalars.lack(RELATIVE_MCE, _NO_CLEAN)
    elif clean_error is None:
        scalars.lack(RELATIVE_MCE, "The clean error of the reference is not known.")
    else:
        more = wrong.astype(np.int64) - ~clean.correct[:, :1, None]
        _weighed(scalars, RELATIVE_MCE, more.sum(axis=2), (errors - clean_error).sum(axis=1), kinds)
    return {
        "name": reference.get("name"),
        "mean_corruption_error_unnormalised": float(errors.mean()),
        "clean_error": clean_error,
    }


def _weighed(
    scalars: Scalars,
    name: str,
    errors: Shaped[np.ndarray, "n kinds"],
    reference: Float64[np.ndarray, " kinds"],
    kinds: Sequence[str],
) -> None:
    """The mean over kinds of errors over the reference's, which is a mean over the images, too."""
    if np.any(reference <= 0):
        kind = kinds[int(np.argmax(reference <= 0))]
        scalars.lack(name, f"By {kind} the reference loses nothing that a loss is relative to.")
    else:
        scalars.mean(name, (errors / reference).mean(axis=1))


def _unfit(report: Mapping[str, Any], reference: Mapping[str, Any] | None) -> str:
    """Why a reference cannot be compared with; "" where it can."""
    if reference is None:
        return "No reference run was given."
    if reference.get("profile") != report["profile"]:
        return (
            f"The reference's images were corrupted by the profile {reference.get('profile')!r}, "
            f"these by {report['profile']!r}."
        )
    for name in ("kinds", "severities"):
        lacking = [item for item in report[name] if item not in reference[name]]
        if lacking:
            return f"The reference lacks the {name} {', '.join(map(str, lacking))}."
    return ""


class CalibrationErrors(NamedTuple):
    """Expected calibration errors: of each condition, their mean, and its interval."""

    by_condition: Float64[np.ndarray, " conditions"]
    mean: float
    interval: list[float] | None


def calibration_errors(found: Answers, weights: Weights) -> CalibrationErrors:
    """How far confidence is from accuracy, in bins of equal width, under each condition.

    An error is the sum over bins of how far the summed confidence is from the number of right
    answers, over n. So the mean over conditions is such an error too, of the bins of all.
    """
    n, conditions = found.correct.shape
    confidence = found.confidence.T.astype(np.float64)
    gap = confidence - found.correct.T
    edges = np.linspace(0, 1, calibration.BINS + 1)
    own_bin = np.searchsorted(edges[1:-1], confidence, side="left")
    cell = (own_bin + calibration.BINS * np.arange(conditions)[:, None]).ravel()
    cells = calibration.BINS * conditions
    gaps = np.bincount(cell, weights=gap.ravel(), minlength=cells) / n
    example = np.tile(np.arange(n), conditions)
    members = sparse.csr_array((gap.ravel().astype(np.float32), (cell, example)), (cells, n))
    resampled = (members @ bootstrap.by_example(weights)).T / n
    mean, interval, _ = calibration.binned_error(gaps / conditions, resampled / conditions, np.sum)
    return CalibrationErrors(np.abs(gaps).reshape(conditions, -1).sum(axis=1), mean, interval)
