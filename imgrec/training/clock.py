"""Where the time goes: seconds by activity, accounted for and printed at the end."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Adds up the seconds spent in named activities; the rest of the wall time is "other"."""

    def __init__(self) -> None:
        """Starts the wall clock."""
        self.started = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, activity: str) -> Iterator[None]:
        """Accounts for what happens inside the context."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.add(activity, time.perf_counter() - begin)

    def add(self, activity: str, seconds: float) -> None:
        """Accounts for what happened before this was asked."""
        self._seconds[activity] = self._seconds.get(activity, 0.0) + seconds

    def seconds(self) -> dict[str, float]:
        """Seconds by activity, with "other" and "total"."""
        total = time.perf_counter() - self.started
        accounted = sum(self._seconds.values())
        return {**self._seconds, "other": total - accounted, "total": total}

    def __getitem__(self, activity: str) -> float:
        return self._seconds.get(activity, 0.0)
