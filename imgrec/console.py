"""What the verbs that work for a while share: a bar for each stage, and an end when asked for."""

import signal
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

EXIT_STOPPED = 75  # as of imgrec.main

Shown = Callable[[str, int, int], None]  # (stage, done, total)


def create() -> Console:
    """A console for people, who may also redirect it into a file."""
    return Console(highlight=False, soft_wrap=True)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM stops as Ctrl-C does."""

    def stop(number: int, frame: types.FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def bar(console: Console) -> Iterator[Shown]:
    """A bar for each stage on a terminal, one line for each elsewhere."""
    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TextColumn("elapsed,"), TimeRemainingColumn())
    with Progress(*columns, *times, console=console, disable=not console.is_terminal) as progress:

        def shown(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
                if not console.is_terminal:
                    console.print(f"{stage}: {total:,}", markup=False)
            progress.update(tasks[stage], completed=done)

        yield shown
