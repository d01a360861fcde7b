"""Sets of classes that hold the true one with a chosen probability: split conformal prediction.

Every class of an image has a score, the smaller the more it looks like the image's. A quantile
of the true classes' scores on examples kept for calibration becomes the threshold, and the set
is all classes within it. Of new examples like those, a share of at least 1 - alpha has its true
class in its set, whatever the model; of any one class or difficulty it need not be so, hence
the class-conditional variant and the coverage by class and by size of set.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Integer

from imgrec.evaluation.confidence import coverage
from imgrec.evaluation.confidence.calibration import (
    blocks,
    finite_examples,
    fit_temperature,
    softmax,
)

ALPHAS = (0.1, 0.05)
# The part of validation that temperature, k_reg and the penalty are chosen on; it takes no
# part in the quantiles, since scores that were chosen to be small there would promise too much.
TUNING = 0.2
PENALTIES = (0.001, 0.01, 0.1, 0.2, 0.5)  # the grid of Angelopoulos et al. 2021
CLASS_CONDITIONAL = "lac_class_conditional"
HALVES = 100

# What the seeds of the random numbers begin with, so that each use has its own.
_PARTS, _UNIFORMS, _HALVES = range(0xC0F0, 0xC0F3)

Logits = Float[np.ndarray, "n classes"]
Labels = Integer[np.ndarray, " n"]
Scores = Float64[np.ndarray, "n classes"]
MethodScores = Mapping[tuple[str, float], Scores]


def conformal(
    logits: Logits,
    labels: Labels,
    validation_logits: Float[np.ndarray, "m classes"],
    validation_labels: Integer[np.ndarray, " m"],
    class_names: Sequence[str],
    seed: int = 0,
) -> dict[str, Any]:
    """Prediction sets calibrated on validation, and what they hold here.

    A fifth of validation, drawn by the seed, is for choosing (temperature, k_reg, penalty),
    the rest for the quantiles; the labels of the examples measured here choose nothing.
    Examples with a logit that is not a finite number are left out of all; notes say how many.
    No set is empty: one that would be gets the most probable class, so a model whose accuracy
    is above 1 - alpha covers more than was asked.

    The methods:
      lac: score 1 - p, the smallest sets on average (Sadinle et al. 2019);
      lac_class_conditional: with a threshold for each class, from its own examples (Mondrian;
        Vovk 2012), so that every class is covered;
      aps: the probability of all classes down to this one, less a uniformly random part of its
        own (Romano et al. 2020); aps_deterministic: less all of its own, so that the top class has
        the score 0 and no set is empty;
      raps: aps and a penalty for every rank beyond k_reg (Angelopoulos et al. 2021), both
        chosen for the smallest sets, as they do.

    Returns:
      n, n_validation, n_tuning, n_calibration; temperature (1.0 with nothing to fit it on);
      reasons, which says in words why a value here is None; notes, a list of sentences; levels
      (None without examples to calibrate on or to measure), by alpha as text, "0.1" and "0.05":
      a dictionary from method to what `coverage.summary` says of its sets and
        threshold, of lac_class_conditional a list with one for each class; where it is
        infinite, since the examples are too few for alpha, it is None and the sets hold all
        classes (or that class);
        k_reg and penalty (raps alone);
        halves (not of lac_class_conditional): {coverage_mean, coverage_std}, the spread over
        100 random halves of the calibration examples, one for the quantile, one to measure.

    Raises:
      ValueError: there are no examples, or labels or names do not fit their logits.
    """
    classes = logits.shape[1]
    if len(class_names) != classes:
        raise ValueError(f"{len(class_names)} class names were given for {classes} logits.")
    (logits, labels), notes = finite_examples(logits, labels, "examples")
    given, more = finite_examples(validation_logits, validation_labels, "validation examples")
    shuffled = np.random.default_rng((seed, _PARTS)).permutation(len(given[1]))
    tuned, kept = np.split(shuffled, [int(TUNING * len(shuffled))])
    report: dict[str, Any] = {
        "n": len(labels),
        "n_validation": len(shuffled),
        "n_tuning": len(tuned),
        "n_calibration": len(kept),
        "temperature": 1.0,
        "levels": None,
        "reasons": {},
        "notes": notes + more,
    }
    if not len(kept) or not len(labels):
        which = "validation example" if len(labels) else "example"
        report["reasons"]["levels"] = f"No {which} has finite logits."
        return report
    tuning, calibration = ((given[0][part], given[1][part]) for part in (tuned, kept))
    raps = dict.fromkeys(ALPHAS, (classes, 0.0))
    if len(tuned):
        report["temperature"] = fit_temperature(*tuning)
        raps = _chosen_penalties(*tuning, report["temperature"], seed)
    else:
        report["notes"].append(
            f"{len(shuffled)} validation examples are too few to choose a temperature and RAPS's "
            f"penalty on: both are left out."
        )

    def find(which: int, examples: Logits) -> Iterator[tuple[slice, MethodScores]]:
        uniforms = np.random.default_rng((seed, _UNIFORMS, which)).random(len(examples))
        for rows in blocks(*examples.shape):
            probabilities = softmax(examples[rows], report["temperature"])
            yield rows, _scores(probabilities, uniforms[rows], raps)

    own = _of_true_classes(find(1, calibration[0]), calibration[1])
    thresholds = {
        (method, alpha): class_quantiles(scores, calibration[1], classes, alpha)
        if method == CLASS_CONDITIONAL
        else quantile(scores, alpha)
        for (method, alpha), scores in own.items()
    }
    right = calibration[0].argmax(axis=1) == calibration[1]
    sets = _measured(find(2, logits), labels, logits.argmax(axis=1) == labels, thresholds)
    order = np.tile(np.arange(len(kept)), (HALVES, 1))
    halves = np.random.default_rng((seed, _HALVES)).permuted(order, axis=1)
    report["levels"] = {str(alpha): {} for alpha in ALPHAS}
    for (method, alpha), threshold in thresholds.items():
        entry = coverage.summary(*sets[method, alpha], labels, class_names, seed)
        entry["threshold"] = _stored(threshold)
        if method == "raps":
            entry["k_reg"], entry["penalty"] = raps[alpha]
        if method != CLASS_CONDITIONAL:
            entry["halves"] = _spread(own[method, alpha], right, halves, alpha)
        report["levels"][str(alpha)][method] = entry
    report["notes"] += _in_words(calibration[1], class_names, float(right.mean()))
    return report


def quantile(scores: Float[np.ndarray, " n"], alpha: float) -> float:
    """The ceil((n + 1)(1 - alpha))-th smallest of the scores of n true classes.

    Infinite where there is no such score, which is for n < 1/alpha - 1: then a set with this
    threshold holds all classes, as it must.

    Raises:
      ValueError: alpha is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is the share of sets that may miss, so in (0, 1), not {alpha}.")
    position = _position(len(scores), alpha)
    if position > len(scores):
        return math.inf
    return float(np.partition(scores, position - 1)[position - 1])


