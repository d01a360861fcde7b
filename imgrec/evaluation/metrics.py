"""Metrics of classification, computed in float64 by NumPy from logits and labels.

The numbers agree with scikit-learn's on the same predictions. Where a ratio has the
denominator 0 (the precision of a class that is never predicted, the recall of one that
never occurs) it is 0.0.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Integer

from imgrec.evaluation import bootstrap

MOST_CONFUSED = 20
# Logits are widened to float64 this many at a time.
CHUNK = 1_000_000
AVERAGES = ("macro", "weighted", "micro")
# Between which a number can lie; the others lie between 0 and 1.
BOUNDS = {"cohen_kappa": (-1.0, 1.0), "matthews": (-1.0, 1.0), "loss": (0.0, np.inf)}


def classification(
    logits: Float[np.ndarray, "n classes"],
    labels: Integer[np.ndarray, " n"],
    class_names: Sequence[str],
    *,
    resamples: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Every number that a report of a classifier needs, in plain Python values.

    The predicted class is the one with the largest logit, the first of them where several
    are equal; top-5 ranks in the same way. A logit that is not a number ranks last.

    Args:
      logits: of each example.
      labels: the true classes.
      class_names: one for each logit.
      resamples: how many to make for the intervals; with 0 there are none, and they cost
        nothing.
      seed: of the resamples.

    Returns:
      accuracy, top_5_accuracy (of min(5, classes)), loss (mean negative log likelihood in
      nats), n; balanced_accuracy, the mean recall of the classes that occur in the labels;
      cohen_kappa (Cohen 1960), None where labels and predictions are all of one class;
      matthews, the coefficient of Gorodkin 2004 for many classes, 0.0 where all labels or all
      predictions are of one class; confusion_matrix (rows true, columns predicted);
      most_confused, the largest counts off its diagonal as {true, predicted, count,
      share_of_true}; per_class, a list of {name, precision, recall, f1, support} in the order
      of the classes; macro, weighted and micro, the means of precision, recall and f1: macro
      over the classes that occur in the labels or the predictions, weighted by how often each
      occurs in the labels, micro over the examples, where all three equal the accuracy.
      notes, a list of sentences on what is not as it should be.

      With resamples also their number, and beside the numbers, also inside per_class, macro,
      weighted and micro, intervals: {name: [low, high]} of 95 %, None for a number that is
      not defined (the recall of a class that never occurs).

    Raises:
      ValueError: there are no examples, or a label or the names do not fit the logits.
    """
    check(logits, labels, class_names)
    n, classes = logits.shape
    predicted = predictions(logits)
    by_example = {
        "top_5_accuracy": _ranks(logits, labels) < 5,
        "loss": negative_log_likelihood(logits, labels),
    }
    matrix = confusion_matrix(labels, predicted, classes)
    scores = label_scores(
        Counts(
            correct=matrix.diagonal().astype(np.float64),
            support=matrix.sum(axis=1).astype(np.float64),
            predicted=matrix.sum(axis=0).astype(np.float64),
        )
    )
    kappa = float(scores["cohen_kappa"])
    report = {
        "accuracy": float(scores["accuracy"]),
        **{name: float(np.mean(values)) for name, values in by_example.items()},
        "n": n,
        "balanced_accuracy": float(scores["balanced_accuracy"]),
        "cohen_kappa": None if np.isnan(kappa) else kappa,
        "matthews": float(np.nan_to_num(scores["matthews"])),
        "confusion_matrix": matrix.tolist(),
        "most_confused": most_confused(matrix, class_names),
        "per_class": [
            {"name": name}
            | {score: float(np.nan_to_num(v[i])) for score, v in scores["per_class"].items()}
            | {"support": int(matrix[i].sum())}
            for i, name in enumerate(class_names)
        ],
        **{
            average: {score: float(value) for score, value in scores[average].items()}
            for average in AVERAGES
        },
        "notes": _notes(by_example["loss"], kappa),
    }
    if resamples:
        weights = bootstrap.resamples(n, seed=seed, count=resamples)
        resampled = label_scores(resampled_counts(labels, predicted, classes, weights))
        report["resamples"] = resamples
        for name, values in by_example.items():
            resampled[name] = bootstrap.resampled_sums(values, weights) / n
        _add_intervals(report, resampled)
    return report


