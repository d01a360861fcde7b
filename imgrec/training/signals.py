"""SIGTERM and SIGINT ask for a checkpoint and an orderly end; a second one insists."""

import signal
import types

EXIT_STOPPED = 75  # as EX_TEMPFAIL of sysexits.h: run the same command again to go on

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """While entered, remembers the first signal; after it the default handlers are back."""

    def __init__(self) -> None:
        """Nothing is installed before the context is entered."""
        self.received: str | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        self._previous = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def reached(self, step: int) -> bool:
        """Whether to stop before this step; to be asked once a step."""
        del step  # which matters where several processes have to agree
        return self.received is not None

    def _remember(self, number: int, frame: types.FrameType | None) -> None:
        del frame
        self.received = signal.Signals(number).name
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
