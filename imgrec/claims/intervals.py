"""How far another measurement of a claim may lie from the recorded one, by a stated rule."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

COVERAGE = 0.95
# Speeds of one run differ less than those of two runs, and machines differ more: turns within one
# process say nothing of that, so a ratio may move by a tenth however steady its rounds were.
_LEAST_RATIO = 1.1

RULES: Mapping[str, str] = {
    "seeds": (
        "a 95 % prediction interval of Student's t for the mean over the new seeds; the spread is "
        "the standard deviation over the recorded seeds, at least one test image, and of a single "
        "seed the binomial standard error"
    ),
    "rounds": (
        "a 95 % prediction interval of Student's t for the mean logarithm over rounds, at least a "
        "tenth to either side"
    ),
    "exact": "the same numbers",
    "target": "what was asked for is reached again, or missed again",
}


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`, both included; rounding in the last digit does not lead out of it."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        room = 1e-9 * max(1.0, abs(self.low), abs(self.high))
        return self.low - room <= value <= self.high + room


@dataclass(frozen=True)
class Verdict:
    """Whether a second measurement agrees with the first, and why in one sentence."""

    inside: bool
    said: str


def rule(result: Mapping[str, Any]) -> str:
    """The rule of a result by which another is compared with it.

    What older files measured says it: runs of several seeds, rounds of a comparison, counts.
    """
    if "rule" in result:
        return str(result["rule"])
    values, metric = result["values"], result["metric"]
    if (result.get("seeds") and "mean" in result) or metric.endswith("accuracy"):
        return "seeds"
    if metric == "operations":
        return "exact"
    rounds = "median" in result and result["n"] == len(values) > 1 and min(values) > 0
    return "rounds" if rounds else "target"


def interval(result: Mapping[str, Any], again: int) -> Interval | None:
    """Where the value of a second measurement should lie; None where the rule has no interval.

    Args:
      result: as recorded.
      again: how many seeds or rounds the second one has.
    """
    values, kind = result["values"], rule(result)
    if kind == "exact":
        return Interval(min(values), max(values)) if len(set(values)) == 1 else None
    if kind == "seeds":
        middle, spread = statistics.fmean(values), _spread_over_seeds(result)
        half = _quantile(len(values)) * spread * math.sqrt(1 / len(values) + 1 / again)
        most = 1.0 if result["metric"].endswith(" accuracy") else math.inf
        return Interval(middle - half, min(middle + half, most))
    if kind == "rounds":
        logs = [math.log(value) for value in values]
        spread = statistics.stdev(logs) if len(logs) > 1 else 0.0
        half = _quantile(len(logs)) * spread * math.sqrt(1 / len(logs) + 1 / again)
        half = max(half, math.log(_LEAST_RATIO))
        middle = statistics.fmean(logs)
        return Interval(math.exp(middle - half), math.exp(middle + half))
    return None


def compare(recorded: Mapping[str, Any], again: Mapping[str, Any]) -> Verdict:
    """Sets a second measurement beside the recorded one, by the recorded one's rule."""
    kind, values = rule(recorded), again["values"]
    if kind == "exact":
        same = list(recorded["values"]) == list(values)
        said = f"{_shown(values)} beside {_shown(recorded['values'])}; expected the same numbers"
        return Verdict(same, said)
    if kind == "target":
        words = {True: "reached", False: "missed", None: "nothing was asked for"}
        was, now = recorded["reached"], again["reached"]
        said = f"recorded {words[was]}, now {words[now]} ({_shown(values)})"
        return Verdict(was == now, said)
    expected = interval(recorded, len(values))
    assert expected is not None
    if kind == "rounds":
        value = math.exp(statistics.fmean(map(math.log, values)))
    else:
        value = statistics.fmean(values)
    inside = value in expected
    where = "inside" if inside else "OUTSIDE"
    return Verdict(
        inside,
        f"{value:.5g} is {where} the interval from {expected.low:.5g} to {expected.high:.5g}",
    )


def _spread_over_seeds(result: Mapping[str, Any]) -> float:
    values, n = result["values"], result["n"]
    if len(values) > 1:
        # Few seeds may agree to the last image, and the next one need not.
        least = 1 / n if "accuracy" in result["metric"] else 0.0
        return max(statistics.stdev(values), least)
    return math.sqrt(max(values[0] * (1 - values[0]), 1 / n) / n)


def _quantile(n: int) -> float:
    """Of Student's t with n - 1 degrees of freedom; of the normal distribution for a single one."""
    from scipy import special  # takes a moment that listing claims does not wait for

    tail = 0.5 + COVERAGE / 2
    return float(special.stdtrit(n - 1, tail) if n > 1 else special.ndtri(tail))


def _shown(values: Any) -> str:
    return ", ".join(f"{value:.5g}" for value in values)