def class_quantiles(
    scores: Float[np.ndarray, " n"], labels: Labels, classes: int, alpha: float
) -> Float64[np.ndarray, " classes"]:
    """The `quantile` of each class's own scores; infinite for a class with too few of them."""
    by_class = scores[np.argsort(labels, kind="stable")]
    ends = np.cumsum(np.bincount(labels, minlength=classes))[:-1]
    return np.array([quantile(of_class, alpha) for of_class in np.split(by_class, ends)])


def lac_scores(probabilities: Scores) -> Scores:
    """1 - p, the score of least ambiguous set-valued classifiers."""
    return 1 - probabilities


def aps_scores(
    probabilities: Scores,
    uniforms: Float[np.ndarray, " n"] | None = None,
    k_reg: int = 0,
    penalty: float = 0.0,
) -> Scores:
    """The probability of the classes down to each, the most probable first, less a part of its own.

    Args:
      probabilities: of each class. Of equal ones the first class comes first.
      uniforms: one random number in [0, 1) an example, the share of a class's own probability
        that does not count; None counts none of it. (Were all of it counted instead, a sure and
        right prediction would have the score 1, and hardly a threshold would be below 1.)
      k_reg: the rank, from 1, beyond which classes are penalised.
      penalty: added for every rank beyond that (RAPS).
    """
    mass, ranks = _ranked(probabilities)
    mass -= probabilities if uniforms is None else uniforms[:, None] * probabilities
    return mass + penalty * np.maximum(ranks - k_reg, 0)


