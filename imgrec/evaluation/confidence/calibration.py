"""How far the confidence of a model can be believed, and the temperature that mends it.

The confidence of a prediction is its softmax probability. Proper scores come first (negative
log likelihood, Brier), then what bins of confidence show. Temperature scaling (Guo et al. 2017,
"On Calibration of Modern Neural Networks", section 4.2) divides all logits by one number that
is fitted on the validation split: it changes how sure the model is, never what it says.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Integer
from scipy import sparse

from imgrec.evaluation import bootstrap

BINS = 15
HISTOGRAM_BINS = 50
# Rows are taken so many numbers at a time (8 MB of float64), so that 50,000 examples of 1,000
# classes need no copy of themselves, and the work stays in the cache.
BLOCK = 1_000_000

Logits = Float[np.ndarray, "n classes"]
Labels = Integer[np.ndarray, " n"]
Weights = Float32[np.ndarray, "count n"]


def calibration(
    logits: Logits,
    labels: Labels,
    validation_logits: Float[np.ndarray, "m classes"] | None = None,
    validation_labels: Integer[np.ndarray, " m"] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The calibration of a model, before and after temperature scaling.

    Examples with a logit that is not a finite number have no confidence and are left out; a
    note says how many. The temperature comes from the validation split alone. Its interval is
    the normal one of log T with the sandwich variance; those after scaling hold T fixed.

    Returns:
      n; n_validation; temperature (None without validation); intervals of the temperature;
      reasons, which says in words why a value here is None; notes, a list of sentences;
      before and after (None without a temperature), each a dictionary:
        n, accuracy (equal in both), mean_confidence, overconfidence (the confidence above the
        accuracy; negative where the model is too modest);
        nll, in nats; brier_sum_over_classes, the squared distance between probabilities and
        one-hot label summed over the classes, so from 0 to 2 (Brier 1950);
        ece_equal_width_15 and ece_equal_mass_15, the expected calibration error; in these and
        in all that follows 15 bins of the confidence, each without its lower bound and with
        its upper (Guo et al., equation 3), where equal confidences share a bin;
        mce_equal_width_15, the largest gap of a bin (equation 5);
        ece_class_wise_equal_width_15, the mean over classes of the error of each class's own
        probability (Kull et al. 2019);
        if_calibrated: of these last four, the value expected on as many examples from a
        model without any error, since a binned error is never below 0;
        intervals: Wilson for the accuracy, the percentile bootstrap for means, reflected about
        the estimate for binned errors (`binned_error`);
        reliability_equal_width_15 and reliability_equal_mass_15: lists of 15 bins {lower,
        upper, count, mean_confidence, accuracy, interval (Wilson, of the accuracy)}, the last
        three None in an empty bin;
        histogram of the confidence: {edges (51), right (50), wrong (50)}, counts.

    Raises:
      ValueError: there are no examples, or labels do not fit their logits.
    """
    (logits, labels), notes = finite_examples(logits, labels, "examples")
    report: dict[str, Any] = {
        "n": len(labels),
        "n_validation": 0,
        "temperature": None,
        "intervals": {"temperature": None},
        "before": None,
        "after": None,
        "reasons": {},
        "notes": notes,
    }
    reasons = report["reasons"]
    if validation_logits is None or validation_labels is None:
        reasons["temperature"] = "There is no validation split to fit it on."
    else:
        given, notes = finite_examples(validation_logits, validation_labels, "validation examples")
        report["n_validation"] = len(given[1])
        report["notes"] += notes
        if len(given[1]):
            temperature, interval, note = _fit(*given)
            report["temperature"], report["intervals"]["temperature"] = temperature, interval
            report["notes"] += [note] if note else []
        else:
            reasons["temperature"] = "No validation example has finite logits."
    if not len(labels):
        reasons["before"] = reasons["after"] = "No example has finite logits."
        return report
    weights = bootstrap.resamples(len(labels), seed=seed)
    report["before"] = _scores(logits, labels, 1.0, weights)
    if report["temperature"] is None:
        reasons["after"] = reasons["temperature"]
    else:
        report["after"] = _scores(logits, labels, report["temperature"], weights)
    return report


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """The temperature by which logits are divided for the least negative log likelihood.

    The likelihood is convex in 1/T, so a Newton iteration on log T inside a bracket finds the
    one minimum, to about ten digits, from any logits. Three cases have no minimum:
      every prediction is right: the likelihood would have T = 0. One more example, wrong, is
        imagined, its error shared by the classes, as in Platt (1999), so that T is as small
        as so many examples without error allow;
      the logits are no better than chance: T is so large that all classes are as likely;
      all logits of every example are equal: T is 1.

    Examples with a logit that is not finite are left out.

    Raises:
      ValueError: no example is left, or the labels do not fit the logits.
    """
    (logits, labels), _ = finite_examples(logits, labels, "examples")
    if not len(labels):
        raise ValueError("No temperature can be fitted: no example has finite logits.")
    return _fit(logits, labels)[0]


