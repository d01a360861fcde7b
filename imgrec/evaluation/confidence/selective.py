"""Prediction with a reject option: how wrong a model is on the part that it is sure of.

The risk-coverage curve of Geifman & El-Yaniv (2017, "Selective Classification for Deep Neural
Networks"): examples are accepted from the most confident down; coverage is the share accepted
and risk the share of errors among those. Examples of one confidence cannot be told apart by a
threshold, so they are accepted together, and nothing depends on the order of the examples.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, Integer
from scipy.stats import beta

from imgrec.evaluation import bootstrap
from imgrec.evaluation.confidence.calibration import finite_examples, fit_temperature, softmax

COVERAGES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
RISKS = (0.01, 0.05)
# How probable it is that the risk of a guaranteed threshold exceeds its target.
DELTA = 0.05
CURVE_POINTS = 200
# Resampled weights are worked on this many at a time, so that they stay in the cache.
BLOCK = 250_000

Logits = Float[np.ndarray, "n classes"]
Labels = Integer[np.ndarray, " n"]


def selective(
    logits: Logits,
    labels: Labels,
    validation_logits: Float[np.ndarray, "m classes"] | None = None,
    validation_labels: Integer[np.ndarray, " m"] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Risk and coverage by two measures of confidence.

    Examples with a logit that is not a finite number are left out; a note says how many.

    Returns:
      n; n_validation; temperature, fitted on validation (None without, and then the softmax is
      taken as it is); reasons, which says in words why a value is None; notes; and max_softmax
      and max_logit (None without examples), the confidences, each with:
        n;
        aurc, the mean risk over all coverages, weighted by how many examples share a
        confidence; aurc_optimal, that of as many errors were they all ranked last; e_aurc,
        their difference (Geifman, Uziel & El-Yaniv 2019);
        accuracy_at_coverage_50, _70, _80, _90, _95, _99, _100: among the fewest examples that
        a threshold can accept and that are at least so many percent;
        coverage_at_risk_1, _5: the largest coverage whose risk is at most so many percent,
        read off this very curve, so an upper bound for any threshold chosen elsewhere;
        intervals: Wilson for accuracies, percentile bootstrap for the rest;
        curve: {coverage, risk, threshold}, lists of at most 200 points;
        thresholds: two for each target risk, empty without validation. One is "empirical", of
        the largest coverage whose risk on validation is at most the target; one "guaranteed",
        whose true risk is at most the target with a probability of 95 % (their algorithm SGR).
        Each is {target_risk, chosen, threshold, validation: {n, coverage, risk}, n, coverage,
        risk, intervals, reason}: examples are accepted whose confidence is at least the
        threshold. What is None, since no threshold meets the target or it accepts no example,
        has its reason in words.

    Raises:
      ValueError: there are no examples, or labels do not fit their logits.
    """
    (logits, labels), notes = finite_examples(logits, labels, "examples")
    report: dict[str, Any] = {
        "n": len(labels),
        "n_validation": 0,
        "temperature": None,
        "max_softmax": None,
        "max_logit": None,
        "reasons": {},
        "notes": notes,
    }
    validation = None
    if validation_logits is None or validation_labels is None:
        reason = "There is no validation split to choose it on."
    else:
        given, notes = finite_examples(validation_logits, validation_labels, "validation examples")
        report["n_validation"] = len(given[1])
        report["notes"] += notes
        reason = "No validation example has finite logits."
        if len(given[1]):
            validation, reason = given, ""
            report["temperature"] = fit_temperature(*validation)
    if reason:
        report["reasons"] |= {"temperature": reason, "thresholds": reason}
    if not len(labels):
        reason = "No example has finite logits."
        report["reasons"] |= {"max_softmax": reason, "max_logit": reason}
        return report

    weights = bootstrap.resamples(len(labels), seed=seed)
    temperature = report["temperature"] or 1.0
    for name in ("max_softmax", "max_logit"):
        ranked = rank(_confidence(name, logits, temperature), logits.argmax(axis=1) == labels)
        report[name] = _scores(ranked, weights)
        chosen = report[name]["thresholds"] = []
        if validation is not None:
            right = validation[0].argmax(axis=1) == validation[1]
            ranked_validation = rank(_confidence(name, validation[0], temperature), right)
            chosen += _thresholds(ranked_validation, ranked)
    return report


