"""What an uneven number of training images did to a classifier, and what a correction gains.

A model trained on few images of a class predicts it seldom. Its accuracy is given by class and
for the head, the middle and the tail of the classes by training images; and once more after
the training prior is divided out of its probabilities (Menon et al. 2021, equation 9), which
needs no training.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Integer
from scipy import stats

from imgrec.evaluation import bootstrap, metrics

# Training sets are called imbalanced from this ratio of the largest class to the smallest.
IMBALANCED = 2.0
# Liu et al. 2019, section 4: many-shot above 100 training images, few-shot below 20.
MANY, FEW = 100, 20
GROUPS = ("head", "medium", "tail")
FIRST = "uncorrected"
# Strengths of the correction among which validation chooses. Menon et al. find 1 or a little
# more, the more so the less calibrated the model.
TAUS = np.round(np.arange(0, 3.01, 0.1), 1)


def imbalance(
    logits: Float[np.ndarray, "n classes"],
    labels: Integer[np.ndarray, " n"],
    class_names: Sequence[str],
    train_counts: Integer[np.ndarray, " classes"],
    validation_logits: Float[np.ndarray, "m classes"] | None = None,
    validation_labels: Integer[np.ndarray, " m"] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Accuracy by class and by groups of classes, before and after correction for the prior.

    Args:
      logits: of each example.
      labels: the true classes.
      class_names: one for each logit.
      train_counts: how many training images each class has.
      validation_logits: on which the strength of the correction is chosen.
      validation_labels: their true classes.
      resamples: how many to make for the intervals.
      seed: of the resamples.

    Returns:
      n, resamples; notes, a list of sentences on what could not be had; train: n, largest and
      smallest (number of images of a class), ratio (largest / smallest, None where that is 0)
      and imbalanced, whether the ratio is 2 or more.

      grouping: rule and a sentence, said. The rule "liu_2019" has the groups head (more than
      100 training images), medium (20 to 100) and tail (fewer than 20); where these would put
      all classes into one group, "terciles" has the third of the classes with the most images
      in the head and that with the fewest in the tail, equal counts together; where all counts
      are equal, "none" has one group, all. groups: a list of {name, classes, train_images
      (smallest and largest count), n}.

      corrections, a list of {name, tau, accuracy, balanced_accuracy, groups, intervals} for
      the names "uncorrected" (tau 0), "tau_1" and "tau_validation" (the tau with the best
      balanced accuracy on validation, of equal ones the smallest); its groups are a list of
      {name, n, accuracy (of the images), mean_recall (of the classes), intervals}. Those after
      the first also have accuracy_gain and balanced_accuracy_gain over it.

      per_class: a list of {name, group, train_images, support, recall_uncorrected,
      recall_tau_1, recall_tau_validation, intervals}, None where a class has no examples.

      validation: None without one, else n, tau (the chosen), taus (those tried) and
      balanced_accuracy (of each of them).

    Raises:
      ValueError: there are no examples or no training images, or labels or names do not fit
        the logits.
    """
    metrics.check(logits, labels, class_names)
    n, classes = logits.shape
    if train_counts.min() < 0 or not train_counts.any():
        raise ValueError(f"{train_counts.tolist()} cannot be the numbers of training images.")
    taus = {FIRST: 0.0, "tau_1": 1.0}
    validation = None
    if validation_logits is not None and validation_labels is not None and len(validation_labels):
        metrics.check(validation_logits, validation_labels, class_names)
        validation = _validated(validation_logits, validation_labels, train_counts)
        taus["tau_validation"] = validation["tau"]

    weights = bootstrap.resamples(n, seed=seed, count=resamples)
    support = _counts(labels, classes, weights)
    correct = {}
    for name, tau in taus.items():
        predicted = metrics.predictions(corrected(logits, train_counts, tau))
        correct[name] = _counts(np.where(predicted == labels, labels, -1), classes, weights)

    grouping = _grouping(train_counts)
    members = {name: grouping.group == i for i, name in enumerate(grouping.names)}
    return {
        "n": n,
        "resamples": resamples,
        "notes": _notes(train_counts, class_names, validation),
        "train": _train(train_counts),
        "grouping": {"rule": grouping.rule, "said": grouping.said},
        "groups": [
            {
                "name": group,
                "classes": [
                    name for name, inside in zip(class_names, member, strict=True) if inside
                ],
                "train_images": [int(train_counts[member].min()), int(train_counts[member].max())],
                "n": int(support[0, member].sum()),
            }
            for group, member in members.items()
        ],
        "corrections": [
            {"name": name, "tau": tau}
            | _scores(correct[name], support, members, None if name == FIRST else correct[FIRST])
            for name, tau in taus.items()
        ],
        "per_class": _per_class(correct, support, grouping, train_counts, class_names),
        "validation": validation,
    }


def corrected(
    logits: Float[np.ndarray, "n classes"],
    train_counts: Integer[np.ndarray, " classes"],
    tau: float = 1.0,
) -> Float[np.ndarray, "n classes"]:
    """The logits less tau * log(prior), the prior being the frequencies in the training set.

    With tau = 1 the largest of these is Bayes' choice for classes that are equally frequent, if
    the softmax of the logits is the posterior of the training set. A class without training
    images is corrected as if it had one.
    """
    prior = np.maximum(train_counts, 1) / np.maximum(train_counts, 1).sum()
    return logits - (tau * np.log(prior)).astype(logits.dtype)


