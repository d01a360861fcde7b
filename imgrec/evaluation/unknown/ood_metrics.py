"""How well one score tells two sets of images apart: those of the known kind, and others.

A score is higher for what looks known. Every number is a function of how many of either set
score at most so much, level by level of the scores that occur, so that equal scores are never
put in an order, and resamples are just other counts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

from imgrec.evaluation import bootstrap

CURVE_POINTS = 100
HISTOGRAM_BINS = 40
KEPT = 0.95
"""Share of the known images that a detector is to let through."""

_CHUNK = 30_000  # numbers in a block of resamples: more leave the cache, at a quarter of the speed

Inside = Float[np.ndarray, " n"]
Outside = Float[np.ndarray, " m"]
Counts = Float64[np.ndarray, "count levels"]
Weights = tuple[Float[np.ndarray, "count n"], Float[np.ndarray, "count m"]]


def separation(inside: Inside, outside: Outside, weights: Weights | None = None) -> dict[str, Any]:
    """How well a score separates the images it is to accept from those it is to reject.

    Args:
      inside: scores of images of the known kind (in distribution, "id").
      outside: scores of others ("ood").
      weights: resamples of both (`resampled`), for intervals.

    Returns:
      auroc: how often an image inside has the higher score than one outside, ties being half;
      aupr_in, aupr_out: average precision (the sum over thresholds of precision times gain in
        recall, as scikit-learn's) of finding those inside, and of finding those outside;
      fpr95_id_positive: share of those outside that is accepted where at least 95 % of those
        inside are: the convention of ODIN, energy and most papers;
      fpr95_ood_positive: share of those inside that is rejected where at least 95 % of those
        outside are: the convention of OpenOOD;
      n, n_ood; intervals (percentile bootstrap over both sets; None without weights); reasons,
      which says in words why these are None, where a set is empty or a score not finite.
    """
    sizes = {"n": len(inside), "n_ood": len(outside)}
    if reason := undefined(inside, outside):
        nothing = dict.fromkeys(_METRICS)
        return {
            **nothing,
            **sizes,
            "intervals": nothing,
            "reasons": dict.fromkeys(_METRICS, reason),
        }
    found = resampled_metrics(Ranked.of(inside, outside), _METRICS, weights)
    return {**found, **sizes, "reasons": {}}


def undefined(*scores: Float[np.ndarray, " _"]) -> str | None:
    """Why nothing can be said of these sets of scores, in words; None where it can."""
    if not all(map(len, scores)):
        return "There are no images to compare."
    if lost := sum(int(np.sum(~np.isfinite(some))) for some in scores):
        return f"{lost} of {sum(map(len, scores))} scores are not finite numbers."
    return None


def resampled(n: int, n_ood: int, *, seed: int = 0, count: int = 1000) -> Weights:
    """Resamples of both sets, drawn apart from each other."""
    # The other set's seed is one that no report is asked for; with the same one, sets of equal
    # size would be resampled alike, as if image i of one belonged to image i of the other.
    other = seed + 2**33
    return (
        bootstrap.resamples(n, seed=seed, count=count),
        bootstrap.resamples(n_ood, seed=other, count=count),
    )


@dataclass(frozen=True, eq=False)
class Ranked:
    """Two sets of scores by levels, ascending.

    Attributes:
      inside_order, outside_order: rows of each set by rising score.
      inside_at_most, outside_at_most: how many of them are at or below each level; the first
        level lies below all scores.
    """

    inside_order: Int64[np.ndarray, " n"]
    outside_order: Int64[np.ndarray, " m"]
    inside_at_most: Int64[np.ndarray, " levels"]
    outside_at_most: Int64[np.ndarray, " levels"]

    @staticmethod
    def of(inside: Inside, outside: Outside) -> "Ranked":
        """The levels of finite scores."""
        levels = np.unique(np.concatenate([inside, outside]))
        orders = [np.argsort(scores, kind="stable") for scores in (inside, outside)]
        at_most = [
            np.concatenate([[0], np.searchsorted(scores[order], levels, side="right")])
            for scores, order in zip((inside, outside), orders, strict=True)
        ]
        return Ranked(orders[0], orders[1], at_most[0], at_most[1])

    def counts(
        self, inside: Float[np.ndarray, "count n"], outside: Float[np.ndarray, "count m"]
    ) -> tuple[Counts, Counts]:
        """What of either set is at or below each level, where examples count so much each."""
        return (
            _at_most(inside[:, self.inside_order], self.inside_at_most),
            _at_most(outside[:, self.outside_order], self.outside_at_most),
        )

    def plain(self) -> tuple[Counts, Counts]:
        """The same where each counts once."""
        return (
            self.inside_at_most[None].astype(np.float64),
            self.outside_at_most[None].astype(np.float64),
        )


def _at_most(
    weights: Float[np.ndarray, "count some"], at_most: Int[np.ndarray, " levels"]
) -> Counts:
    sums = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums[:, at_most]


Metric = Callable[[Counts, Counts], Float64[np.ndarray, " count"]]


def resampled_metrics(
    ranked: Ranked, metrics: Mapping[str, Metric], weights: Weights | None
) -> dict[str, Any]:
    """Each metric by name, and `intervals` of them."""
    values = {name: metric(*ranked.plain()) for name, metric in metrics.items()}
    found: dict[str, Any] = {name: float(value[0]) for name, value in values.items()}
    intervals: dict[str, list[float] | None] = dict.fromkeys(metrics)
    if weights is not None:
        drawn: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
        rows = max(1, _CHUNK // len(ranked.inside_at_most))
        for start in range(0, len(weights[0]), rows):
            counts = ranked.counts(*(w[start : start + rows] for w in weights))
            for name, metric in metrics.items():
                drawn[name].append(metric(*counts))
        intervals = {name: bootstrap.interval(np.concatenate(d)) for name, d in drawn.items()}
    return {**found, "intervals": intervals}


def auroc(inside: Counts, outside: Counts) -> Float64[np.ndarray, " count"]:
    """Area under the curve of accepted inside against accepted outside, by trapezoids."""
    between = (outside[:, 1:] + outside[:, :-1]) / 2
    area = np.einsum("ij,ij->i", np.diff(inside, axis=1), between)
    return area / (inside[:, -1] * outside[:, -1])


def aupr_in(inside: Counts, outside: Counts) -> Float64[np.ndarray, " count"]:
    """Average precision of accepting at each level and above."""
    found = inside[:, -1:] - inside[:, :-1]
    wrong = outside[:, -1:] - outside[:, :-1]
    return _average_precision(found, wrong, np.diff(inside, axis=1))


def aupr_out(inside: Counts, outside: Counts) -> Float64[np.ndarray, " count"]:
    """Average precision of rejecting at each level and below."""
    return _average_precision(outside[:, 1:], inside[:, 1:], np.diff(outside, axis=1))


def _average_precision(
    found: Counts, wrong: Counts, gained: Counts
) -> Float64[np.ndarray, " count"]:
    # Where nothing is taken yet, nothing is gained either.
    precision = found / np.maximum(found + wrong, 1)
    return np.einsum("ij,ij->i", precision, gained) / gained.sum(axis=1)


def fpr95_id_positive(inside: Counts, outside: Counts) -> Float64[np.ndarray, " count"]:
    """Share of the outside accepted at the highest level that accepts 95 % of the inside."""
    accepted = inside[:, -1:] - inside
    level = np.sum(_at_least(accepted, inside[:, -1:]), axis=1) - 1
    return (outside[:, -1] - outside[np.arange(len(outside)), level]) / outside[:, -1]


def fpr95_ood_positive(inside: Counts, outside: Counts) -> Float64[np.ndarray, " count"]:
    """Share of the inside rejected at the lowest level that rejects 95 % of the outside."""
    level = np.argmax(_at_least(outside, outside[:, -1:]), axis=1)
    return inside[np.arange(len(inside)), level] / inside[:, -1]


def _at_least(
    some: Counts, whole: Float64[np.ndarray, "count 1"]
) -> Bool[np.ndarray, "count levels"]:
    # Counts are whole numbers, so 95 % of 20 is 19 whatever the last bit of the product says.
    return some >= KEPT * whole - 1e-6


_METRICS: Mapping[str, Metric] = {
    "auroc": auroc,
    "aupr_in": aupr_in,
    "aupr_out": aupr_out,
    "fpr95_id_positive": fpr95_id_positive,
    "fpr95_ood_positive": fpr95_ood_positive,
}


def threshold(scores: Inside, kept: float = KEPT) -> float | None:
    """The highest of the scores at or above which at least a share of them lies.

    None where there are none, or one is not finite.
    """
    if undefined(scores):
        return None
    return float(np.sort(scores)[int((1 - kept) * len(scores) + 1e-9)])


def roc(ranked: Ranked) -> dict[str, list[float]]:
    """{"accepted_ood": [...], "accepted_id": [...]}: shares, both rising from 0 to 1."""
    inside, outside = (counts[0] / counts[0, -1] for counts in ranked.plain())
    chosen = thinned(inside + outside)[::-1]
    return {
        "accepted_ood": (1 - outside[chosen]).tolist(),
        "accepted_id": (1 - inside[chosen]).tolist(),
    }


def thinned(along: Float64[np.ndarray, " levels"]) -> Int64[np.ndarray, " points"]:
    """Levels at about equal distances along a curve, its ends among them, rising."""
    wanted = np.linspace(along[0], along[-1], CURVE_POINTS)
    return np.unique(np.searchsorted(along, wanted - 1e-12))


def histograms(inside: Inside, outside: Outside) -> dict[str, list[float] | list[int]]:
    """{"edges": [41], "id": [40], "ood": [40]}: counts of scores between common edges.

    The edges span the middle 99 % of either set; what lies beyond is counted at the ends.
    """
    spans = [np.quantile(scores, [0.005, 0.995]) for scores in (inside, outside)]
    low, high = min(span[0] for span in spans), max(span[1] for span in spans)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, HISTOGRAM_BINS + 1)
    counts = [np.histogram(np.clip(scores, low, high), edges)[0] for scores in (inside, outside)]
    return {"edges": edges.tolist(), "id": counts[0].tolist(), "ood": counts[1].tolist()}
