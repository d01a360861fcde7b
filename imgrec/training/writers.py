"""Where metrics go: `metrics.jsonl` always, TensorBoard through CLU where TensorFlow is.

CLU's summary writer and TensorBoard's files need TensorFlow. Where it is missing, training
works all the same: one line says what is not written and how to have it.
"""

import contextlib
import io
import json
import os
from collections.abc import Mapping
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


def create(folder: Path, *, resume_step: int, tensorboard: bool) -> tuple[Writer, str | None]:
    """The writers of a run folder, and a line on what is missing, if anything is.

    Of several processes, the first writes and the others have nowhere to write to.
    """
    if jax.process_index():
        return Several([]), None
    writers: list[Writer] = [JsonLines(folder / "metrics.jsonl", resume_step=resume_step)]
    missing = None
    if tensorboard:
        try:
            writers.append(_tensorboard(folder))
        except ImportError as error:
            missing = (
                f"No TensorBoard events: {error.name or 'a package'} cannot be imported. "
                "Metrics are in metrics.jsonl. To have both: pip install clu tensorflow-cpu"
            )
    return Several(writers), missing


def _tensorboard(folder: Path) -> Writer:
    # TensorFlow's C++ side greets on stderr; it is only the writer here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it would announce itself
    import tensorflow as tf
    from clu import metric_writers

    with contextlib.suppress(RuntimeError):  # already initialised, by the user's own code
        tf.config.set_visible_devices([], "GPU")
    return metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(folder)))


def _step_of(line: str) -> int:
    """The step of a line; a last line that a kill cut short counts as after everything."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return np.iinfo(np.int64).max
