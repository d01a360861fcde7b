"""Which examples a person should look at: the surest mistakes, the doubtful, the typical, the hard.

Chosen from logits and labels alone, and from features where there are some. What is chosen is
plain numbers; `pictures` fetches the images.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Integer, UInt8
from scipy.special import logsumexp

from imgrec.data import Split

Example = dict[str, Any]
"""One chosen example: "index", its position in the split; "true" and "predicted", classes by
number; "confidence", the softmax probability of the predicted class; "confidence_in_true"."""

MOST_CLASSES = 100
"""For whose classes examples are chosen one by one: of more those that are found least often."""


def galleries(
    logits: Float[np.ndarray, "n classes"],
    labels: Integer[np.ndarray, "n"],
    *,
    features: Float[np.ndarray, "n features"] | None = None,
    count: int = 16,
    per_class: int = 4,
) -> dict[str, Any]:
    """Examples worth a look, as plain numbers.

    Equals come in the order of the split. Examples with a logit that is not a finite number
    have no confidence and are not chosen.

    Args:
      logits: of the split's examples, in its order.
      labels: likewise. One that is no class (a class the model does not have) is never right.
      features: likewise, what the head reads; for prototypes.
      count: examples in each of the first three lists, at most.
      per_class: examples of each class in the last two, at most.

    Returns:
      "n"; "n_not_finite", how many were left out;
      "confidently_wrong": mistakes, the surest first;
      "confidently_right": right answers, the surest first;
      "least_certain": right or wrong, the least sure first;
      "prototypes": for each class {"class", "examples"}, those nearest to the mean of the
      class's features, or without features those right with most confidence;
      "hardest": for each class {"class", "examples"}, those whose true class has the least
      probability;
      "prototypes_by": "features" or "confidence"; "n_classes" and "n_classes_shown".
      Every example is an `Example`.
    """
    n, classes = logits.shape
    if len(labels) != n or (features is not None and len(features) != n) or classes == 0:
        raise ValueError(
            f"{n} rows of {classes} logits do not fit {len(labels)} labels"
            + ("." if features is None else f" and {len(features)} rows of features.")
        )
    finite = np.isfinite(logits).all(axis=1)
    known = (labels >= 0) & (labels < classes)
    log_probabilities = _log_probabilities(logits, finite)
    predicted = log_probabilities.argmax(axis=1)
    rows = np.arange(n)
    doubt = _doubt(log_probabilities, predicted)
    of_true = np.where(known, log_probabilities[rows, np.where(known, labels, 0)], -np.inf)
    right = (predicted == labels) & finite

    def listed(positions: Int64[np.ndarray, "chosen"]) -> list[Example]:
        return [
            {
                "index": int(i),
                "true": int(labels[i]),
                "predicted": int(predicted[i]),
                "confidence": float(np.exp(log_probabilities[i, predicted[i]])),
                "confidence_in_true": float(np.exp(of_true[i])) if known[i] else None,
            }
            for i in positions
        ]

    def first(
        among: Bool[np.ndarray, "n"], order: Float[np.ndarray, "n"], most: int
    ) -> list[Example]:
        """Of some examples those with the smallest values."""
        positions = np.flatnonzero(among)
        return listed(positions[np.argsort(order[among], kind="stable")[:most]])

    shown = _classes_shown(labels, right, classes)
    far = doubt if features is None else _distance_to_mean(features, labels, finite)
    typical = right if features is None else finite & np.isfinite(far)
    return {
        "n": n,
        "n_not_finite": int(n - finite.sum()),
        "confidently_wrong": first(finite & ~right, doubt, count),
        "confidently_right": first(right, doubt, count),
        "least_certain": first(finite, -doubt, count),
        "prototypes": [
            {"class": c, "examples": first(typical & (labels == c), far, per_class)} for c in shown
        ],
        "hardest": [
            {"class": c, "examples": first(finite & (labels == c), of_true, per_class)}
            for c in shown
        ],
        "prototypes_by": "confidence" if features is None else "features",
        "n_classes": classes,
        "n_classes_shown": len(shown),
    }


def pictures(
    split: Split, chosen: Sequence[Mapping[str, Any]]
) -> UInt8[np.ndarray, "chosen height width channels"]:
    """The images of chosen examples, in their order."""
    positions = np.array([example["index"] for example in chosen], np.int64)
    images: np.ndarray = split.gather(positions)["image"]
    return images


def _log_probabilities(
    logits: Float[np.ndarray, "n classes"], finite: Bool[np.ndarray, "n"]
) -> Float64[np.ndarray, "n classes"]:
    """Log softmax; rows that are not finite become even."""
    values = np.where(finite[:, None], logits, 0).astype(np.float64)
    return values - logsumexp(values, axis=1, keepdims=True)


def _doubt(
    log_probabilities: Float64[np.ndarray, "n classes"], predicted: Int64[np.ndarray, "n"]
) -> Float64[np.ndarray, "n"]:
    """The log of the probability that the prediction leaves to all other classes.

    It orders examples like 1 - confidence, also where that rounds to 0.
    """
    others = log_probabilities.copy()
    others[np.arange(len(others)), predicted] = -np.inf
    if others.shape[1] == 1:
        return np.full(len(others), -np.inf)
    return logsumexp(others, axis=1)


def _distance_to_mean(
    features: Float[np.ndarray, "n features"],
    labels: Integer[np.ndarray, "n"],
    usable: Bool[np.ndarray, "n"],
) -> Float64[np.ndarray, "n"]:
    """How far each example's features are from the mean of its class; infinite where unknown."""
    usable = usable & np.isfinite(features).all(axis=1)
    far = np.full(len(features), np.inf)
    for label in np.unique(labels[usable]):
        rows = np.flatnonzero(usable & (labels == label))
        own = features[rows].astype(np.float64)
        far[rows] = np.linalg.norm(own - own.mean(axis=0), axis=1)
    return far


def _classes_shown(
    labels: Integer[np.ndarray, "n"], right: Bool[np.ndarray, "n"], classes: int
) -> list[int]:
    """The classes that have examples, of too many those of the least recall, by number."""
    present = [c for c in range(classes) if (labels == c).any()]
    recall = [right[labels == c].mean() for c in present]
    hardest = np.argsort(recall, kind="stable")[:MOST_CLASSES]
    return sorted(present[i] for i in hardest)
