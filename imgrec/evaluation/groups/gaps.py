"""How far apart groups are: rates of a class against the rest, and their largest differences.

Definitions are fairlearn's (Agarwal et al. 2018; Hardt et al. 2016 for equalised odds), class by
class. All functions take counts with any further axes behind groups and classes, so that the
same line serves the examples and a thousand resamples of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Num

from imgrec.evaluation import bootstrap

DIFFERENCES = (
    "label_share_difference",
    "demographic_parity_difference",
    "demographic_parity_ratio",
    "true_positive_rate_difference",
    "false_positive_rate_difference",
    "equalised_odds_difference",
)
_RATIO = "demographic_parity_ratio"  # the one that is worst where it is smallest


@dataclass(frozen=True, eq=False)
class Counts:
    """Of examples, in each group; of those labelled, called, and rightly called each class."""

    n: Num[np.ndarray, "groups *more"]
    support: Num[np.ndarray, "groups classes *more"]
    predicted: Num[np.ndarray, "groups classes *more"]
    correct: Num[np.ndarray, "groups classes *more"]


def rates(counts: Counts) -> dict[str, Float[np.ndarray, "groups classes *more"]]:
    """Each class against the rest, nan where the denominator is 0."""
    n = counts.n[:, None]
    return {
        "share_of_labels": _over(counts.support, n),
        "selection_rate": _over(counts.predicted, n),
        "precision": _over(counts.correct, counts.predicted),
        "true_positive_rate": _over(counts.correct, counts.support),
        "false_positive_rate": _over(counts.predicted - counts.correct, n - counts.support),
        "false_negative_rate": _over(counts.support - counts.correct, counts.support),
    }


def macro(counts: Counts) -> dict[str, Float[np.ndarray, "groups *more"]]:
    """Means over the classes.

    precision and recall are over the classes that occur in the group's labels or predictions,
    0 where the denominator is 0, as scikit-learn and `metrics.classification` have them; the
    three rates are over the classes for which they are defined.
    """
    found = rates(counts)
    occurs = counts.support + counts.predicted > 0
    recall = found["true_positive_rate"]
    return {
        "precision": _mean(np.where(occurs, np.nan_to_num(found["precision"]), np.nan), axis=1),
        "recall": _mean(np.where(occurs, np.nan_to_num(recall), np.nan), axis=1),
        "true_positive_rate": _mean(recall, axis=1),
        "false_positive_rate": _mean(found["false_positive_rate"], axis=1),
        "false_negative_rate": _mean(found["false_negative_rate"], axis=1),
    }


def differences(
    counts: Counts,
    positives: Bool[np.ndarray, "groups classes"],
    negatives: Bool[np.ndarray, "groups classes"],
    around: Mapping[str, Float[np.ndarray, "groups classes"]] | None = None,
) -> dict[str, Float[np.ndarray, "classes *more"]]:
    """`DIFFERENCES` between the groups of each class, nan with fewer than two groups.

    label_share_difference is how much the groups differ in what they hold: the demographic
    parity difference of a model that is always right.

    Args:
      counts: of the groups that are compared.
      positives: whether a group has enough examples of a class for its true positive rate.
      negatives: whether it has enough others for its false positive rate.
      around: rates that are taken off those of the counts (for the ratio, that they are divided
        by). With the sample's own, what is left of its resamples is noise alone.
    """
    found = rates(counts)
    more = (1,) * (counts.support.ndim - 2)
    for name, enough in (("true_positive_rate", positives), ("false_positive_rate", negatives)):
        found[name] = np.where(enough.reshape(*enough.shape, *more), found[name], np.nan)
    share = found["selection_rate"]
    if around is not None:
        centre = {name: values.reshape(*values.shape, *more) for name, values in around.items()}
        share = _over(share, centre["selection_rate"])
        found = {name: found[name] - centre[name] for name in found}
    label_gap, selection_gap, true_gap, false_gap = (
        high - low
        for low, high in (
            _extremes(found[name])
            for name in (
                "share_of_labels",
                "selection_rate",
                "true_positive_rate",
                "false_positive_rate",
            )
        )
    )
    ratio, odds_gap = _over(*_extremes(share)), np.maximum(true_gap, false_gap)
    values = (label_gap, selection_gap, ratio, true_gap, false_gap, odds_gap)
    return dict(zip(DIFFERENCES, values, strict=True))


def fairness(
    observed: Mapping[str, Float[np.ndarray, " classes"]],
    resampled: Mapping[str, Float[np.ndarray, "classes count"]],
    noise: Mapping[str, Float[np.ndarray, "classes count"]],
    class_names: Sequence[str],
    most_classes: int,
) -> dict[str, Any]:
    """The differences of all classes as one number each, by conventions that their keys name.

    Args:
      observed: as of `differences`.
      resampled: likewise, of resamples.
      noise: likewise, of resamples around the sample.
      class_names: of the classes.
      most_classes: with more, they are not listed one by one.

    Returns:
      positive_label_1, of the second of two classes, else None; largest_over_classes, the worst
      class, which of_class names for each difference; macro_over_classes, the mean over the
      classes that of_classes counts. Each has the `DIFFERENCES` (None where not defined),
      if_alike, their expected values if all groups had the same rates, and intervals.
      per_class: a list of {name, differences}, or None.
    """
    conventions: dict[str, Callable[[str, np.ndarray], Any]] = {
        "largest_over_classes": _worst,
        "macro_over_classes": lambda name, values: _mean(values, axis=0),
    }
    if len(class_names) == 2:
        conventions["positive_label_1"] = lambda name, values: values[1]
    told: dict[str, Any] = {"positive_label_1": None}
    for convention, of in conventions.items():
        one: dict[str, Any] = {"if_alike": {}, "intervals": {}}
        for name in DIFFERENCES:
            value, spread, alike = (
                of(name, values[name]) for values in (observed, resampled, noise)
            )
            one[name] = plain(value)
            one["if_alike"][name] = plain(_mean(alike, axis=0))
            one["intervals"][name] = gap_interval(
                float(value), spread, alike, noise_widens=name != _RATIO
            )
        told[convention] = one
    told["largest_over_classes"]["of_class"] = {
        name: _first(class_names, values == _worst(name, values))
        for name, values in observed.items()
    }
    told["macro_over_classes"]["of_classes"] = {
        name: int(np.isfinite(values).sum()) for name, values in observed.items()
    }
    told["per_class"] = None
    if len(class_names) <= most_classes:
        told["per_class"] = [
            {"name": name} | {of: plain(values[i]) for of, values in observed.items()}
            for i, name in enumerate(class_names)
        ]
    return told


def gap_interval(
    value: float,
    resampled: Float[np.ndarray, " count"],
    noise: Float[np.ndarray, " count"],
    *,
    noise_widens: bool = True,
) -> list[float] | None:
    """95 % for a difference between extremes, or a ratio of them, on [0, 1].

    It is `bootstrap.reflected_interval`; that of a ratio lies below 1 as that of a difference
    lies above 0, and ends at 1 where noise alone would often make such a ratio.

    Args:
      value: of the sample; nan has no interval.
      resampled: of its resamples.
      noise: of its resamples, were the groups equal.
      noise_widens: False for a ratio of the least to the most, which noise makes smaller.
    """
    if noise_widens:
        return bootstrap.reflected_interval(value, resampled, noise, most=1.0)
    below = bootstrap.reflected_interval(1 - value, 1 - resampled, 1 - noise, most=1.0)
    if below is None:
        return None
    low, high = 1 - below[1], 1 - below[0]
    return [min(low, value), max(high, value)]  # 1 - (1 - value) may be off by its last digit


def plain(value: Any) -> float | None:
    """As a Python number, None for what is not finite."""
    return float(value) if np.isfinite(value) else None


def _over(numerator: Any, denominator: Any) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def _mean(values: Float[np.ndarray, "*shape"], axis: int) -> Any:
    """Over what is defined, nan where nothing is."""
    there = np.isfinite(values)
    return _over(np.where(there, values, 0).sum(axis=axis), there.sum(axis=axis))


def _extremes(values: Float[np.ndarray, "groups *more"]) -> tuple[np.ndarray, np.ndarray]:
    """Least and most over the groups, nan where fewer than two are defined."""
    there = np.isfinite(values)
    two = there.sum(axis=0) >= 2
    low = np.where(there, values, np.inf).min(axis=0, initial=np.inf)
    high = np.where(there, values, -np.inf).max(axis=0, initial=-np.inf)
    return np.where(two, low, np.nan), np.where(two, high, np.nan)


def _first(names: Sequence[str], which: Bool[np.ndarray, " classes"]) -> str | None:
    return next((name for name, chosen in zip(names, which, strict=True) if chosen), None)


def _worst(name: str, values: Float[np.ndarray, "classes *more"]) -> Any:
    """The largest difference, or the smallest ratio; nan where none is defined."""
    sign = -1 if name == _RATIO else 1
    there = np.isfinite(values)
    most = np.where(there, sign * values, -np.inf).max(axis=0)
    return np.where(there.any(axis=0), sign * most, np.nan)
