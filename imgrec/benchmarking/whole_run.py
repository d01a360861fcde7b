"""What a run costs beyond its steps: the whole loop beside the bare compiled step.

"Bare" repeats the step on one batch that stays on the device; "loop" is `imgrec.training.loop`:
data, transfer, augmentation, metrics and log lines, and a checkpoint an epoch. Both run in one
process and take turns, so that a change of the machine's speed meets both.
"""

import contextlib
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from imgrec.config import CheckpointConfig, EvalConfig, Experiment, LogConfig
from imgrec.data import Dataset
from imgrec.training import loop
from imgrec.training.clock import Clock
from imgrec.training.plan import Plan, plan

TARGET = 0.95


def measure(
    experiment: Experiment,
    *,
    rounds: int,
    steps: int,
    dataset: Dataset | None = None,
    told: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Speed of the loop over that of its bare step, round by round.

    A round of the loop is the steps between two checkpoints, which are so many steps apart. Of
    the time that a checkpoint takes, the share counts that would fall on so many steps at one
    an epoch; what its background work takes from the steps that follow counts in full.

    Args:
      experiment: any that trains by steps.
      rounds: that count; one more goes before, in which programs warm up.
      steps: of each of the two in a round.
      dataset: in place of the experiment's own.
      told: is given a line a round.
    """
    every = f"{steps}st"
    experiment = dataclasses.replace(
        experiment,
        train=dataclasses.replace(experiment.train, duration=f"{(rounds + 3) * steps}st"),
        log=LogConfig(every=every, tensorboard=experiment.log.tensorboard),
        eval=EvalConfig(every="100%"),
        checkpoint=CheckpointConfig(every=every),
    )
    planned = plan(experiment, dataset)
    watch = _Turns(_bare(experiment, dataset, steps), steps, rounds, planned.steps_per_epoch, told)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_EnoughError):
        quiet = Console(quiet=True)
        loop.train(planned, Path(folder), quiet, clock=watch.clock, observe=watch.observe)
    values = [bare / whole for whole, bare in zip(watch.loops, watch.bares, strict=True)]
    images = steps * experiment.data.batch_size
    return {
        "claim": f"{experiment.model.name}, batch {experiment.data.batch_size}: images/s of the "
        "whole loop, a checkpoint an epoch included, over images/s of the bare jitted step",
        "metric": "ratio",
        "values": values,
        "median": statistics.median(values),
        "minimum": min(watch.bares) / min(watch.loops),
        "target": TARGET,
        "reached": statistics.median(values) >= TARGET,
        "n": rounds,
        "images_per_second": {
            "loop": [images / seconds for seconds in watch.loops],
            "bare": [images / seconds for seconds in watch.bares],
        },
        "checkpoint_seconds": watch.saves,
        "feeding": planned.feeding,
    }


def _bare(experiment: Experiment, dataset: Dataset | None, steps: int) -> Callable[[], float]:
    """Seconds of so many steps on a batch that is there, wherever the loop's come from."""
    data = dataclasses.replace(experiment.data, resident="off")
    train = dataclasses.replace(experiment.train, steps_per_call=1)
    alone: Plan = plan(dataclasses.replace(experiment, data=data, train=train), dataset)
    with contextlib.closing(alone.feed()) as feed:
        batch = next(feed)
    state = alone.initial_state()
    step, _ = alone.compile_step(state, batch)

    def run() -> float:
        nonlocal state
        begin = time.perf_counter()
        for _ in range(steps):
            state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        return time.perf_counter() - begin

    run()
    return run


class _EnoughError(Exception):
    """Ends the loop when all rounds are measured."""


class _Turns:
    """Observes the loop, and has the bare step run after each of its rounds."""

    def __init__(
        self,
        bare: Callable[[], float],
        steps: int,
        rounds: int,
        steps_per_epoch: float,
        told: Callable[[str], object],
    ):
        self.clock = Clock()
        self.loops: list[float] = []
        self.bares: list[float] = []
        self.saves: list[float] = []
        self._bare, self._steps, self._rounds, self._told = bare, steps, rounds, told
        self._spared = 1 - min(1.0, steps / steps_per_epoch)  # of a checkpoint's time
        self._began, self._saved = 0.0, 0.0

    def observe(self, step: int, computing: Any) -> None:
        """Called before each step; at every `steps`-th, a round has ended."""
        if step % self._steps:
            return
        jax.block_until_ready(computing)
        seconds = time.perf_counter() - self._began
        saving = self.clock["checkpoint"] - self._saved
        if step >= 2 * self._steps:  # the first round warms up
            self.loops.append(seconds - self._spared * saving)
            self.saves.append(saving)
            self.bares.append(self._bare())
            self._told(
                f"round {len(self.loops)} of {self._rounds}: {self.loops[-1]:.2f} s the loop, "
                f"{self.bares[-1]:.2f} s the bare step"
            )
        if len(self.loops) == self._rounds:
            raise _EnoughError
        self._saved, self._began = self.clock["checkpoint"], time.perf_counter()