@dataclass(frozen=True, eq=False)
class Ranked:
    """Examples from the most confident down, those of equal confidence as one group.

    Attributes:
      n: the number of examples.
      threshold: the confidence of each group, falling.
      accepted: how many examples are at least as confident.
      errors: how many of those are wrong.
      wrong: of every example in this order, whether it is wrong.
    """

    n: int
    threshold: Float64[np.ndarray, " groups"]
    accepted: Int64[np.ndarray, " groups"]
    errors: Int64[np.ndarray, " groups"]
    wrong: Bool[np.ndarray, " n"]

    @property
    def coverage(self) -> Float64[np.ndarray, " groups"]:
        """The share of the examples that each threshold accepts."""
        return self.accepted / self.n

    @property
    def risk(self) -> Float64[np.ndarray, " groups"]:
        """The share of errors among what each threshold accepts."""
        return self.errors / self.accepted


def rank(confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> Ranked:
    """The risk-coverage curve of examples, at every threshold that tells some apart."""
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, wrong = confidence[order].astype(np.float64), ~right[order]
    last = np.append(np.flatnonzero(np.diff(sorted_confidence)), len(order) - 1)
    return Ranked(
        n=len(order),
        threshold=sorted_confidence[last],
        accepted=last + 1,
        errors=np.cumsum(wrong)[last],
        wrong=wrong,
    )


def _confidence(name: str, logits: Logits, temperature: float) -> Float[np.ndarray, " n"]:
    return (logits if name == "max_logit" else softmax(logits, temperature)).max(axis=1)


def _scores(ranked: Ranked, weights: Float32[np.ndarray, "count n"]) -> dict[str, Any]:
    """All that is said of one confidence but its thresholds; see `selective`."""
    n, accepted, errors, risk = ranked.n, ranked.accepted, ranked.errors, ranked.risk
    area = float(np.diff(accepted, prepend=0) @ risk / n)
    optimal = _optimal_areas(n)
    best = float(optimal[errors[-1]])
    scores: dict[str, Any] = {
        "n": n,
        "aurc": area,
        "aurc_optimal": best,
        "e_aurc": max(area - best, 0.0),
    }
    areas, failures, coverages = _resampled(ranked, weights)
    intervals = {
        "aurc": bootstrap.interval(areas),
        "aurc_optimal": bootstrap.interval(optimal[failures]),
        "e_aurc": bootstrap.interval(np.maximum(areas - optimal[failures], 0)),
    }
    for coverage in COVERAGES:
        # The small number is for products such as 0.7 x 10, which are a little more than whole.
        group = np.searchsorted(accepted, math.ceil(coverage * n - 1e-9))
        name = f"accuracy_at_coverage_{round(100 * coverage)}"
        right = int(accepted[group] - errors[group])
        scores[name] = right / int(accepted[group])
        intervals[name] = bootstrap.wilson(right, int(accepted[group]))
    for target in RISKS:
        name = f"coverage_at_risk_{round(100 * target)}"
        scores[name] = float(np.max(ranked.coverage, where=risk <= target, initial=0.0))
        intervals[name] = bootstrap.interval(coverages[target])
    groups = len(accepted)
    shown = np.unique(np.linspace(0, groups - 1, min(groups, CURVE_POINTS)).round().astype(int))
    curve = {"coverage": ranked.coverage, "risk": risk, "threshold": ranked.threshold}
    return scores | {
        "intervals": intervals,
        "curve": {name: values[shown].tolist() for name, values in curve.items()},
    }


def _optimal_areas(n: int) -> Float64[np.ndarray, " errors"]:
    """The area under the curve of n examples with 0 to n errors, all ranked last.

    Of k errors the r-th example from the top, r > n - k, has the risk (r - (n - k)) / r.
    """
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n + 1))])
    errors = np.arange(n + 1)
    return (errors - (n - errors) * (harmonic[n] - harmonic[n - errors])) / n


