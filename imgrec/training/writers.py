"""Where metrics go: `metrics.jsonl` always, TensorBoard through CLU where TensorFlow is.

CLU's summary writer and TensorBoard's files need TensorFlow. Where it is missing, training
works all the same: one line says what is not written and how to have it.
"""

import contextlib
import importlib.util
import io
import json
import os
import sys
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from imgrec.files import write_text


@runtime_checkable  # so that the tests can check annotations that name it
class Writer(Protocol):
    """The part of `clu.metric_writers.MetricWriter` that the loop uses."""

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Numbers by name."""
        ...

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Arrays [n, height, width, channels] by name."""
        ...

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """The run's settings."""
        ...

    def flush(self) -> None:
        """Brings everything to the disk."""
        ...

    def close(self) -> None:
        """Flushes and releases."""
        ...


class JsonLines:
    """`metrics.jsonl`: one object a line, with `step` and the scalars by name."""

    def __init__(self, path: Path, *, resume_step: int):
        """Opens for appending; lines after `resume_step` move to `metrics.superseded.jsonl`.

        They are the steps that a killed run had logged after its last checkpoint, and that
        this one will log again.
        """
        if path.exists():
            # A kill may have cut the last line short, even by nothing but its end.
            lines = [line + "\n" for line in path.read_text().splitlines()]
            keep = [line for line in lines if _step_of(line) <= resume_step]
            if superseded := [line for line in lines if _step_of(line) > resume_step]:
                with path.with_name("metrics.superseded.jsonl").open("a") as file:
                    file.writelines(superseded)
            write_text(path, "".join(keep))
        self._file: io.TextIOWrapper = path.open("a")

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Appends one line."""
        numbers = {name: float(value) for name, value in scalars.items()}
        self._file.write(json.dumps({"step": step, **numbers}) + "\n")
        self._file.flush()

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Pictures have no place in a text file."""

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """They are in `config.json`."""

    def flush(self) -> None:
        """Every line is flushed as it is written."""

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class Several:
    """Passes everything on to each of several writers."""

    def __init__(self, writers: list[Writer]):
        """Takes the writers over; `close` closes them."""
        self._writers = writers

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """To each."""
        for writer in self._writers:
            writer.write_scalars(step, scalars)

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """To each."""
        for writer in self._writers:
            writer.write_images(step, images)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """To each."""
        for writer in self._writers:
            writer.write_hparams(hparams)

    def flush(self) -> None:
        """Each."""
        for writer in self._writers:
            writer.flush()

    def close(self) -> None:
        """Each."""
        for writer in self._writers:
            writer.close()


class TensorBoard:
    """CLU's summaries, written in order by a thread of their own.

    The thread imports TensorFlow when there is something to write: seconds that the first step
    does not wait for. What goes wrong there is raised by a later call.
    """

    def __init__(self, folder: Path):
        """Prepares to write event files into the folder; nothing is imported yet."""
        # TensorFlow's C++ side greets on stderr; it is only the writer here.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it would announce itself
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tensorboard")
        self._waiting: list[Future[None]] = []
        self._writer: Writer | None = None
        self._broken = False

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Numbers by name."""
        self._later("write_scalars", step, scalars)

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Arrays [n, height, width, channels] by name."""
        self._later("write_images", step, images)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """The run's settings."""
        self._later("write_hparams", hparams)

    def flush(self) -> None:
        """Waits until everything is on the disk."""
        if self._waiting or self._writer:
            self._later("flush")
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            future.result()

    def close(self) -> None:
        """Flushes and ends the thread."""
        try:
            self.flush()
            if self._writer:
                self._writer.close()
        finally:
            self._thread.shutdown()

    def _later(self, method: str, *arguments: Any) -> None:
        done = [future for future in self._waiting if future.done()]
        self._waiting = [future for future in self._waiting if not future.done()]
        for future in done:
            future.result()
        self._waiting.append(self._thread.submit(self._now, method, *arguments))

    def _now(self, method: str, *arguments: Any) -> None:
        if self._writer is None and not self._broken:
            try:
                self._writer = _summary_writer(self._folder)
            except ImportError as error:  # TensorFlow is there and does not work
                self._broken = True
                warnings.warn(_missing(error.name or str(error)), stacklevel=1)
        if self._writer is not None:
            getattr(self._writer, method)(*arguments)


def create(folder: Path, *, resume_step: int, tensorboard: bool) -> tuple[Writer, str | None]:
    """The writers of a run folder, and a line on what is missing, if anything is.

    Of several processes, the first writes and the others have nowhere to write to.
    """
    if jax.process_index():
        return Several([]), None
    lines = JsonLines(folder / "metrics.jsonl", resume_step=resume_step)
    if not tensorboard:
        return Several([lines]), None
    if absent := [name for name in ("tensorflow", "clu") if not _is_there(name)]:
        return Several([lines]), _missing(absent[0])
    return Several([lines, TensorBoard(folder)]), None


def _is_there(package: str) -> bool:
    """Whether an import would find the package; it is not imported."""
    if package in sys.modules:
        return sys.modules[package] is not None
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False


def _missing(what: str) -> str:
    return (
        f"No TensorBoard events: {what} cannot be imported. Metrics are in metrics.jsonl. To have "
        "both: pip install clu tensorflow-cpu"
    )


def _summary_writer(folder: Path) -> Writer:
    import tensorflow as tf
    from clu import metric_writers

    with contextlib.suppress(RuntimeError):  # already initialised, by the user's own code
        tf.config.set_visible_devices([], "GPU")
    return metric_writers.SummaryWriter(str(folder))


def _step_of(line: str) -> int:
    """The step of a line; a last line that a kill cut short counts as after everything."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return np.iinfo(np.int64).max
