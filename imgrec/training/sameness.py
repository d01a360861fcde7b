"""Whether the processes of a run are about to do the same thing: configuration, code and data.

Processes that differ do not fail; they compute something that is neither the one nor the other,
or wait for each other for ever. So each says what it has before work begins, and a difference is
refused by the name of what differs.
"""

import hashlib
import json
import platform
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import imgrec
from imgrec import config as configs
from imgrec.config import Experiment
from imgrec.data import Dataset
from imgrec.errors import UserError
from imgrec.training import distributed, run_folder

# Of JAX's own settings, those that change numbers or programs.
_SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
)
_SAMPLES = 4  # images of a split that it is told by
_MOST_LINES = 12
_PATIENCE = 20.0  # seconds


def check(experiment: Experiment) -> None:
    """Refuses processes of another configuration, other code or other devices.

    Raises:
      UserError: on every process, with what differs from process 0 in which.
    """
    if jax.process_count() > 1:
        _refuse(distributed.everyone(of_program(experiment)))
        _refuse(distributed.everyone(_of_devices()))


def check_data(dataset: Dataset, *, resident: bool) -> None:
    """Refuses processes that read other data, or would feed it in another way.

    Raises:
      UserError: as of `check`.
    """
    if jax.process_count() > 1:
        _refuse(distributed.everyone(of_data(dataset, resident=resident)))


def check_folder(folder: Path) -> None:
    """Refuses processes that do not see the run folder that process 0 has opened.

    Raises:
      UserError: as of `check`.
    """
    if jax.process_count() == 1:
        return
    token = folder / f".seen.{distributed.agreed(secrets.token_hex(8))}"
    if jax.process_index() == 0:
        token.touch()
    distributed.everyone(None)
    deadline = time.monotonic() + _PATIENCE
    # A network file system may take a while to show what another host has made.
    while not (seen := token.exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    without = [i for i, sees in enumerate(distributed.everyone(seen)) if not sees]
    if jax.process_index() == 0:
        token.unlink(missing_ok=True)
    if without:
        raise UserError(
            f"The run folder {folder.absolute()} of process 0 is not there in {_list(without)}. "
            "It has to be on a file system that all processes share: name one by --workdir=FOLDER."
        )


def of_program(experiment: Experiment) -> dict[str, str]:
    """What makes two processes run the same program, by name."""
    fields = configs.flatten(configs.to_dict(experiment))
    root = Path(imgrec.__file__).parent
    return {
        **{f"config.{name}": str(value) for name, value in fields.items()},
        "python": platform.python_version(),
        **{f"package {name}": str(found) for name, found in run_folder.versions().items()},
        **{name: str(getattr(jax.config, name, None)) for name in _SETTINGS},
        "XLA_FLAGS": run_folder.xla_flags(),
        **{
            f"code imgrec/{path.relative_to(root).as_posix()}": _short(path.read_bytes())
            for path in sorted(root.rglob("*.py"))
        },
    }


def of_data(dataset: Dataset, *, resident: bool) -> dict[str, str]:
    """What makes two processes see the same data, by name: labels and some images of each split."""
    info = dataset.info
    found = {
        "data shape": str(info.image_shape),
        "data classes": _short(json.dumps(info.class_names).encode()),
        "training images": "on the device" if resident else "from the host",
    }
    for name, text in info.record.items():
        found[f"data record {name}"] = _short(text.encode())
    for split in (dataset.train, dataset.validation, dataset.test):
        if split is None:
            continue
        found[f"data {split.name}: number of images"] = str(len(split))
        found[f"data {split.name}: labels"] = _short(np.ascontiguousarray(split.labels()).tobytes())
        rows = np.linspace(0, max(len(split) - 1, 0), min(_SAMPLES, len(split))).astype(int)
        found[f"data {split.name}: images"] = _short(split.gather(rows)["image"].tobytes())
    return found


def differences(processes: Sequence[Mapping[str, str]]) -> list[str]:
    """What differs from process 0, one line for each name and set of processes."""
    lines: dict[tuple[str, str, str], list[int]] = {}
    first = processes[0]
    for i, other in enumerate(processes):
        for name in sorted(first.keys() | other.keys()):
            here, there = first.get(name, "missing"), other.get(name, "missing")
            if here != there:
                lines.setdefault((name, here, there), []).append(i)
    return [
        f"{name}: {here} in process 0, {there} in {_list(which)}"
        for (name, here, there), which in lines.items()
    ]


def _of_devices() -> dict[str, str]:
    here = jax.local_devices()
    return {"number of devices": str(len(here)), "kind of devices": here[0].device_kind}


def _refuse(processes: Sequence[Mapping[str, Any]]) -> None:
    found = differences(processes)
    if not found:
        return
    more = len(found) - _MOST_LINES
    raise UserError(
        "The processes of this run are not the same:\n  "
        + "\n  ".join(found[:_MOST_LINES])
        + (f"\n  and {more} more" if more > 0 else "")
        + "\nStart all of them by the same command, from the same checkout and environment, on the "
        "same data."
    )


def _list(processes: Sequence[int]) -> str:
    shown = ", ".join(str(i) for i in processes[:5]) + (", ..." if len(processes) > 5 else "")
    return f"process {shown}" if len(processes) == 1 else f"processes {shown}"


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
