"""A trace of some steps of training, for Perfetto or TensorBoard.

The steps compute what they would without it. What lies between two steps (waiting for data, log
lines, checkpoints) is in the trace too, on the Python thread.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from imgrec.errors import UserError

# Called before every step and after the last one, with the steps done by then and something
# that the device may still be computing.
Observer = Callable[[int, Any], None]
FOLDER = "profile"


def parse(text: str, total_steps: int) -> range | None:
    """The steps that "100:105" means, of a run's: the five that follow the hundredth.

    None for an empty text.

    Raises:
      UserError: not of that form, or steps that the run does not have.
    """
    if not text:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None:
        raise UserError(
            f"--profile={text!r}: expected FROM:TO in steps, as in --profile=100:105, which "
            "traces the five steps after the hundredth."
        )
    steps = range(int(match[1]), int(match[2]))
    if not steps:
        raise UserError(f"--profile={text} holds no step; TO is to be above FROM, as in 100:105.")
    if steps.stop > total_steps:
        length = min(len(steps), total_steps)
        raise UserError(
            f"--profile={text} ends after the run, which has {total_steps:,} steps. The last that "
            f"can be traced are --profile={total_steps - length}:{total_steps}."
        )
    return steps


@contextlib.contextmanager
def tracing(folder: Path, steps: range | None, told: Callable[[str], object]) -> Iterator[Observer]:
    """Gives the loop's observer, which traces these steps into `folder/profile`.

    A trace that is open when the block ends is written as far as it went.

    Args:
      folder: of the run.
      steps: of `parse`; None traces nothing.
      told: is given a line on what was written, or why nothing was.
    """
    # One process of several is enough: they run the same program.
    if steps is None or jax.process_index() != 0:
        yield ignore
        return
    trace = _Trace(folder / FOLDER, steps)
    try:
        yield trace.observe
    finally:
        trace.stop()
        for line in trace.report():
            told(line)


def ignore(step: int, computing: Any) -> None:
    """The observer of a loop that nobody watches."""


class _Trace:
    """Open while the steps done are in the range."""

    def __init__(self, folder: Path, steps: range):
        self._folder, self._steps = folder, steps
        self._annotation: jax.profiler.StepTraceAnnotation | None = None
        self._began: int | None = None
        self._last = 0
        self._open = False

    def observe(self, step: int, computing: Any) -> None:
        """Opens or closes the trace, and tells it where one step ends and the next begins."""
        self._last = step
        if not self._open and (step not in self._steps or self._began is not None):
            return
        if self._annotation is not None:
            self._annotation.__exit__(None, None, None)
            self._annotation = None
        # What was begun before the trace, or in it, is no part of what comes after.
        if step not in self._steps or not self._open:
            jax.block_until_ready(computing)
        if step not in self._steps:
            self.stop()
            return
        if not self._open:
            self._folder.mkdir(parents=True, exist_ok=True)
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._open, self._began = True, step
        self._annotation = jax.profiler.StepTraceAnnotation("train", step_num=step)
        self._annotation.__enter__()

    def stop(self) -> None:
        """Writes the trace, if it is open."""
        if self._open:
            self._open = False
            jax.profiler.stop_trace()

    def report(self) -> list[str]:
        """What there is to see and how."""
        if self._began is None:
            return [
                f"profile: no trace, since this launch made no step of {self._steps.start} to "
                f"{self._steps.stop} (it ended at {self._last})"
            ]
        files = sorted(self._folder.rglob("perfetto_trace.json.gz"))
        end = min(self._last, self._steps.stop)
        return [
            f"profile: steps {self._began} to {end} in {files[-1] if files else self._folder}",
            "  open that file on https://ui.perfetto.dev, which keeps it on your machine; or "
            f"pip install xprof && xprof --logdir={self._folder} (TensorBoard's profiler)",
        ]