def _validated(
    logits: Float[np.ndarray, "m classes"],
    labels: Integer[np.ndarray, " m"],
    train_counts: Integer[np.ndarray, " classes"],
) -> dict[str, Any]:
    """The strength of the correction with the best balanced accuracy, and how all did."""
    support = np.bincount(labels, minlength=logits.shape[1])
    tried = []
    for tau in TAUS:
        hits = metrics.predictions(corrected(logits, train_counts, float(tau))) == labels
        correct = np.bincount(labels[hits], minlength=logits.shape[1])
        tried.append(float(np.mean(correct[support > 0] / support[support > 0])))
    return {
        "n": len(labels),
        "tau": float(TAUS[np.argmax(tried)]),
        "taus": TAUS.tolist(),
        "balanced_accuracy": tried,
    }


def _counts(
    group: Integer[np.ndarray, " n"], classes: int, weights: Float32[np.ndarray, "count n"]
) -> Float64[np.ndarray, "rows classes"]:
    """Examples by class: in the first row of all examples, then of each resample."""
    whole = np.bincount(group[group >= 0], minlength=classes)
    return np.concatenate([whole[None], bootstrap.resampled_counts(group, classes, weights)])


class _Grouping(NamedTuple):
    """Which classes are in which group: `group` numbers the names for each class."""

    rule: str
    said: str
    names: tuple[str, ...]
    group: Int[np.ndarray, " classes"]


def _grouping(counts: Integer[np.ndarray, " classes"]) -> _Grouping:
    if counts.min() == counts.max():
        said = f"all classes have {counts[0]} training images"
        return _Grouping("none", said, ("all",), np.zeros(len(counts), int))
    rule = "liu_2019"
    said = f"head: more than {MANY} training images, tail: fewer than {FEW}, medium: between"
    group = np.where(counts > MANY, 0, np.where(counts < FEW, 2, 1))
    if group.min() == group.max():
        rule = "terciles"
        said = "thirds of the classes by their number of training images, the largest in the head"
        # Classes with equal counts share the middle of their ranks, so they stay together.
        ranks = stats.rankdata(-counts) - 0.5
        group = (3 * ranks / len(counts)).astype(int)
    present = np.unique(group)
    return _Grouping(rule, said, tuple(GROUPS[i] for i in present), np.searchsorted(present, group))


def _train(counts: Integer[np.ndarray, " classes"]) -> dict[str, Any]:
    largest, smallest = int(counts.max()), int(counts.min())
    return {
        "n": int(counts.sum()),
        "largest": largest,
        "smallest": smallest,
        "ratio": largest / smallest if smallest else None,
        "imbalanced": largest >= IMBALANCED * smallest,
    }


def _scores(
    correct: Float64[np.ndarray, "rows classes"],
    support: Float64[np.ndarray, "rows classes"],
    members: dict[str, np.ndarray],
    first: Float64[np.ndarray, "rows classes"] | None,
) -> dict[str, Any]:
    """The numbers of one correction, with what it gains over the first where there is one."""
    everyone = np.ones(support.shape[1], bool)
    of_all = _means(correct, support, everyone)
    values = {"accuracy": of_all["accuracy"], "balanced_accuracy": of_all["mean_recall"]}
    if first is not None:
        before = _means(first, support, everyone)
        values["accuracy_gain"] = of_all["accuracy"] - before["accuracy"]
        values["balanced_accuracy_gain"] = of_all["mean_recall"] - before["mean_recall"]
    groups = [
        {"name": name, "n": int(support[0, member].sum())}
        | _numbers(_means(correct, support, member))
        for name, member in members.items()
    ]
    return _numbers(values) | {"groups": groups}


def _means(
    correct: Float64[np.ndarray, "rows classes"],
    support: Float64[np.ndarray, "rows classes"],
    member: np.ndarray,
) -> dict[str, Float64[np.ndarray, " rows"]]:
    """Over the images and over the classes that have any; nan where none has."""
    correct, support = correct[:, member], support[:, member]
    recalls = metrics.ratio(correct, support)
    occurs = np.isfinite(recalls)
    return {
        "accuracy": metrics.ratio(correct.sum(axis=1), support.sum(axis=1)),
        "mean_recall": metrics.ratio(
            np.where(occurs, recalls, 0).sum(axis=1), occurs.sum(axis=1).astype(np.float64)
        ),
    }


def _numbers(values: dict[str, Float64[np.ndarray, " rows"]]) -> dict[str, Any]:
    """The first of the values of each name as its number, and of the others the interval."""
    numbers = {name: None if np.isnan(v[0]) else float(v[0]) for name, v in values.items()}
    intervals = {
        name: None if np.isnan(v[0]) else bootstrap.interval(v[1:]) for name, v in values.items()
    }
    return numbers | {"intervals": intervals}


def _per_class(
    correct: dict[str, Float64[np.ndarray, "rows classes"]],
    support: Float64[np.ndarray, "rows classes"],
    grouping: _Grouping,
    train_counts: Integer[np.ndarray, " classes"],
    class_names: Sequence[str],
) -> list[dict[str, Any]]:
    recalls = {f"recall_{name}": metrics.ratio(c, support) for name, c in correct.items()}
    return [
        {
            "name": name,
            "group": grouping.names[grouping.group[c]],
            "train_images": int(train_counts[c]),
            "support": int(support[0, c]),
        }
        | _numbers({name: values[:, c] for name, values in recalls.items()})
        for c, name in enumerate(class_names)
    ]


def _notes(
    train_counts: Integer[np.ndarray, " classes"],
    class_names: Sequence[str],
    validation: dict[str, Any] | None,
) -> list[str]:
    notes = []
    if validation is None:
        notes.append("Without validation images, the strength of the correction is not chosen.")
    counted = zip(class_names, train_counts, strict=True)
    if without := [name for name, count in counted if count == 0]:
        more = f" and {len(without) - 5} more" if len(without) > 5 else ""
        notes.append(
            f"There are no training images of {', '.join(without[:5])}{more}; the correction "
            "counts one for each."
        )
    return notes
