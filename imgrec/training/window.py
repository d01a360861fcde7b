"""Metrics of the steps since the last log line, left on the device until they are logged."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array


class DivergenceError(RuntimeError):
    """The loss or its gradient was not finite; `step` is the first step where."""

    def __init__(self, step: int, metric: str, value: float):
        """Remembers the step; the loop adds what can be gone back to."""
        super().__init__(f"The {metric.replace('_', ' ')} is {value} at step {step}.")
        self.step = step


class MetricWindow:
    """Collects each step's device scalars; one transfer fetches them all.

    Its `saved` form goes into the checkpoint, so that the mean over a window in which a run
    was cut is that of the run that was not.
    """

    def __init__(self, saved: Sequence[dict[str, float]] = ()):
        """An empty window, or the one that a checkpoint carried."""
        self._steps: list[dict[str, Any]] = list(saved)
        self._length = len(self._steps)

    def add(self, metrics: dict[str, Array], steps: int = 1) -> None:
        """Appends the metrics of one step, or of several stacked, without waiting for them."""
        self._steps.append(metrics)
        self._length += steps

    def fetch(self, last_step: int) -> list[dict[str, float]]:
        """Every step's metrics as numbers, in order.

        Raises:
          DivergenceError: naming the first step whose loss or gradient is not finite.
        """
        fetched = jax.device_get(self._steps)
        self._steps = [
            {name: float(values[i]) for name, values in call.items()}
            for call in ({name: np.atleast_1d(v) for name, v in part.items()} for part in fetched)
            for i in range(len(next(iter(call.values()))))
        ]
        first = last_step - len(self._steps) + 1
        for step, metrics in enumerate(self._steps, first):
            # Not the loss alone: compiled for a CPU, a ReLU turns NaN into 0, and a network
            # of nothing but NaN then has the finite loss of a uniform guess.
            for name in ("loss", "gradient_norm"):
                if not math.isfinite(metrics.get(name, 0.0)):
                    raise DivergenceError(step, name, metrics[name])
        # A copy: the caller may still be writing it to disk when the next step is added.
        return list(self._steps)

    def close(self, last_step: int) -> dict[str, float]:
        """Fetches, empties the window and gives the means; the learning rate is the last one."""
        steps = self.fetch(last_step)
        means = {name: math.fsum(s[name] for s in steps) / len(steps) for name in steps[0]}
        means["learning_rate"] = steps[-1]["learning_rate"]
        self._steps, self._length = [], 0
        return means

    def __len__(self) -> int:
        return self._length
