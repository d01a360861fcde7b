"""The numbers of a section of the report: values, intervals, and why one of them is not there."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from imgrec.evaluation import bootstrap


class Scalars:
    """Collects numbers on one set of examples.

    A number that is not finite becomes None, for JSON has no nan, and says why.
    """

    def __init__(self, weights: Float32[np.ndarray, "count n"]):
        """`weights` are `bootstrap.resamples` of the examples."""
        self._weights = weights
        self._values: dict[str, float | None] = {}
        self._intervals: dict[str, list[float] | None] = {}
        self._reasons: dict[str, str] = {}

    def mean(self, name: str, values: Float[np.ndarray, " n"] | Bool[np.ndarray, " n"]) -> None:
        """A number that is the mean of one value an example."""
        mean = float(values.mean(dtype=np.float64))
        if math.isfinite(mean):
            self.set(name, mean, bootstrap.mean_interval(values, self._weights))
        else:
            self.set(name, mean, None)

    def set(self, name: str, value: float, interval: Sequence[float] | None) -> None:
        """A number whose interval is known."""
        self._values[name] = finite(value)
        self._intervals[name] = None
        if not math.isfinite(value):
            self._reasons[name] = "Some logits are not finite numbers, or leave a label no chance."
        elif interval is not None:
            self._intervals[name] = [float(bound) for bound in interval]

    def lack(self, name: str, reason: str) -> None:
        """A number that cannot be had."""
        self._values[name] = self._intervals[name] = None
        self._reasons[name] = reason

    def report(self) -> Mapping[str, Any]:
        """The numbers by name, and `intervals` and `reasons` by the same names."""
        return {**self._values, "intervals": self._intervals, "reasons": self._reasons}


def finite(value: float | np.floating[Any]) -> float | None:
    """The value for JSON, None where it is not finite."""
    return float(value) if math.isfinite(value) else None