def softmax(logits: Logits, temperature: float = 1.0) -> Float64[np.ndarray, "n classes"]:
    """Probabilities, in float64, of logits divided by the temperature."""
    exact = logits.astype(np.float64) / temperature
    exact -= exact.max(axis=1, keepdims=True)
    np.exp(exact, out=exact)
    exact /= exact.sum(axis=1, keepdims=True)
    return exact


def finite_examples(
    logits: Logits, labels: Labels, what: str
) -> tuple[tuple[Float[np.ndarray, "finite classes"], Integer[np.ndarray, " finite"]], list[str]]:
    """The examples all of whose logits are finite, and a note in words if some are not.

    Raises:
      ValueError: there are no examples, or a label does not fit the logits.
    """
    n, classes = logits.shape
    if n == 0:
        raise ValueError(f"Nothing can be said of confidence from 0 {what}.")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"Labels from {labels.min()} to {labels.max()} of {what} do not fit {classes} logits."
        )
    finite = np.isfinite(logits).all(axis=1)
    lost = n - int(finite.sum())
    if not lost:
        return (logits, labels), []
    note = f"{lost} of {n} {what} have logits that are not finite numbers and are left out."
    return (logits[finite], labels[finite]), [note]


def blocks(n: int, classes: int) -> Iterator[slice]:
    """Slices of the examples whose logits are about `BLOCK` numbers each."""
    rows = max(BLOCK // classes, 1)
    return (slice(start, start + rows) for start in range(0, n, rows))


def _fit(logits: Logits, labels: Labels) -> tuple[float, list[float] | None, str | None]:
    """The temperature, its 95 % interval where the minimum is one, and a note where it is none."""
    n, classes = logits.shape
    true, mean = np.empty(n), np.empty(n)
    for rows in blocks(n, classes):
        below = _below_largest(logits[rows])
        true[rows] = below[np.arange(len(below)), labels[rows]]
        mean[rows] = below.mean(axis=1)
    scale = -mean.mean()
    if scale == 0:
        return 1.0, None, "No temperature matters: the logits of every example are all equal."
    note = None
    if not true.any():
        share = classes / ((classes - 1) * (n + 2))
        true = (1 - share) * true + share * mean
        note = (
            f"The true class has the largest logit in all {n} examples that the temperature was "
            f"fitted on, which would make it 0; it was fitted as if one more had been wrong."
        )
    elif mean.mean() >= true.mean():
        worse = "The logits are no better than chance: the temperature is as large as is allowed."
        return 1000 * float(scale), None, worse

    # In units of the logits' own scale, so that cosines and logits of a thousand both lie well
    # inside: confidence all but uniform at one end, all but certain at the other.
    low, high = math.log(1e-3 / scale), math.log(1e6 / scale)
    log_inverse = min(max(0.0, low), high)
    for _ in range(100):
        slope, square, curvature = _slope(logits, true, math.exp(log_inverse))
        low, high = (log_inverse, high) if slope < 0 else (low, log_inverse)
        proposed = log_inverse - slope / curvature if curvature > 0 else math.inf
        if not low < proposed < high:
            proposed = (low + high) / 2
        moved, log_inverse = abs(proposed - log_inverse), proposed
        if moved < 1e-10:
            break
    temperature = math.exp(-log_inverse)
    half = 1.96 * math.sqrt(square / n) / curvature if curvature > 0 else math.inf
    if note or half > 10:  # of log T: a factor of 22,000
        return temperature, None, note or "The examples hardly tell which temperature is best."
    return temperature, [temperature * math.exp(-half), temperature * math.exp(half)], None


def _slope(
    logits: Logits, true: Float64[np.ndarray, " n"], inverse: float
) -> tuple[float, float, float]:
    """Of the mean negative log likelihood in log(1/T): its slope, the mean square of each
    example's slope, and its curvature but for a term that vanishes at the minimum.
    """
    slopes, variances = np.empty(len(true)), np.empty(len(true))
    for rows in blocks(*logits.shape):
        below = _below_largest(logits[rows])
        probabilities = np.exp(inverse * below)
        total = probabilities.sum(axis=1)
        probabilities *= below
        mean = probabilities.sum(axis=1) / total
        variances[rows] = np.einsum("nk,nk->n", probabilities, below) / total - mean**2
        slopes[rows] = mean - true[rows]
    slopes *= inverse
    return float(slopes.mean()), float((slopes**2).mean()), float(inverse**2 * variances.mean())


def _below_largest(logits: Logits) -> Float64[np.ndarray, "n classes"]:
    exact = logits.astype(np.float64)
    exact -= exact.max(axis=1, keepdims=True)
    return exact


def _scores(logits: Logits, labels: Labels, temperature: float, weights: Weights) -> dict[str, Any]:
    """All numbers at one temperature; see `calibration`."""
    n = len(labels)
    right = logits.argmax(axis=1) == labels
    nll, brier, confidence = _of_examples(logits, labels, temperature)
    gap = confidence - right
    means = {
        "mean_confidence": confidence,
        "overconfidence": gap,
        "nll": nll,
        "brier_sum_over_classes": brier,
    }
    width = np.linspace(0, 1, BINS + 1)
    mass = _equal_mass_edges(confidence)
    in_width, in_mass = (
        _bin(confidence, edges)[:, None] == np.arange(BINS) for edges in (width, mass)
    )
    # Sums over the examples, as they are and resampled: one matrix product for all.
    columns = [np.stack(list(means.values()), axis=1), in_width * gap[:, None], in_width]
    table = np.concatenate([*columns, in_mass * gap[:, None]], axis=1)
    parts = np.cumsum([len(means), BINS, BINS])
    mean, width_gap, width_count, mass_gap = np.split(table.sum(axis=0), parts)
    resampled = np.split(bootstrap.resampled_sums(table, weights), parts, axis=1)

    accurate = int(right.sum())
    scores: dict[str, Any] = {"n": n, "accuracy": accurate / n}
    intervals: dict[str, Any] = {"accuracy": bootstrap.wilson(accurate, n)}
    for i, name in enumerate(means):
        scores[name] = float(mean[i] / n)
        intervals[name] = bootstrap.interval(resampled[0][:, i] / n)
    largest = width_gap / np.maximum(width_count, 1)
    resampled_largest = resampled[1] / np.maximum(resampled[2], 1)
    gaps, resampled_gaps = _class_wise(logits, labels, temperature, weights)
    expected = scores["if_calibrated"] = {}
    for name, estimate in {
        f"ece_equal_width_{BINS}": binned_error(width_gap / n, resampled[1] / n, np.sum),
        f"ece_equal_mass_{BINS}": binned_error(mass_gap / n, resampled[3] / n, np.sum),
        f"ece_class_wise_equal_width_{BINS}": binned_error(gaps, resampled_gaps, np.sum),
        f"mce_equal_width_{BINS}": binned_error(largest, resampled_largest, np.max),
    }.items():
        scores[name], intervals[name], expected[name] = estimate
    return scores | {
        "intervals": intervals,
        f"reliability_equal_width_{BINS}": _reliability(confidence, right, width),
        f"reliability_equal_mass_{BINS}": _reliability(confidence, right, mass),
        "histogram": _histogram(confidence, right),
    }


def _of_examples(
    logits: Logits, labels: Labels, temperature: float
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """The negative log likelihood, the Brier score and the confidence of each example."""
    nll, brier, confidence = np.empty((3, len(labels)))
    for rows in blocks(*logits.shape):
        below = _below_largest(logits[rows]) / temperature
        true = np.arange(len(below)), labels[rows]
        probabilities = np.exp(below)
        total = probabilities.sum(axis=1)
        nll[rows] = np.log(total) - below[true]
        squares = np.einsum("nk,nk->n", probabilities, probabilities) / total**2
        brier[rows] = 1 - 2 * probabilities[true] / total + squares
        confidence[rows] = 1 / total
    return nll, brier, confidence


def _class_wise(
    logits: Logits, labels: Labels, temperature: float, weights: Weights
) -> tuple[Float64[np.ndarray, " cells"], Float32[np.ndarray, "count cells"]]:
    """Each class's gap in each bin of its own probability, over n and classes; and resampled.

    Of a thousand classes almost every probability lies in the lowest bin. So the other bins
    are summed as a sparse matrix, and the lowest is what the class's total leaves.
    """
    n, classes = logits.shape
    gaps, total = np.empty((n, classes), np.float32), np.zeros(classes)
    cells, examples, values = [], [], []
    edges = np.linspace(0, 1, BINS + 1)
    for rows in blocks(n, classes):
        gap = softmax(logits[rows], temperature)
        example, of_class = np.nonzero(gap > edges[1])
        cells.append(of_class * BINS + _bin(gap[example, of_class], edges))
        gap[np.arange(len(gap)), labels[rows]] -= 1
        values.append(gap[example, of_class])
        examples.append(example + rows.start)
        gaps[rows] = gap
        total += gap.sum(axis=0)
    cell, example, value = (np.concatenate(part) for part in (cells, examples, values))
    shape = (classes * BINS, n)
    upper = sparse.csr_array((value.astype(np.float32), (cell, example)), shape=shape)

    def with_lowest(sums: np.ndarray, total: np.ndarray) -> np.ndarray:
        by_class = sums.reshape(classes, BINS, -1)
        by_class[:, 0] = total - by_class.sum(axis=1)
        return sums / (n * classes)

    exact = np.bincount(cell, weights=value, minlength=classes * BINS)
    exact = with_lowest(exact[:, None], total[:, None])[:, 0]
    resampled = with_lowest(upper @ bootstrap.by_example(weights), (weights @ gaps).T)
    return exact, resampled.T


def binned_error(
    gaps: Float[np.ndarray, " cells"],
    resampled: Float[np.ndarray, "count cells"],
    total: Callable[..., Any],
) -> tuple[float, list[float] | None, float]:
    """A binned error, its 95 % interval, and its expected value were there no true gap.

    Args:
      gaps: what each bin adds to the error, with its sign.
      resampled: the same in every resample.
      total: over the last axis of absolute gaps, `np.sum` or `np.max`.

    Noise makes every gap larger than it is (`bootstrap.reflected_interval`). What noise alone
    makes is what the resamples differ from the sample by.
    """
    error = float(total(np.abs(gaps)))
    noise = total(np.abs(resampled - gaps), axis=1)
    interval = bootstrap.reflected_interval(error, total(np.abs(resampled), axis=1), noise)
    return error, interval, float(noise.mean())


def _equal_mass_edges(
    confidence: Float64[np.ndarray, " n"],
) -> Float64[np.ndarray, " edges"]:
    """Edges between which equally many confidences lie, up to ties: those are in one bin."""
    edges = np.quantile(confidence, np.linspace(0, 1, BINS + 1), method="inverted_cdf")
    edges[0], edges[-1] = 0, 1
    return edges


def _bin(
    confidence: Float64[np.ndarray, " n"], edges: Float64[np.ndarray, " edges"]
) -> Int[np.ndarray, " n"]:
    """Which of the bins, without their lower edges and with their upper, holds each value."""
    return np.searchsorted(edges[1:-1], confidence, side="left")


def _reliability(
    confidence: Float64[np.ndarray, " n"],
    right: Bool[np.ndarray, " n"],
    edges: Float64[np.ndarray, " edges"],
) -> list[dict[str, Any]]:
    which = _bin(confidence, edges)
    counts = np.bincount(which, minlength=BINS)
    confident = np.bincount(which, weights=confidence, minlength=BINS)
    correct = np.bincount(which, weights=right, minlength=BINS)
    return [
        {
            "lower": float(edges[i]),
            "upper": float(edges[i + 1]),
            "count": int(count),
            "mean_confidence": float(confident[i] / count) if count else None,
            "accuracy": float(correct[i] / count) if count else None,
            "interval": bootstrap.wilson(int(correct[i]), int(count)),
        }
        for i, count in enumerate(counts)
    ]


def _histogram(
    confidence: Float64[np.ndarray, " n"], right: Bool[np.ndarray, " n"]
) -> dict[str, list[Any]]:
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    return {
        "edges": edges.tolist(),
        "right": np.histogram(confidence[right], edges)[0].tolist(),
        "wrong": np.histogram(confidence[~right], edges)[0].tolist(),
    }
