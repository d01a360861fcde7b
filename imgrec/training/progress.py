"""Progress for people: a bar on a terminal, one line a log interval elsewhere."""

from collections.abc import Mapping

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class TrainProgress:
    """Step, loss, images/s and the time left, while training runs."""

    def __init__(self, console: Console, *, total_steps: int, done: int):
        """Starts at `done` of `total_steps`; the display begins on entering the context."""
        self._console = console
        self._total = total_steps
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TextColumn("elapsed,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total_steps, completed=done, status="compiling")

    def __enter__(self) -> "TrainProgress":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def advance(self, step: int) -> None:
        """A step has been sent off."""
        self._bar.update(self._task, completed=step)

    def logged(self, step: int, scalars: Mapping[str, float], images_per_second: float) -> None:
        """Metrics have come back."""
        status = (
            f"loss {scalars['loss']:.4f}, accuracy {scalars['accuracy']:.4f}, "
            f"{images_per_second:,.0f} images/s"
        )
        self._bar.update(self._task, completed=step, status=status)
        if not self._console.is_terminal:
            rate = f"learning rate {scalars['learning_rate']:.3g}"
            self._console.print(f"step {step}/{self._total}: {status}, {rate}")

    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        """An evaluation has finished; it stays on the screen as a line."""
        numbers = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        self._console.print(f"step {step}/{self._total}: {numbers}")
