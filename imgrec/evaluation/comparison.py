"""Whether one model is better than another, judged on the same examples.

Two models that are tested on the same images mostly fail on the same ones. Paired tests look at
those on which they differ, and so tell far smaller differences apart than two intervals that
overlap or do not. What they judge is these two trained networks: how much another seed would
have changed is no part of it, and is answered by training more of them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from imgrec.errors import UserError
from imgrec.evaluation import bootstrap, metrics
from imgrec.evaluation.predictions import Predictions


def compare(
    runs: Mapping[str, Predictions], *, seed: int = 0, count: int = 1000
) -> list[dict[str, Any]]:
    """Every other run against the first.

    Args:
      runs: predictions for the same split, by name; the first is the one to compare with.
      seed: of the bootstrap.
      count: of resamples.

    Returns:
      `pair` of each but the first, with first and other (the names), and mcnemar_p_exact_holm,
      corrected for the number of comparisons.

    Raises:
      UserError: two runs are not of the same examples, labels or classes.
    """
    (first, base), *others = runs.items()
    pairs = []
    for name, other in others:
        check_same(base, other, first, name)
        found = pair(base, other, seed=seed, count=count)
        pairs.append({"first": first, "other": name} | found)
    corrected = holm([found["mcnemar_p_exact"] for found in pairs])
    return [found | {"mcnemar_p_exact_holm": p} for found, p in zip(pairs, corrected, strict=True)]


def check_same(a: Predictions, b: Predictions, name_a: str, name_b: str) -> None:
    """Refuses predictions that are not of the same examples.

    Raises:
      UserError: they differ in number, positions, labels or classes; how is said.
    """
    why = None
    if a.logits.shape[1] != b.logits.shape[1]:
        why = f"{a.logits.shape[1]} classes and {b.logits.shape[1]}"
    elif len(a.index) != len(b.index):
        why = f"{len(a.index):,} examples and {len(b.index):,}"
    elif not np.array_equal(a.index, b.index):
        why = "other positions in the split"
    elif differ := int((a.label != b.label).sum()):
        why = f"other labels for {differ:,} of {len(a.label):,} examples"
    if why:
        raise UserError(
            f"The predictions of {name_a} and {name_b} are not of the same examples ({why}), so "
            "they cannot be compared pair by pair. Evaluate both on the same split of the same "
            "data set."
        )


def pair(a: Predictions, b: Predictions, *, seed: int = 0, count: int = 1000) -> dict[str, Any]:
    """Two models on the same examples.

    Returns:
      n; accuracy_difference and nll_difference, of b minus a (the negative log likelihood in
      nats; None where one is not finite), and intervals of both, by the paired bootstrap;
      both_right, only_first_right, only_other_right, both_wrong, counts; agreement, the share
      of examples to which they give the same class; mcnemar_p_exact and mcnemar_p_mid.
    """
    right_a, right_b = (_predicted(run) == run.label for run in (a, b))
    likelihood_a, likelihood_b = (
        metrics.negative_log_likelihood(run.logits, run.label) for run in (a, b)
    )
    accuracy = bootstrap.paired_difference(right_b, right_a, seed=seed, count=count)
    nll = bootstrap.paired_difference(likelihood_b, likelihood_a, seed=seed, count=count)
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return {
        "n": len(a.label),
        "accuracy_difference": accuracy["difference"],
        "nll_difference": nll["difference"],
        "intervals": {
            "accuracy_difference": accuracy["intervals"]["difference"],
            "nll_difference": nll["intervals"]["difference"],
        },
        "both_right": int((right_a & right_b).sum()),
        "only_first_right": only_a,
        "only_other_right": only_b,
        "both_wrong": int((~right_a & ~right_b).sum()),
        "agreement": float(np.mean(_predicted(a) == _predicted(b))),
        **mcnemar(only_a, only_b),
    }


def mcnemar(only_first: int, only_other: int) -> dict[str, float]:
    """McNemar's test of whether two models are equally often right (McNemar 1947).

    Of the examples that only one of them has right, each is right on half if they are equal.

    Args:
      only_first: examples that the first alone has right.
      only_other: that the other alone has right.

    Returns:
      mcnemar_p_exact, two-sided, by the binomial distribution; mcnemar_p_mid, with half the
      probability of what was seen, which is less timid (Fagerland et al. 2013).
    """
    n, fewer = only_first + only_other, min(only_first, only_other)
    # In whole numbers: the ways in which `fewer` or less of n fall on one side.
    ways, at_most = 1, 1
    for k in range(fewer):
        ways = ways * (n - k) // (k + 1)
        at_most += ways
    return {
        "mcnemar_p_exact": min(1.0, 2 * at_most / 2**n),
        "mcnemar_p_mid": min(1.0, (2 * at_most - ways) / 2**n),
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for how many there are, each in its place (Holm 1979).

    Below a level after the correction, at most that share of families has any false alarm.
    """
    order = np.argsort(p_values, kind="stable")
    corrected, largest = [math.nan] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = float(largest)
    return corrected


def _predicted(run: Predictions) -> Int[np.ndarray, " n"]:
    """As `metrics.classification`: a logit that is not a number ranks last."""
    logits: Float[np.ndarray, "n classes"] = run.logits
    return np.where(np.isnan(logits), -np.inf, logits).argmax(axis=1)
