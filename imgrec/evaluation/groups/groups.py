"""Whether a model serves all groups of examples alike, and how sure that is.

Groups come from any column of what is known of the examples (`Split.columns`), or measured of
their images (`imgrec.evaluation.groups.image_columns`). Rates follow fairlearn's definitions: a
class against the rest, the largest difference between any two groups. A group of fewer than 20
examples is counted and otherwise left alone, and so is a rate of fewer than 20 in a comparison:
the extreme of many noisy numbers would always look like unfairness.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Integer, Shaped

from imgrec.errors import UserError
from imgrec.evaluation import bootstrap, comparison
from imgrec.evaluation.confidence.calibration import BINS
from imgrec.evaluation.groups import gaps, image_columns, partitions, tallies
from imgrec.evaluation.groups.gaps import Counts
from imgrec.evaluation.groups.partitions import Partition

SMALLEST = 20
MOST_CLASSES = 100  # of which rates are listed class by class
MOST_PAIRS = 10  # of columns that are crossed unasked
PERMUTATIONS = 9_999
_GAP = ("worst", "best", "accuracy_gap", "accuracy_gap_if_alike", "p_permutation")
_STREAM = 0x960F  # of the permutations' seed
_BLOCK = 4_000_000  # numbers of resampled counts that are held at once


def groups(
    logits: Float[np.ndarray, "n classes"],
    labels: Integer[np.ndarray, " n"],
    class_names: Sequence[str],
    columns: Mapping[str, Shaped[np.ndarray, " n"]],
    *,
    intersections: Sequence[tuple[str, str]] | None = None,
    seed: int = 0,
    count: int = 1000,
) -> dict[str, Any]:
    """What a model gets right in each group of each column.

    Args:
      logits: of each example.
      labels: the true classes.
      class_names: one for each logit; of two classes the second is the positive one.
      columns: what is known of each example; `partitions.cut` makes groups of it.
      intersections: pairs of columns whose groups are crossed. None for the first 10 pairs of
        columns that make at most 50 groups, leaving out measurements.
      seed: of resamples and permutations.
      count: of resamples.

    Returns:
      n; smallest (20); class_names; columns and intersections: a section by name ("a x b");
      refused: {column: why there is nothing of it}; by_gap: {column, worst, n, accuracy,
      accuracy_gap, p_permutation, p_permutation_holm} of the columns and intersections with a
      gap, the widest first, corrected for how many there are; notes, a list of sentences.

      A section has
        n; edges of a measurement's groups, or None;
        too_small: {value, n} of the groups with fewer than 20 examples;
        groups: the others, each {value, n, share, accuracy; accuracy_of_class_mix, what it
          would be if each class were as often right here as everywhere, which tells hard
          groups from groups with more of the hard classes; mean_confidence; overconfidence,
          the confidence above the accuracy; ece_equal_width_15, and what noise alone would make
          of it, ece_equal_width_15_if_calibrated; macro: {precision and recall (by
          scikit-learn's convention, as `metrics.classification`), true_positive_rate,
          false_positive_rate and false_negative_rate (means of the classes for which they are
          defined), intervals}; per_class: a list of {name, support, share_of_labels,
          selection_rate, precision, true_positive_rate, false_positive_rate,
          false_negative_rate, intervals}, or None of more than 100 classes; intervals};
        worst and best: {value, n, accuracy, interval}, None without two groups;
        accuracy_gap between these, accuracy_gap_if_alike, the gap to be expected of groups of
          these sizes drawn at random, and p_permutation, how often such groups differ as much
          (by Pearson's chi-squared);
        fairness: `gaps.fairness` by the conventions positive_label_1 (of two classes),
          largest_over_classes, macro_over_classes, and per_class;
        intervals, of the gap; notes.
      A rate whose denominator is 0 is None. Intervals are Wilson's for rates, the percentile
      bootstrap for means, and reflected (`gaps.gap_interval`) for binned errors and gaps.

    Raises:
      ValueError: there are no examples, or labels, names or columns do not fit the logits.
    """
    answers = tallies.answers(logits, labels, class_names, columns)
    resampled = tallies.Resampled(bootstrap.resamples(len(labels), seed=seed, count=count))
    found, refused = _cut(columns)
    crossed, uncrossed = _cross(found, _pairs(found) if intersections is None else intersections)
    sections = {
        kind: {name: _section(answers, part, resampled, seed) for name, part in parts.items()}
        for kind, parts in (("columns", found), ("intersections", crossed))
    }
    return {
        "n": len(labels),
        "smallest": SMALLEST,
        "class_names": list(class_names),
        **sections,
        "refused": refused | uncrossed,
        "by_gap": _by_gap(sections["columns"] | sections["intersections"]),
        "notes": answers.notes,
    }


def _cut(
    columns: Mapping[str, Shaped[np.ndarray, " n"]],
) -> tuple[dict[str, Partition], dict[str, str]]:
    found, refused = {}, {}
    for name, values in columns.items():
        try:
            found[name] = partitions.cut(name, values)
        except UserError as error:
            refused[name] = str(error)
    return found, refused


def _pairs(found: Mapping[str, Partition]) -> list[tuple[str, str]]:
    """What is crossed unasked: few groups that somebody told, not what was measured."""
    sizes = {
        name: len(partition.values)
        for name, partition in found.items()
        if partition.edges is None and name not in image_columns.NAMES
    }
    pairs = itertools.combinations((name for name, size in sizes.items() if size > 1), 2)
    fit = (pair for pair in pairs if sizes[pair[0]] * sizes[pair[1]] <= partitions.MOST_GROUPS)
    return list(itertools.islice(fit, MOST_PAIRS))


def _cross(
    found: Mapping[str, Partition], pairs: Sequence[tuple[str, str]]
) -> tuple[dict[str, Partition], dict[str, str]]:
    crossed, refused = {}, {}
    for first, second in pairs:
        name = f"{first} x {second}"
        if lacking := [column for column in (first, second) if column not in found]:
            refused[name] = f"There are no groups of {' and '.join(lacking)} to cross."
            continue
        try:
            crossed[name] = partitions.cross(name, found[first], found[second])
        except UserError as error:
            refused[name] = str(error)
    return crossed, refused


def _section(
    answers: tallies.Answers, partition: Partition, resampled: tallies.Resampled, seed: int
) -> dict[str, Any]:
    """What is said of one partition; see `groups`."""
    n = len(answers.label)
    sizes = np.bincount(partition.member, minlength=len(partition.values))
    large = np.flatnonzero(sizes >= SMALLEST)
    place = np.full(len(sizes), -1)
    place[large] = np.arange(len(large))
    member = place[partition.member]
    values = [partition.values[i] for i in large]

    counts = tallies.counts(answers, member, len(large), tallies.count)
    enough = counts.support >= SMALLEST, counts.n[:, None] - counts.support >= SMALLEST
    by_group, by_class, noise = _spread(answers, member, counts, enough, resampled)
    accuracy = counts.correct.sum(axis=1) / counts.n
    told = _told(answers, counts, values, n, by_group)
    for group, sure in zip(told, _confidence(answers, member, len(large), resampled), strict=True):
        intervals = group["intervals"] | sure.pop("intervals")
        group |= sure | {"intervals": intervals}
    return {
        "n": n,
        "edges": None if partition.edges is None else list(partition.edges),
        "too_small": [
            {"value": value, "n": int(size)}
            for value, size in zip(partition.values, sizes, strict=True)
            if size < SMALLEST
        ],
        "groups": told,
        **_gap(told, counts, accuracy, by_group["accuracy"], seed),
        "fairness": gaps.fairness(
            gaps.differences(counts, *enough), by_class, noise, answers.class_names, MOST_CLASSES
        ),
        "notes": _notes(len(large), *enough),
    }


def _spread(
    answers: tallies.Answers,
    member: Int[np.ndarray, " n"],
    observed: Counts,
    enough: tuple[Bool[np.ndarray, "groups classes"], Bool[np.ndarray, "groups classes"]],
    resampled: tallies.Resampled,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Of every resample: accuracy and macro means of each group, differences of each class, and
    those that noise alone makes.
    """
    size, classes = observed.support.shape
    block = max(1, _BLOCK // max(1, size * classes))
    around = gaps.rates(observed)
    parts = []
    for start in range(0, resampled.count, block):
        sums = functools.partial(resampled.sums, part=slice(start, start + block))
        counts = tallies.counts(answers, member, size, sums)
        with np.errstate(invalid="ignore"):  # a group that did not get into a resample
            accuracy = counts.correct.sum(axis=1) / counts.n
        parts.append(
            (
                {"accuracy": accuracy} | gaps.macro(counts),
                gaps.differences(counts, *enough),
                gaps.differences(counts, *enough, around=around),
            )
        )
    by_group, by_class, noise = (
        {name: np.concatenate([part[name] for part in kind], axis=-1) for name in kind[0]}
        for kind in zip(*parts, strict=True)
    )
    return by_group, by_class, noise


def _told(
    answers: tallies.Answers,
    counts: Counts,
    values: Sequence[str],
    n: int,
    resampled: Mapping[str, Float[np.ndarray, "groups count"]],
) -> list[dict[str, Any]]:
    """A dictionary for each group."""
    macro, rates = gaps.macro(counts), gaps.rates(counts)
    support, correct = (
        np.bincount(which, minlength=len(answers.class_names))
        for which in (answers.label, answers.label[answers.right])
    )
    recall = correct / np.maximum(support, 1)
    return [
        {
            "value": value,
            "n": (size := int(counts.n[i])),
            "share": size / n,
            "accuracy": (right := int(counts.correct[i].sum())) / size,
            "accuracy_of_class_mix": float(counts.support[i] @ recall / size),
            "macro": {name: gaps.plain(found[i]) for name, found in macro.items()}
            | {"intervals": {name: bootstrap.interval(resampled[name][i]) for name in macro}},
            "per_class": _per_class(answers.class_names, counts, rates, i),
            "intervals": {"accuracy": bootstrap.wilson(right, size)},
        }
        for i, value in enumerate(values)
    ]


def _per_class(
    class_names: Sequence[str],
    counts: Counts,
    rates: Mapping[str, Float64[np.ndarray, "groups classes"]],
    group: int,
) -> list[dict[str, Any]] | None:
    if len(class_names) > MOST_CLASSES:
        return None
    n = int(counts.n[group])
    listed = []
    for c, name in enumerate(class_names):
        support, predicted, correct = (
            int(of[group, c]) for of in (counts.support, counts.predicted, counts.correct)
        )
        shares = {
            "selection_rate": (predicted, n),
            "precision": (correct, predicted),
            "true_positive_rate": (correct, support),
            "false_positive_rate": (predicted - correct, n - support),
            "false_negative_rate": (support - correct, support),
        }
        listed.append(
            {"name": name, "support": support}
            | {of: gaps.plain(values[group, c]) for of, values in rates.items()}
            | {"intervals": {of: bootstrap.wilson(*share) for of, share in shares.items()}}
        )
    return listed


def _confidence(
    answers: tallies.Answers, member: Int[np.ndarray, " n"], size: int, resampled: tallies.Resampled
) -> list[dict[str, Any]]:
    """Mean confidence, overconfidence and calibration error of each group."""
    sure = np.isfinite(answers.confidence)
    member = np.where(sure, member, -1)
    confidence = np.where(sure, answers.confidence, 0)
    over = confidence - answers.right
    edges = np.linspace(0, 1, BINS + 1)[1:-1]
    cell = np.where(member < 0, -1, member * BINS + np.searchsorted(edges, confidence))

    n, resampled_n = tallies.count(member, size), resampled.sums(member, size)
    found: list[dict[str, Any]] = [{"intervals": {}} for _ in range(size)]
    for name, values in (("mean_confidence", confidence), ("overconfidence", over)):
        total, spread = tallies.total(member, size, values), resampled.sums(member, size, values)
        with np.errstate(invalid="ignore"):
            mean, means = total / n, spread / resampled_n
        for i in range(size):
            found[i][name] = gaps.plain(mean[i])
            found[i]["intervals"][name] = bootstrap.interval(means[i])
    gap = tallies.total(cell, size * BINS, over).reshape(size, BINS, 1)
    spread = resampled.sums(cell, size * BINS, over).reshape(size, BINS, resampled.count)
    with np.errstate(invalid="ignore"):
        gap, spread = gap / n[:, None, None], spread / resampled_n[:, None]
    error, errors, noise = (np.abs(of).sum(axis=1) for of in (gap, spread, spread - gap))
    name = f"ece_equal_width_{BINS}"
    for i in range(size):
        found[i][name] = gaps.plain(error[i, 0])
        found[i][f"{name}_if_calibrated"] = gaps.plain(noise[i].mean())
        found[i]["intervals"][name] = gaps.gap_interval(float(error[i, 0]), errors[i], noise[i])
    return found


def _gap(
    told: Sequence[Mapping[str, Any]],
    counts: Counts,
    accuracy: Float64[np.ndarray, " groups"],
    resampled: Float[np.ndarray, "groups count"],
    seed: int,
) -> dict[str, Any]:
    """The worst and the best group, and whether chance would set groups as far apart."""
    if len(told) < 2:
        return dict.fromkeys(_GAP) | {"intervals": {"accuracy_gap": None}}
    gap = float(np.ptp(accuracy))
    p_value, by_chance = _permuted(counts, seed)
    worst, best = (
        {name: group[name] for name in ("value", "n", "accuracy")}
        | {"interval": group["intervals"]["accuracy"]}
        for group in (told[int(accuracy.argmin())], told[int(accuracy.argmax())])
    )
    return dict(zip(_GAP, (worst, best, gap, by_chance, p_value), strict=True)) | {
        "intervals": {
            "accuracy_gap": gaps.gap_interval(
                gap, np.ptp(resampled, axis=0), np.ptp(resampled - accuracy[:, None], axis=0)
            )
        }
    }


def _permuted(counts: Counts, seed: int) -> tuple[float, float]:
    """If the examples that are right were dealt out to the groups at random: how often they
    would differ as much, by Pearson's chi-squared, and the accuracy gap to be expected.
    """
    sizes = counts.n.astype(np.int64)
    right = counts.correct.sum(axis=1)
    rng = np.random.default_rng((seed, _STREAM))
    dealt = rng.multivariate_hypergeometric(
        sizes, int(right.sum()), PERMUTATIONS, method="marginals"
    )
    # But for a factor that all of them share.
    square, squares = (
        ((of - sizes * right.sum() / sizes.sum()) ** 2 / sizes).sum(axis=-1)
        for of in (right, dealt)
    )
    as_large = int((squares >= square * (1 - 1e-9)).sum())
    return (1 + as_large) / (1 + PERMUTATIONS), float(np.ptp(dealt / sizes, axis=1).mean())


def _notes(
    large: int, positives: Bool[np.ndarray, "groups classes"], negatives: Bool[np.ndarray, "g c"]
) -> list[str]:
    if large < 2:
        who = "No group has" if not large else "Only one group has"
        return [f"{who} {SMALLEST} examples or more, so there is nothing to compare."]
    notes = []
    for kind, enough in (("true", positives), ("false", negatives)):
        if few := int((~enough).sum()):
            notes.append(
                f"{few} of {enough.size} {kind} positive rates (a group, a class) are of fewer "
                f"than {SMALLEST} examples and are left out of the differences."
            )
    return notes


def _by_gap(sections: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    ranked = sorted(
        (name for name, section in sections.items() if section["accuracy_gap"] is not None),
        key=lambda name: -sections[name]["accuracy_gap"],
    )
    p_values = [sections[name]["p_permutation"] for name in ranked]
    return [
        {
            "column": name,
            "worst": sections[name]["worst"]["value"],
            "n": sections[name]["worst"]["n"],
            "accuracy": sections[name]["worst"]["accuracy"],
            "accuracy_gap": sections[name]["accuracy_gap"],
            "p_permutation": p,
            "p_permutation_holm": corrected,
        }
        for name, p, corrected in zip(ranked, p_values, comparison.holm(p_values), strict=True)
    ]