def _resampled(
    ranked: Ranked, weights: Float32[np.ndarray, "count n"]
) -> tuple[
    Float64[np.ndarray, " count"],
    Int64[np.ndarray, " count"],
    dict[float, Float64[np.ndarray, " count"]],
]:
    """The area, the number of errors and the coverage at each risk, of every resample.

    How often an example is drawn does not depend on its place, so the weights are taken in
    the order of confidence. Sums of whole numbers are exact in float32.
    """
    count, n = weights.shape
    # Each example has the risk of all that are accepted with it: down to its group's last.
    last = np.repeat(ranked.accepted - 1, np.diff(ranked.accepted, prepend=0))
    tied = np.flatnonzero(last != np.arange(n))
    wrong = ranked.wrong.astype(np.float32)
    areas, failures = np.empty(count), np.empty(count, np.int64)
    coverages = {target: np.empty(count) for target in RISKS}
    rows = max(BLOCK // n, 1)
    for start in range(0, count, rows):
        part = weights[start : start + rows]
        accepted, errors = np.cumsum(part, axis=1), np.cumsum(part * wrong, axis=1)
        for sums in (accepted, errors):
            sums[:, tied] = sums[:, last[tied]]
        here = slice(start, start + len(part))
        failures[here] = errors[:, -1]
        # Where nothing was drawn yet there is no risk, and it weighs nothing.
        risk = np.divide(errors, np.maximum(accepted, 1), out=errors)
        for target, found in coverages.items():
            within = risk[:, ::-1] <= target
            most = accepted[np.arange(len(part)), n - 1 - within.argmax(axis=1)]
            found[here] = np.where(within.any(axis=1), most, 0) / n
        areas[here] = np.multiply(risk, part, out=risk).sum(axis=1, dtype=np.float64) / n
    return areas, failures, coverages


def _thresholds(validation: Ranked, test: Ranked) -> list[dict[str, Any]]:
    """What thresholds that were chosen on validation give on the test examples."""
    chosen = []
    for target in RISKS:
        for way, choose in (("empirical", _empirical), ("guaranteed", _guaranteed)):
            group = choose(validation, target)
            entry = {"target_risk": target, "chosen": way, "n": test.n}
            chosen.append(entry | _applied(validation, group, test))
    return chosen


def _applied(validation: Ranked, group: int | None, test: Ranked) -> dict[str, Any]:
    """The threshold of a group of the validation examples, there and on the test examples."""
    if group is None:
        reason = f"No threshold on {validation.n} validation examples meets the target."
        nothing = dict.fromkeys(("threshold", "validation", "coverage", "risk"))
        return nothing | {"intervals": {}, "reason": reason}
    threshold = float(validation.threshold[group])
    groups = int(np.searchsorted(-test.threshold, -threshold, side="right"))
    accepted = int(test.accepted[groups - 1]) if groups else 0
    errors = int(test.errors[groups - 1]) if groups else 0
    return {
        "threshold": threshold,
        "validation": {
            "n": validation.n,
            "coverage": float(validation.coverage[group]),
            "risk": float(validation.risk[group]),
        },
        "coverage": accepted / test.n,
        "risk": errors / accepted if accepted else None,
        "intervals": {
            "coverage": bootstrap.wilson(accepted, test.n),
            "risk": bootstrap.wilson(errors, accepted),
        },
        "reason": None if accepted else "No example is as confident.",
    }


def _empirical(ranked: Ranked, target: float) -> int | None:
    """The group with the largest coverage whose risk is in the target."""
    within = np.flatnonzero(ranked.risk <= target)
    return int(within[-1]) if len(within) else None


def _guaranteed(ranked: Ranked, target: float) -> int | None:
    """The group that selection with guaranteed risk (SGR) ends at.

    A binary search over the thresholds, at each the exact binomial bound of the true risk with
    its share of `DELTA`. The search looks at so few that the bounds hold together.
    """
    low, high, found = 0, len(ranked.accepted) - 1, None
    looks = max(math.ceil(math.log2(high + 2)), 1)
    while low <= high:
        group = (low + high) // 2
        errors, accepted = int(ranked.errors[group]), int(ranked.accepted[group])
        certain = errors == accepted
        bound = 1.0 if certain else beta.ppf(1 - DELTA / looks, errors + 1, accepted - errors)
        if bound <= target:
            found, low = group, group + 1
        else:
            high = group - 1
    return found
