"""How well the probabilities rank: one class against the rest, at every threshold at once.

The area under the receiver operating characteristic is the chance that an example of the class
gets a higher probability of it than one of another class, ties counting half; the average
precision is the sum over the thresholds of precision times the gain in recall, without
interpolation. Both are scikit-learn's, ties included.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Integer
from scipy import sparse

from imgrec.evaluation import bootstrap, metrics

METRICS = ("roc_auc", "average_precision")
POINTS = 200
CURVES = 10
# Every class ranks every resample anew. So many values in all take some seconds; where that
# makes fewer resamples than these, it takes longer.
MOST_VALUES = 5 * 10**9
FEWEST_RESAMPLES = 100
# Pooling ranks all probabilities at once: where there are more, the report goes without.
MOST_POOLED = 2_000_000
# False positive rates of the macro curve: a good model's curve turns close to 0.
RATES = np.linspace(0, 1, POINTS - 1) ** 2
RECALLS = np.linspace(0, 1, POINTS)

Curve = Float64[np.ndarray, "2 points"]


def ranking(
    logits: Float[np.ndarray, "n classes"],
    labels: Integer[np.ndarray, " n"],
    class_names: Sequence[str],
    *,
    resamples: int = 500,
    seed: int = 0,
) -> dict[str, Any]:
    """ROC-AUC and average precision of each class against the rest, their means, and curves.

    Args:
      logits: of each example; their softmax is what is ranked.
      labels: the true classes.
      class_names: one for each logit.
      resamples: how many to make for the intervals, if the work allows: 1000 classes with
        50,000 examples get 100.
      seed: of the resamples.

    Returns:
      n; resamples, as many as were made; notes, a list of sentences on what could not be
      computed; per_class, a list of {name, support, roc_auc, average_precision, intervals} in
      the order of the classes, None for a class that has no examples or all of them; macro,
      the mean over the classes that have these numbers, and weighted, that by their support;
      micro, where all pairs of an example and a class are ranked together, None for more than
      2 million pairs: each {roc_auc, average_precision, intervals}.

      curves: shown, which classes have one; roc, a list of {kind, name, false_positive_rate,
      true_positive_rate}, and precision_recall, a list of {kind, name, recall, precision,
      base_rate}, at most 200 points each. The kind is "class", "micro" or "macro": the mean
      over all classes of the true positive rate at equal false positive rates, and of the
      precision where a recall is first reached. The base rate is the precision of chance.

    Raises:
      ValueError: there are no examples, or a label or the names do not fit the logits.
    """
    metrics.check(logits, labels, class_names)
    n, classes = logits.shape
    resamples = min(resamples, max(MOST_VALUES // logits.size, FEWEST_RESAMPLES))
    # The examples themselves come first, so that a number and its resamples are made alike.
    weights = np.ones((n, 1 + resamples))
    weights[:, 1:] = bootstrap.resamples(n, seed=seed, count=resamples).T
    probabilities = _probabilities(logits)
    truth = labels == np.arange(classes)[:, None]
    broken = int(np.isnan(probabilities).any(axis=0).sum())

    areas = np.full((classes, len(METRICS), 1 + resamples), np.nan)
    of_all = np.full((len(METRICS), 1 + resamples), np.nan)
    curves: dict[int | str, _Curves] = {}
    everyone = np.arange(n)
    for c in range(classes):
        if not broken and 0 < truth[c].sum() < n:
            ranked = _rank(probabilities[c], truth[c], everyone)
            areas[c], curves[c] = _areas(ranked, weights), _curves(ranked)
    if not broken and classes > 1 and logits.size <= MOST_POOLED:
        ranked = _rank(probabilities.ravel(), truth.ravel(), np.tile(everyone, classes))
        of_all, curves["micro"] = _areas(ranked, weights), _curves(ranked)

    support = _segment_sums(np.argsort(labels), np.cumsum(truth.sum(axis=1)), weights)
    per_class = [
        {"name": name, "support": int(truth[c].sum())} | _numbers(areas[c])
        for c, name in enumerate(class_names)
    ]
    return {
        "n": n,
        "resamples": resamples,
        "notes": _notes(n, broken, logits.size, per_class),
        "per_class": per_class,
        "macro": _numbers(_mean(areas, np.ones_like(support))),
        "weighted": _numbers(_mean(areas, support)),
        "micro": _numbers(of_all),
        "curves": _drawn(curves, per_class, n),
    }


def _probabilities(
    logits: Float[np.ndarray, "n classes"],
) -> Float64[np.ndarray, "classes n"]:
    """Softmax, with the probabilities of each class side by side in memory."""
    exact = logits.T.astype(np.float64, order="C")
    with np.errstate(invalid="ignore"):  # inf - inf: these examples have none
        exact -= exact.max(axis=0)
    np.exp(exact, out=exact)
    exact /= exact.sum(axis=0)
    return exact


class _Ranked(NamedTuple):
    """Scores from the highest down, of which only their order and their ties are kept.

    Attributes:
      example: whose score it is.
      positive: whether it is of the class.
      ends: one past the last of each group of equal scores.
    """

    example: Int[np.ndarray, " scores"]
    positive: Bool[np.ndarray, " scores"]
    ends: Int[np.ndarray, " groups"]


def _rank(
    scores: Float64[np.ndarray, " scores"],
    positive: Bool[np.ndarray, " scores"],
    example: Int[np.ndarray, " scores"],
) -> _Ranked:
    order = np.argsort(-scores)
    changes = np.flatnonzero(np.diff(scores[order]))
    return _Ranked(example[order], positive[order], np.append(changes + 1, len(scores)))


def _areas(
    ranked: _Ranked, weights: Float64[np.ndarray, "n columns"]
) -> Float64[np.ndarray, "2 columns"]:
    """ROC-AUC and average precision for each column of weights, nan where not defined.

    Both are sums over the thresholds at which positives are gained: the first of the ranks of
    the positives (Mann & Whitney 1947), equal scores having the middle of their ranks, and the
    second of the precision.
    """
    example, ends = ranked.example, ranked.ends
    positives = np.cumsum(ranked.positive)[ends - 1]
    gains = np.flatnonzero(np.diff(positives, prepend=0))
    sizes = np.diff(ends, prepend=0)
    beside = example[np.repeat(np.isin(np.arange(len(ends)), gains), sizes)]

    gained = _segment_sums(example[ranked.positive], positives[gains], weights)
    equal = _segment_sums(beside, np.cumsum(sizes[gains]), weights)
    every = np.cumsum(_segment_sums(example, np.append(ends[gains], ends[-1]), weights), axis=0)
    above, true = every[:-1], np.cumsum(gained, axis=0)
    total = gained.sum(axis=0)
    negatives = every[-1] - total
    ranks = np.einsum("gc,gc->c", gained, above) - np.einsum("gc,gc->c", gained, equal) / 2
    with np.errstate(invalid="ignore"):  # 0 / 0: not defined, or nothing gained yet
        roc_auc = (negatives * total + total**2 / 2 - ranks) / (negatives * total)
        precision = np.divide(true, above, out=true, where=above > 0)  # in place: these are large
        average_precision = np.einsum("gc,gc->c", gained, precision) / total
    return np.stack([roc_auc, np.where(negatives > 0, average_precision, np.nan)])


def _segment_sums(
    example: Int[np.ndarray, " scores"],
    ends: Int[np.ndarray, " segments"],
    weights: Float64[np.ndarray, "n columns"],
) -> Float64[np.ndarray, "segments columns"]:
    """The weights of the examples in each segment, which goes on from the one before it."""
    ones = np.ones(ends[-1])
    segments = (ones, example[: ends[-1]], np.append(0, ends))
    return sparse.csr_array(segments, shape=(len(ends), len(weights))) @ weights


class _Curves(NamedTuple):
    """Curves thinned for a plot, and their values where the classes are averaged."""

    roc: Curve
    precision_recall: Curve
    true_positive_rates: Float64[np.ndarray, " points"]
    precisions: Float64[np.ndarray, " points"]


def _curves(ranked: _Ranked) -> _Curves:
    true = np.append(0, np.cumsum(ranked.positive)[ranked.ends - 1])
    false = np.append(0, ranked.ends) - true
    roc = np.stack([false / false[-1], true / true[-1]])
    gains = 1 + np.flatnonzero(np.diff(true))
    recall, precision = true[gains] / true[-1], true[gains] / (true + false)[gains]
    # A recall that is reached at a threshold was reached by it, whatever the rounding.
    first = np.searchsorted(recall, RECALLS - 1e-9)
    # The precision of the first threshold holds for every recall below.
    precision_recall = np.stack([np.append(0, recall), np.append(precision[0], precision)])
    return _Curves(
        roc=_thinned(roc, along=roc.sum(axis=0)),
        precision_recall=_thinned(precision_recall, along=precision_recall[0]),
        true_positive_rates=np.interp(RATES, *roc),
        precisions=precision[first],
    )


def _thinned(
    curve: Curve, along: Float64[np.ndarray, " points"]
) -> Float64[np.ndarray, "2 thinned"]:
    """At most 200 of the points, evenly spread along a quantity that never falls."""
    if len(along) <= POINTS:
        return curve
    chosen = np.searchsorted(along, np.linspace(along[0], along[-1], POINTS))
    return curve[:, np.unique(chosen)]


def _mean(
    areas: Float64[np.ndarray, "classes 2 columns"], share: Float64[np.ndarray, "classes columns"]
) -> Float64[np.ndarray, "2 columns"]:
    """The mean over the classes that have a number, by their share; nan where none has."""
    shares = np.where(np.isnan(areas), 0, share[:, None])
    with np.errstate(invalid="ignore"):
        return np.nansum(areas * shares, axis=0) / shares.sum(axis=0)


def _numbers(areas: Float64[np.ndarray, "2 columns"]) -> dict[str, Any]:
    """The first column as numbers and the others as their intervals."""
    numbers: dict[str, Any] = {
        name: None if np.isnan(values[0]) else float(values[0])
        for name, values in zip(METRICS, areas, strict=True)
    }
    intervals = [
        bootstrap.interval(values[1:], estimate=float(values[0]), bounds=(0.0, 1.0))
        for values in areas
    ]
    return numbers | {"intervals": dict(zip(METRICS, intervals, strict=True))}


def _notes(n: int, broken: int, pairs: int, per_class: list[dict[str, Any]]) -> list[str]:
    if broken:
        return [
            f"Nothing is ranked: {broken} of {n} examples have logits that are nan or infinite, "
            "which make no probabilities."
        ]
    notes = []
    if missing := [entry["name"] for entry in per_class if entry["roc_auc"] is None]:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        notes.append(
            f"There are no numbers for {', '.join(missing[:5])}{more}: to be ranked, a class "
            "needs examples of it and of others."
        )
    if pairs > MOST_POOLED:
        notes.append(
            f"There is no micro average, which would rank {pairs:,} probabilities together; "
            f"it is made for {MOST_POOLED:,} at most."
        )
    return notes


def _drawn(
    curves: dict[int | str, _Curves], per_class: list[dict[str, Any]], n: int
) -> dict[str, Any]:
    """What a plot shows: the curves of some classes, of all pairs, and of the mean class."""
    ranked = [c for c in curves if isinstance(c, int)]
    hardest_first = sorted(ranked, key=lambda c: per_class[c]["average_precision"])
    shown = sorted(hardest_first[:CURVES])
    said = "all classes"
    if len(shown) < len(ranked):
        said = f"the {CURVES} of {len(ranked)} classes with the lowest average precision"
    rates = {c: per_class[c]["support"] / n for c in ranked}
    labelled = [("class", per_class[c]["name"], curves[c], rates[c]) for c in shown]
    if "micro" in curves:
        labelled.append(("micro", "micro", curves["micro"], 1 / len(per_class)))
    if ranked:
        rate = float(np.mean(list(rates.values())))
        labelled.append(("macro", "macro", _mean_curve([curves[c] for c in ranked]), rate))
    return {
        "shown": said,
        "roc": [
            {"kind": kind, "name": name}
            | _points(curve.roc, ("false_positive_rate", "true_positive_rate"))
            for kind, name, curve, _ in labelled
        ],
        "precision_recall": [
            {"kind": kind, "name": name, "base_rate": rate}
            | _points(curve.precision_recall, ("recall", "precision"))
            for kind, name, curve, rate in labelled
        ],
    }


def _mean_curve(curves: list[_Curves]) -> _Curves:
    true_positive_rates = np.mean([curve.true_positive_rates for curve in curves], axis=0)
    precisions = np.mean([curve.precisions for curve in curves], axis=0)
    # A step up from (0, 0), where the first examples are positives.
    roc = np.stack([np.append(0, RATES), np.append(0, true_positive_rates)])
    return _Curves(
        roc=roc,
        precision_recall=np.stack([RECALLS, precisions]),
        true_positive_rates=true_positive_rates,
        precisions=precisions,
    )


def _points(curve: Curve, names: tuple[str, str]) -> dict[str, list[float]]:
    return {name: values.tolist() for name, values in zip(names, curve, strict=True)}