def prediction_sets(
    scores: Scores,
    threshold: float | Sequence[float | None] | Float[np.ndarray, " classes"] | None,
    allow_empty: bool = False,
) -> Bool[np.ndarray, "n classes"]:
    """Which classes are in the set of each example.

    So the sets at 95 % of new images, by a report of `conformal`, are
    `prediction_sets(lac_scores(softmax(logits, report["temperature"])), threshold)` with
    `threshold = report["levels"]["0.05"]["lac"]["threshold"]`.

    Args:
      scores: of every class, as the threshold's were.
      threshold: one for all classes, or one for each; None is infinite, as JSON has it.
      allow_empty: leave a set empty that is; else it gets the class with the smallest score.
    """
    bound = np.array(threshold, dtype=np.float64)
    bound[np.isnan(bound)] = np.inf
    sets = scores <= bound
    if not allow_empty:
        empty = np.flatnonzero(~sets.any(axis=1))
        sets[empty, scores[empty].argmin(axis=1)] = True
    return sets


def _position(n: int, alpha: float) -> int:
    # The small number is for products such as 20 x (1 - 0.05), which must not be above 19.
    return math.ceil((n + 1) * (1 - alpha) - 1e-9)


def _ranked(probabilities: Scores) -> tuple[Scores, Int64[np.ndarray, "n classes"]]:
    """Of each class: the probability down to it and with it, and its rank from 1."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    mass, ranks = np.empty_like(probabilities), np.empty_like(order)
    np.put_along_axis(
        mass, order, np.take_along_axis(probabilities, order, axis=1).cumsum(axis=1), axis=1
    )
    np.put_along_axis(ranks, order, np.arange(1, order.shape[1] + 1)[None], axis=1)
    return mass, ranks


def _chosen_penalties(
    logits: Logits, labels: Labels, temperature: float, seed: int
) -> dict[float, tuple[int, float]]:
    """RAPS's k_reg and penalty for each alpha: the rank that is enough, and the smallest sets."""
    classes = logits.shape[1]
    probabilities = softmax(logits, temperature)
    uniforms = np.random.default_rng((seed, _UNIFORMS, 0)).random(len(labels))
    true = np.arange(len(labels)), labels
    mass, ranks = _ranked(probabilities)
    mass -= uniforms[:, None] * probabilities
    chosen = {}
    for alpha in ALPHAS:
        k_reg = int(min(quantile(ranks[true].astype(np.float64), alpha), classes))
        beyond = np.maximum(ranks - k_reg, 0)
        sizes = []
        for penalty in PENALTIES:
            scores = mass + penalty * beyond
            within = (scores <= quantile(scores[true], alpha)).sum(axis=1)
            sizes.append(np.maximum(within, 1).mean())
        chosen[alpha] = k_reg, PENALTIES[int(np.argmin(sizes))]
    return chosen


def _scores(
    probabilities: Scores,
    uniforms: Float64[np.ndarray, " n"],
    raps: Mapping[float, tuple[int, float]],
) -> dict[tuple[str, float], Scores]:
    """The scores by every method for every alpha; the classes are sorted once for all."""
    lac = lac_scores(probabilities)
    mass, ranks = _ranked(probabilities)
    aps = mass - uniforms[:, None] * probabilities
    scores = {}
    for alpha, (k_reg, penalty) in raps.items():
        scores["lac", alpha] = scores[CLASS_CONDITIONAL, alpha] = lac
        scores["aps", alpha] = aps
        scores["aps_deterministic", alpha] = mass - probabilities
        scores["raps", alpha] = aps + penalty * np.maximum(ranks - k_reg, 0)
    return scores


