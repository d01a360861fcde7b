"""What a model said of each example, and how to count it by group in a thousand resamples at once.

A sum by key over all resamples is a product with a sparse matrix of one entry an example, so that
groups, classes and bins of confidence all cost the same few milliseconds for 10,000 examples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Integer, Shaped
from scipy import sparse

from imgrec.evaluation import bootstrap
from imgrec.evaluation.confidence import calibration
from imgrec.evaluation.groups.gaps import Counts


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model said of each example; the confidence is nan where a logit is not finite."""

    class_names: Sequence[str]
    label: Int[np.ndarray, " n"]
    predicted: Int[np.ndarray, " n"]
    right: Bool[np.ndarray, " n"]
    confidence: Float64[np.ndarray, " n"]
    notes: list[str]


def answers(
    logits: Float[np.ndarray, "n classes"],
    labels: Integer[np.ndarray, " n"],
    class_names: Sequence[str],
    columns: Mapping[str, Shaped[np.ndarray, " n"]],
) -> Answers:
    """Predictions as `metrics.classification` makes them, and their softmax probability.

    Raises:
      ValueError: there are no examples, or labels, names or columns do not fit the logits.
    """
    n, classes = logits.shape
    if n == 0:
        raise ValueError("Nothing can be said of groups from 0 predictions.")
    if len(class_names) != classes or len(labels) != n:
        raise ValueError(
            f"{len(class_names)} class names and {len(labels)} labels do not fit {n} rows of "
            f"{classes} logits."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"Labels from {labels.min()} to {labels.max()} do not fit {classes} logits."
        )
    if unfit := [name for name, values in columns.items() if values.shape != (n,)]:
        raise ValueError(f"The columns {', '.join(unfit)} have not one value for each of {n}.")
    confidence = np.empty(n)
    for rows in calibration.blocks(n, classes):
        exact = logits[rows].astype(np.float64)
        with np.errstate(invalid="ignore"):
            confidence[rows] = 1 / np.exp(exact - exact.max(axis=1, keepdims=True)).sum(axis=1)
    broken = ~np.isfinite(logits).all(axis=1)
    confidence[broken] = np.nan
    predicted = np.where(np.isnan(logits), -np.inf, logits).argmax(axis=1)
    notes = []
    if broken.any():
        notes.append(
            f"{broken.sum():,} of {n:,} examples have logits that are not finite numbers; they "
            "have no confidence, and no part in what is said of it."
        )
    label = labels.astype(np.int64)
    return Answers(class_names, label, predicted, predicted == label, confidence, notes)


class Resampled:
    """Sums by key over each of many resamples of the examples."""

    def __init__(self, weights: Float32[np.ndarray, "count n"]):
        """Takes what `bootstrap.resamples` makes."""
        self._by_example = bootstrap.by_example(weights)
        self.count = len(weights)

    def sums(
        self,
        key: Int[np.ndarray, " n"],
        size: int,
        values: Float64[np.ndarray, " n"] | None = None,
        part: slice = slice(None),
    ) -> Float[np.ndarray, "size count"]:
        """The sum of the values (1 by default) of the examples of each key below `size`.

        Examples with the key -1 count nowhere; `part` is of the resamples.
        """
        counted = np.flatnonzero(key >= 0)
        ones = np.ones(len(counted), np.float32)
        entries = ones if values is None else values[counted].astype(np.float32)
        shape = (size, len(key))
        membership = sparse.csr_array((entries, (key[counted], counted)), shape=shape)
        return membership @ self._by_example[:, part]


def counts(
    answers: Answers,
    member: Int[np.ndarray, " n"],
    size: int,
    sums: Callable[[Int[np.ndarray, " n"], int], np.ndarray],
) -> Counts:
    """Counts by group and class.

    Args:
      answers: of the model.
      member: the group of each example, -1 for none.
      size: how many groups there are.
      sums: `count`, or `Resampled.sums` to have them of every resample.
    """
    classes = len(answers.class_names)

    def by_class(of: Int[np.ndarray, " n"], where: Bool[np.ndarray, " n"]) -> np.ndarray:
        counted = sums(np.where(where, member * classes + of, -1), size * classes)
        return counted.reshape(size, classes, *counted.shape[1:])

    inside = member >= 0
    support = by_class(answers.label, inside)
    return Counts(
        n=support.sum(axis=1),
        support=support,
        predicted=by_class(answers.predicted, inside),
        correct=by_class(answers.label, inside & answers.right),
    )


def count(key: Int[np.ndarray, " n"], size: int) -> Float64[np.ndarray, " size"]:
    """How many examples have each key below `size`; the key -1 counts nowhere."""
    return np.bincount(key[key >= 0], minlength=size).astype(np.float64)


def total(
    key: Int[np.ndarray, " n"], size: int, values: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " size"]:
    """The sum of their values."""
    sums = np.bincount(key[key >= 0], weights=values[key >= 0], minlength=size)
    return sums.astype(np.float64)  # without examples bincount forgets that there were weights