def check(
    logits: Float[np.ndarray, "n classes"],
    labels: Integer[np.ndarray, " n"],
    class_names: Sequence[str],
) -> None:
    """Refuses what no metric can be computed from.

    Raises:
      ValueError: there are no examples, or a label or the names do not fit the logits.
    """
    n, classes = logits.shape
    if n == 0:
        raise ValueError("No metrics can be had from 0 predictions.")
    if len(class_names) != classes:
        raise ValueError(f"{len(class_names)} class names were given for {classes} logits.")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"Labels from {labels.min()} to {labels.max()} do not fit {classes} logits."
        )


def predictions(logits: Float[np.ndarray, "n classes"]) -> Int[np.ndarray, " n"]:
    """The class with the largest logit, the first of equal ones; nan is less than any number."""
    return np.where(np.isnan(logits), -np.inf, logits).argmax(axis=1)


class Counts(NamedTuple):
    """What all metrics of predicted labels are made of: counts by class, on the last axis."""

    correct: Float64[np.ndarray, "*resamples classes"]
    support: Float64[np.ndarray, "*resamples classes"]
    predicted: Float64[np.ndarray, "*resamples classes"]


def label_scores(counts: Counts) -> dict[str, Any]:
    """Metrics of predicted labels, for one set of counts or for those of many resamples.

    Returns:
      accuracy, balanced_accuracy, cohen_kappa and matthews; macro, weighted and micro, each
      {precision, recall, f1}; per_class {precision, recall, f1} with the classes on the last
      axis. What is not defined is nan.
    """
    correct, support, predicted = counts
    n, hits = support.sum(axis=-1), correct.sum(axis=-1)
    by_class = {
        "precision": ratio(correct, predicted),
        "recall": ratio(correct, support),
        "f1": ratio(2 * correct, support + predicted),
    }
    # In a mean over classes, a ratio that is not defined counts as 0.
    filled = {score: np.nan_to_num(values) for score, values in by_class.items()}
    occurs = (support + predicted > 0).sum(axis=-1)
    # n squared times the agreement that is to be had by chance, and that beyond it.
    by_chance = (support * predicted).sum(axis=-1)
    beyond = n * hits - by_chance
    spread = [np.sqrt(n * n - (each * each).sum(axis=-1)) for each in (support, predicted)]
    accuracy = hits / n
    return {
        "accuracy": accuracy,
        "balanced_accuracy": np.nanmean(by_class["recall"], axis=-1),
        "cohen_kappa": ratio(beyond, n * n - by_chance),
        "matthews": ratio(beyond, spread[0] * spread[1]),
        "macro": {score: values.sum(axis=-1) / occurs for score, values in filled.items()},
        "weighted": {
            score: (values * support).sum(axis=-1) / n for score, values in filled.items()
        },
        "micro": dict.fromkeys(by_class, accuracy),
        "per_class": by_class,
    }


def resampled_counts(
    labels: Integer[np.ndarray, " n"],
    predicted: Integer[np.ndarray, " n"],
    classes: int,
    weights: Float32[np.ndarray, "count n"],
) -> Counts:
    """The counts in each resample (`bootstrap.resamples`), each [count, classes]."""
    groups = Counts(
        correct=np.where(labels == predicted, labels, -1), support=labels, predicted=predicted
    )
    return Counts(*(bootstrap.resampled_counts(group, classes, weights) for group in groups))


