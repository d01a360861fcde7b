"""Which labels are likely wrong: confident learning.

Northcutt, Jiang & Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels". An
example counts for a class when its probability is at least what is usual for examples labelled
so. Thresholds of each class's own make up for a model that is surer of some classes than of
others. From how often the class that an example counts for is not its label follows how many
labels are wrong, and so many are suspected: those that the model contradicts most.

The probabilities must come from a model that was not trained on these labels: of a test or a
validation split. Mistakes of the model are among what it contradicts, so a person should look at
each before it is changed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Integer

from imgrec.evaluation import bootstrap
from imgrec.evaluation.confidence import calibration
from imgrec.evaluation.groups import tallies

MOST_SUSPECTS = 100
MOST_CLASSES = 100  # whose matrices are written out
MOST_PAIRS = 20
# A probability this far below a threshold still reaches it, so that rounding decides nothing.
_TOLERANCE = 1e-6


def label_errors(
    logits: Float[np.ndarray, "n classes"],
    labels: Integer[np.ndarray, " n"],
    class_names: Sequence[str],
    clean_labels: Integer[np.ndarray, " n"] | None = None,
    *,
    seed: int = 0,
    count: int = 1000,
) -> dict[str, Any]:
    """Likely label errors, the likeliest first, and how many there may be.

    Args:
      logits: of each example, by a model that was not trained on these labels.
      labels: as given.
      class_names: one for each logit.
      clean_labels: the right ones, where it is known which were made wrong.
      seed: of the bootstrap.
      count: of resamples.

    Returns:
      n; estimated_errors and estimated_share of labels that are wrong, by the joint of given
      and true labels (the paper's section 3.1), and intervals of the share by the bootstrap,
      with the thresholds as they are; n_suspects, the estimate in whole examples, or as many as
      the model contradicts;
      suspects, the first 100: {index (in the order given), given, suggested (names), score
      (probability of the label less that of the likeliest other class, the suggested one; the
      lowest come first), probability (of the suggested class), given_probability};
      confident_joint, counts [given][counted for]; noise_matrix, the estimated probability of a
      label given the truth [given][true], None in the column of a class without evidence; both
      None of more than 100 classes;
      pairs: the 20 commonest {given, suggested, suspects, estimated (errors of this kind)};
      per_class: {name, support, threshold (None of a class without a label),
      estimated_errors};
      truth: None, or what is so of the suspects: {wrong (labels that differ from the clean
      ones), precision, recall (None with a denominator of 0), intervals (Wilson)};
      notes, a list of sentences.

    Raises:
      ValueError: there are no examples, or labels or names do not fit the logits.
    """
    n, classes = logits.shape
    if len(class_names) != classes:
        raise ValueError(f"{len(class_names)} class names were given for {classes} logits.")
    _, notes = calibration.finite_examples(logits, labels, "examples")
    at = np.flatnonzero(np.isfinite(logits).all(axis=1))
    labels = labels[at].astype(np.int64)
    thresholds, counts_for = _confident(logits, labels, at)
    if unseen := [
        name for name, t in zip(class_names, thresholds, strict=True) if not np.isfinite(t)
    ]:
        notes.append(f"No example is labelled {', '.join(unseen[:10])}, so nothing counts for it.")

    counted = counts_for >= 0
    joint = np.bincount(
        labels[counted] * classes + counts_for[counted], minlength=classes**2
    ).reshape(classes, classes)
    estimated = _calibrated(joint, labels, classes)
    errors = float(estimated.sum() - estimated.trace())
    margin, suggested = _contradiction(logits, labels, at)
    suspects = np.argsort(margin, kind="stable")[: round(errors)]
    suspects = suspects[margin[suspects] < 0]
    few = classes <= MOST_CLASSES
    return {
        "n": n,
        "estimated_errors": errors,
        "estimated_share": errors / len(at) if len(at) else None,
        "intervals": {"estimated_share": _interval(labels, counts_for, classes, seed, count)},
        "n_suspects": len(suspects),
        "suspects": [
            {
                "index": int(at[i]),
                "given": class_names[labels[i]],
                "suggested": class_names[suggested[i]],
                "score": float(margin[i]),
                **_probabilities(logits[at[i]], int(labels[i]), int(suggested[i])),
            }
            for i in suspects[:MOST_SUSPECTS]
        ],
        "confident_joint": joint.tolist() if few else None,
        "noise_matrix": _noise(estimated) if few else None,
        "pairs": _pairs(labels[suspects], suggested[suspects], estimated, class_names),
        "per_class": [
            {
                "name": name,
                "support": int((labels == c).sum()),
                "threshold": float(thresholds[c]) if np.isfinite(thresholds[c]) else None,
                "estimated_errors": float(estimated[c].sum() - estimated[c, c]),
            }
            for c, name in enumerate(class_names)
        ],
        "truth": None if clean_labels is None else _truth(labels != clean_labels[at], suspects),
        "notes": notes,
    }


def _confident(
    logits: Float[np.ndarray, "all classes"],
    labels: Int[np.ndarray, " n"],
    at: Int[np.ndarray, " n"],
) -> tuple[Float64[np.ndarray, " classes"], Int[np.ndarray, " n"]]:
    """Each class's threshold, and the class that each example counts for, -1 for none.

    The threshold is the mean probability of a class over the examples labelled so (equation 2).
    Of several classes that reach theirs the likeliest counts; of equal ones, the label.
    """
    classes = logits.shape[1]
    own = np.empty(len(at))
    for rows in calibration.blocks(len(at), classes):
        probabilities = calibration.softmax(logits[at[rows]])
        own[rows] = probabilities[np.arange(len(probabilities)), labels[rows]]
    support = np.bincount(labels, minlength=classes)
    total = np.bincount(labels, weights=own, minlength=classes)
    thresholds = np.where(support > 0, total / np.maximum(support, 1), np.inf)

    counts_for = np.empty(len(at), np.int64)
    for rows in calibration.blocks(len(at), classes):
        probabilities = calibration.softmax(logits[at[rows]])
        reached = np.where(probabilities >= thresholds - _TOLERANCE, probabilities, -1)
        each, label = np.arange(len(reached)), labels[rows]
        best = reached.argmax(axis=1)
        best = np.where(reached[each, label] >= reached[each, best], label, best)
        counts_for[rows] = np.where(reached[each, best] >= 0, best, -1)
    return thresholds, counts_for


def _contradiction(
    logits: Float[np.ndarray, "all classes"],
    labels: Int[np.ndarray, " n"],
    at: Int[np.ndarray, " n"],
) -> tuple[Float64[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """By how much the label is likelier than any other class, and which other is likeliest."""
    margin, other = np.ones(len(at)), labels.copy()
    if logits.shape[1] == 1:
        return margin, other
    for rows in calibration.blocks(len(at), logits.shape[1]):
        probabilities = calibration.softmax(logits[at[rows]])
        each = np.arange(len(probabilities))
        own = probabilities[each, labels[rows]]
        probabilities[each, labels[rows]] = -1
        other[rows] = probabilities.argmax(axis=1)
        margin[rows] = own - probabilities[each, other[rows]]
    return margin, other


def _probabilities(
    logits: Float[np.ndarray, " classes"], label: int, suggested: int
) -> dict[str, float]:
    of = calibration.softmax(logits[None])[0]
    return {"probability": float(of[suggested]), "given_probability": float(of[label])}


def _calibrated(
    joint: Int[np.ndarray, "classes classes"], labels: Int[np.ndarray, " n"], classes: int
) -> Float64[np.ndarray, "classes classes"]:
    """The confident joint scaled so that each given label occurs as often as it does (eq. 3).

    A class none of whose examples counts for anything has its labels taken as they are.
    """
    rows = joint.astype(np.float64)
    empty = rows.sum(axis=1) == 0
    rows[empty, empty] = 1
    support = np.bincount(labels, minlength=classes)
    return rows / rows.sum(axis=1, keepdims=True) * support[:, None]


def _noise(estimated: Float64[np.ndarray, "classes classes"]) -> list[list[float | None]]:
    """P(given | true): columns that sum to 1."""
    true = estimated.sum(axis=0)
    return [
        [float(value / total) if total else None for value, total in zip(row, true, strict=True)]
        for row in estimated
    ]


def _interval(
    labels: Int[np.ndarray, " n"],
    counts_for: Int[np.ndarray, " n"],
    classes: int,
    seed: int,
    count: int,
) -> list[float] | None:
    """Of the estimated share: each class's share that counts for another, weighted by class."""
    if not len(labels):
        return None
    resampled = tallies.Resampled(bootstrap.resamples(len(labels), seed=seed, count=count))
    counted = counts_for >= 0
    support, evidence, off = (
        resampled.sums(np.where(which, labels, -1), classes).astype(np.float64)
        for which in (np.ones(len(labels), bool), counted, counted & (counts_for != labels))
    )
    share = (support * off / np.maximum(evidence, 1)).sum(axis=0) / len(labels)
    return bootstrap.interval(share)


def _pairs(
    given: Int[np.ndarray, " suspects"],
    suggested: Int[np.ndarray, " suspects"],
    estimated: Float64[np.ndarray, "classes classes"],
    class_names: Sequence[str],
) -> list[dict[str, Any]]:
    kinds, counts = np.unique(np.stack([given, suggested], axis=1), axis=0, return_counts=True)
    return [
        {
            "given": class_names[kinds[i, 0]],
            "suggested": class_names[kinds[i, 1]],
            "suspects": int(counts[i]),
            "estimated": float(estimated[kinds[i, 0], kinds[i, 1]]),
        }
        for i in np.argsort(-counts, kind="stable")[:MOST_PAIRS]
    ]


def _truth(wrong: Bool[np.ndarray, " n"], suspects: Int[np.ndarray, " suspects"]) -> dict[str, Any]:
    found, all_wrong = int(wrong[suspects].sum()), int(wrong.sum())
    return {
        "wrong": all_wrong,
        "precision": found / len(suspects) if len(suspects) else None,
        "recall": found / all_wrong if all_wrong else None,
        "intervals": {
            "precision": bootstrap.wilson(found, len(suspects)),
            "recall": bootstrap.wilson(found, all_wrong),
        },
    }