def _of_true_classes(
    parts: Iterable[tuple[slice, MethodScores]], labels: Labels
) -> dict[tuple[str, float], Float64[np.ndarray, " n"]]:
    own: dict[tuple[str, float], np.ndarray] = {}
    for rows, scores in parts:
        for key, of_classes in scores.items():
            true = np.arange(len(of_classes)), labels[rows]
            own.setdefault(key, np.empty(len(labels)))[rows] = of_classes[true]
    return own


def _measured(
    parts: Iterable[tuple[slice, MethodScores]],
    labels: Labels,
    right: Bool[np.ndarray, " n"],
    thresholds: Mapping[tuple[str, float], Any],
) -> dict[tuple[str, float], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each example's set: its size, whether it was filled, whether it holds the true class."""
    n = len(labels)
    measured = {key: (np.empty(n, np.int64), *np.empty((2, n), bool)) for key in thresholds}
    for rows, scores in parts:
        true = np.arange(len(labels[rows])), labels[rows]
        for key, (size, filled, covered) in measured.items():
            sets = prediction_sets(scores[key], thresholds[key], allow_empty=True)
            size[rows] = sets.sum(axis=1)
            filled[rows] = size[rows] == 0
            # By every method the top class has the smallest score, so it fills an empty set.
            covered[rows] = sets[true] | (filled[rows] & right[rows])
    return {
        key: (np.maximum(size, 1), filled, covered)
        for key, (size, filled, covered) in measured.items()
    }


def _stored(threshold: Any) -> Any:
    """The threshold, or one for each class, as JSON has it: None where it is infinite."""
    if isinstance(threshold, np.ndarray):
        return [_stored(float(of_class)) for of_class in threshold]
    return threshold if math.isfinite(threshold) else None


def _spread(
    own: Float64[np.ndarray, " n"],
    right: Bool[np.ndarray, " n"],
    halves: Int64[np.ndarray, "halves n"],
    alpha: float,
) -> dict[str, float | None]:
    """The coverage of one half of the examples by the quantile of the other."""
    first, second = np.array_split(halves, 2, axis=1)
    if not second.size:
        return {"coverage_mean": None, "coverage_std": None}
    position = _position(first.shape[1], alpha)
    if position > first.shape[1]:
        return {"coverage_mean": 1.0, "coverage_std": 0.0}
    threshold = np.partition(own[first], position - 1, axis=1)[:, position - 1, None]
    # A true class that is the top one is in its set: an empty set would be filled with it.
    coverages = ((own[second] <= threshold) | right[second]).mean(axis=1)
    return {"coverage_mean": float(coverages.mean()), "coverage_std": float(coverages.std(ddof=1))}


def _in_words(labels: Labels, class_names: Sequence[str], accuracy: float) -> list[str]:
    """What a reader has to know of the calibration examples to understand the sets."""
    notes = []
    n, counts = len(labels), np.bincount(labels, minlength=len(class_names))
    for alpha in ALPHAS:
        needed = math.ceil(1 / alpha - 1 - 1e-9)
        if n < needed:
            notes.append(
                f"At alpha = {alpha} at least {needed} calibration examples are needed and there "
                f"are {n}: the sets hold all classes."
            )
        rare = [name for name, count in zip(class_names, counts, strict=True) if count < needed]
        if rare:
            some = ", ".join(rare[:10]) + (", ..." if len(rare) > 10 else "")
            notes.append(
                f"At alpha = {alpha} each class needs at least {needed} calibration examples for a "
                f"threshold of its own; {len(rare)} have fewer and are in every class-conditional "
                f"set: {some}."
            )
        if accuracy > 1 - alpha:
            notes.append(
                f"At alpha = {alpha} more than {1 - alpha:.0%} must be covered, and the top class "
                f"alone is right in {accuracy:.1%} of the calibration examples: as no set is left "
                f"empty, more is covered than was asked."
            )
    return notes
