"""Metrics of classification, computed in float64 by NumPy from logits and labels.

The numbers agree with scikit-learn's on the same predictions. Where a ratio has the
denominator 0 (the precision of a class that is never predicted, the recall of one that
never occurs) it is 0.0.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Integer


def classification(
    logits: Float[np.ndarray, "n classes"],
    labels: Integer[np.ndarray, " n"],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Every number that a report of a classifier needs, in plain Python values.

    The predicted class is the one with the largest logit, the first of them where several
    are equal; top-5 ranks in the same way. A logit that is not a number ranks last.

    Returns:
      accuracy, top_5_accuracy (of min(5, classes)), loss (mean negative log likelihood in
      nats), n; confusion_matrix (rows true, columns predicted); per_class, a list of {name,
      precision, recall, f1, support} in the order of the classes; macro and weighted, the
      means of precision, recall and f1: macro over the classes that occur in the labels or
      the predictions, weighted by how often each occurs in the labels.

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
    ranked = np.where(np.isnan(logits), -np.inf, logits)
    matrix = confusion_matrix(labels, ranked.argmax(axis=1), classes)
    correct, support, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    scores = {
        "precision": _ratio(correct, predicted),
        "recall": _ratio(correct, support),
        "f1": _ratio(2 * correct, support + predicted),
    }
    occurs = support + predicted > 0
    return {
        "accuracy": float(correct.sum() / n),
        "top_5_accuracy": float(np.mean(_ranks(ranked, labels) < 5)),
        "loss": float(np.mean(negative_log_likelihood(logits, labels))),
        "n": n,
        "confusion_matrix": matrix.tolist(),
        "per_class": [
            {"name": name}
            | {score: float(values[i]) for score, values in scores.items()}
            | {"support": int(support[i])}
            for i, name in enumerate(class_names)
        ],
        "macro": {score: float(values[occurs].mean()) for score, values in scores.items()},
        "weighted": {score: float(values @ support / n) for score, values in scores.items()},
    }


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
    exact = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf of a model that diverged: its loss is nan
        shifted = exact - exact.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]


def _ranks(
    logits: Float[np.ndarray, "n classes"], labels: Integer[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """How many classes come before the true one; of equal logits the first class does."""
    true = logits[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    return np.sum((logits > true) | ((logits == true) & earlier), axis=1)


def _ratio(
    numerator: Int[np.ndarray, " classes"], denominator: Int[np.ndarray, " classes"]
) -> Float[np.ndarray, " classes"]:
    """The quotient, 0.0 where the denominator is 0."""
    return numerator / np.maximum(denominator, 1)