def _add_intervals(report: dict[str, Any], resampled: Mapping[str, Any]) -> None:
    """Puts an interval beside each number that has resampled values."""
    of_all = {name: v for name, v in resampled.items() if isinstance(v, np.ndarray)}
    report["intervals"] = _intervals(report, of_all)
    for average in AVERAGES:
        report[average]["intervals"] = _intervals(report[average], resampled[average])
    for i, entry in enumerate(report["per_class"]):
        of_class = {score: v[:, i] for score, v in resampled["per_class"].items()}
        entry["intervals"] = _intervals(entry, of_class)


def _intervals(
    numbers: Mapping[str, Any], resampled: Mapping[str, Float64[np.ndarray, " count"]]
) -> dict[str, list[float] | None]:
    return {
        name: bootstrap.interval(
            values, estimate=numbers[name], bounds=BOUNDS.get(name, (0.0, 1.0))
        )
        for name, values in resampled.items()
    }


def _notes(losses: Float64[np.ndarray, " n"], kappa: float) -> list[str]:
    notes = []
    n = len(losses)
    if broken := int(np.isnan(losses).sum()):
        notes.append(
            f"The loss is not defined: {broken} of {n} examples have logits that are nan or "
            "infinite, which make no probabilities."
        )
    if excluded := int(np.isposinf(losses).sum()):
        notes.append(
            f"The loss is infinite: {excluded} of {n} examples have a true class of probability 0."
        )
    if np.isnan(kappa):
        notes.append(
            "Cohen's kappa is not defined: the labels and the predictions are all of one class."
        )
    return notes


def most_confused(
    matrix: Int[np.ndarray, "classes classes"], class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """The pairs most often taken for one another, the most frequent first, at most 20.

    Of equal counts, the pair that is the larger share of its true class comes first.

    Returns:
      a list of {true, predicted, count, share_of_true}, with the names of the classes.
    """
    true, predicted = np.nonzero(matrix * ~np.eye(len(matrix), dtype=bool))
    count = matrix[true, predicted]
    share = count / matrix.sum(axis=1)[true]
    first = np.lexsort((-share, -count))[:MOST_CONFUSED]
    return [
        {
            "true": class_names[true[i]],
            "predicted": class_names[predicted[i]],
            "count": int(count[i]),
            "share_of_true": float(share[i]),
        }
        for i in first
    ]


def confusion_matrix(
    labels: Integer[np.ndarray, " n"], predicted: Integer[np.ndarray, " n"], classes: int
) -> Int[np.ndarray, "classes classes"]:
    """How often each class (row) was taken for each class (column)."""
    pairs = labels.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def negative_log_likelihood(
    logits: Float[np.ndarray, "n classes"], labels: Integer[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """-log softmax(logits)[label] of each example, in nats and in float64."""
    losses = np.empty(len(labels))
    # Some rows at a time: the logits of ImageNet would take 1.2 GB in float64.
    rows = max(CHUNK // logits.shape[1], 1)
    for start in range(0, len(labels), rows):
        part = slice(start, start + rows)
        exact = logits[part].astype(np.float64)
        with np.errstate(invalid="ignore"):  # inf - inf of a model that diverged: its loss is nan
            shifted = exact - exact.max(axis=1, keepdims=True)
        true = shifted[np.arange(len(exact)), labels[part]]
        losses[part] = np.log(np.exp(shifted).sum(axis=1)) - true
    return losses


def _ranks(
    logits: Float[np.ndarray, "n classes"], labels: Integer[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """How many classes come before the true one; of equal logits the first class does."""
    logits = np.where(np.isnan(logits), -np.inf, logits)
    true = logits[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    return np.sum((logits > true) | ((logits == true) & earlier), axis=1)


def ratio(
    numerator: Float64[np.ndarray, "*shape"] | np.float64,
    denominator: Float64[np.ndarray, "*shape"] | np.float64,
) -> Float64[np.ndarray, "*shape"]:
    """The quotient, nan where the denominator is 0."""
    defined = denominator != 0
    return np.where(defined, numerator / np.where(defined, denominator, 1), np.nan)
