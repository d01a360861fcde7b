"""The run folder: everything a run was and did, so that it explains itself years later.

`config.json`, `launches.jsonl` (one line a start: command, machine, versions, git revision),
`git.diff`, `cost.json`, `seconds.json`, `metrics.jsonl`, TensorBoard events, `checkpoints/`
and `evaluation/`; of images of one's own, `classes.json` and `splits.csv`.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from imgrec import config as configs
from imgrec.config import Experiment
from imgrec.data import record as records
from imgrec.errors import UserError
from imgrec.files import writable_bytes, write_text
from imgrec.native import build
from imgrec.training import checkpoints, resolving, xla

PACKAGES = ("imgrec", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
_MOST_LINES = 10


def open_folder(
    folder: Path,
    experiment: Experiment,
    *,
    allow_change: bool,
    needs_bytes: int,
    record: Mapping[str, str] | None = None,
) -> list[str]:
    """Makes the run folder, or checks that the one that is there belongs to this experiment.

    To be called by one process of a run alone, before the others use the folder.

    Args:
      folder: of the run.
      experiment: about to be run.
      allow_change: go on although the experiment differs from the saved one.
      needs_bytes: disk space that the checkpoints will take.
      record: `Info.record` of the data set, which is kept in the folder.

    Returns:
      Sentences on how the data set differs from the one recorded, where a run may go on.

    Raises:
      UserError: the folder cannot be written, the disk is too full, or the folder holds
        another experiment, another format, images that were in other splits, or something
        that is no run. Nothing in it is changed then.
    """
    _check_identity(folder, experiment, allow_change)
    said = check_record(folder, record or {}, allow_change)
    _check_space(folder, needs_bytes)
    write_text(folder / "config.json", json.dumps(_identity(experiment), indent=2) + "\n")
    write_text(folder / "git.diff", git("diff", "HEAD") or "")
    with (folder / "launches.jsonl").open("a") as file:
        file.write(json.dumps(_launch()) + "\n")
    for name, text in (record or {}).items():
        write_text(folder / name, text)
    return said


def add_seconds(folder: Path, seconds: dict[str, float]) -> dict[str, float]:
    """Adds this launch's seconds to `seconds.json`, the sum over launches; gives them back.

    Like all that is written here, by process 0.
    """
    if jax.process_index():
        return seconds
    path = folder / "seconds.json"
    before: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    total = {name: before.get(name, 0.0) + seconds.get(name, 0.0) for name in before | seconds}
    write_text(path, json.dumps(total, indent=2) + "\n")
    return seconds


def write_cost(
    folder: Path, analysis: Mapping[str, float] | None, steps: int, parameters: int
) -> None:
    """Writes `cost.json`: parameters, and FLOPs of a step and of the run.

    FLOPs are those of matrix products and convolutions, as `models.cost.operations` counts.
    """
    if jax.process_index():
        return
    flops = (analysis or {}).get("flops")
    cost = {
        "flops_per_step": flops,
        "flops": flops and flops * steps,
        "parameters": parameters,
    }
    write_text(folder / "cost.json", json.dumps(cost, indent=2) + "\n")


def _identity(experiment: Experiment) -> dict[str, Any]:
    return {
        "format": checkpoints.FORMAT,
        "fingerprint": configs.fingerprint(experiment),
        **_arithmetic(experiment),
        "devices": jax.device_count(),
        "experiment": configs.to_dict(experiment),
    }


def _arithmetic(experiment: Experiment) -> dict[str, str]:
    """What decides the last bits beside the configuration."""
    kernels = "xla"
    if xla.native_convolutions(experiment)[0]:
        kernels = f"native {build.REVISION}"
        if experiment.train.compute_dtype == "bfloat16" and build.multiplies_bfloat16():
            kernels += ", matrix unit"
    return {"xla_flags": xla_flags(), "cpu_convolutions": kernels}


def _check_identity(folder: Path, experiment: Experiment, allow_change: bool) -> None:
    elsewhere = "or start a new run with --workdir=ANOTHER_FOLDER."
    path = folder / "config.json"
    if not path.exists():
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(
                f"{folder} is not empty, and holds no run (no config.json). Empty it yourself, "
                + elsewhere
            )
        return
    try:
        saved = json.loads(path.read_text())
        saved_experiment = dict(saved["experiment"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}). Restore it from a copy, {elsewhere}"
        ) from None
    checkpoints.check_format(saved.get("format"), folder)
    changes = configs.differences(
        saved_experiment,
        configs.to_dict(experiment),
        default=configs.to_dict(resolving.resolve(Experiment())),
    )
    # On another number of devices the last bits differ anyway.
    if saved.get("devices", jax.device_count()) == jax.device_count():
        now = _arithmetic(experiment).items()
        before = {"xla_flags": "", "cpu_convolutions": "xla"} | saved  # of older runs
        changes += [f"{name}: {before[name]!r} -> {v!r}" for name, v in now if before[name] != v]
    if changes and not allow_change:
        raise UserError(
            f"{folder} holds a run of another configuration. What differs (saved -> now):\n  "
            + "\n  ".join(changes)
            + "\nGo on with the new values by --allow_config_change, "
            + elsewhere
        )


def check_record(folder: Path, now: Mapping[str, str], allow_change: bool) -> list[str]:
    """Compares a data set with the one that a run recorded; moved images are refused.

    Args:
      folder: of the run.
      now: `Info.record` of the data set as it is.
      allow_change: only tell of moved images, too.

    Returns:
      Sentences on how it differs.

    Raises:
      UserError: images are in other splits than they were, or the record cannot be read.
    """
    if not now or not all((folder / name).exists() for name in now):
        return []
    try:
        changes = records.changes({name: (folder / name).read_text() for name in now}, now)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"The record of splits in {folder} ({', '.join(now)}) cannot be read ({error}). "
            "Restore it from a copy, or start a new run with --workdir=ANOTHER_FOLDER."
        ) from None
    if (changes.moved or changes.classes) and not allow_change:
        kinds = {"classes": changes.classes, "images in another split": changes.moved}
        raise UserError(
            f"The data set is not the one that the run in {folder} began with, and what it has "
            "learnt would be tested wrongly:\n"
            + "\n".join(f"  {kind}: {_few(what)}" for kind, what in kinds.items() if what)
            + "\nRestore the data set, start a new run with --workdir=ANOTHER_FOLDER, or go on all "
            "the same by --allow_config_change."
        )
    told = {
        "new images": changes.added,
        "images gone": changes.removed,
        "images with another label": changes.relabelled,
        "classes changed": changes.classes,
        "images in another split": changes.moved,
    }
    return [
        f"Since the run began: {len(what):,} {kind} ({_few(what)})."
        for kind, what in told.items()
        if what
    ]


def _few(lines: Sequence[str]) -> str:
    more = len(lines) - _MOST_LINES
    return "; ".join(lines[:_MOST_LINES]) + (f"; ... and {more:,} more" if more > 0 else "")


def _check_space(folder: Path, needs_bytes: int) -> None:
    try:
        free = writable_bytes(folder)
    except OSError as error:
        raise UserError(
            f"The run folder {folder} cannot be written: {error.strerror}. "
            "Choose another with --workdir=FOLDER."
        ) from None
    if free < needs_bytes:
        raise UserError(
            f"{folder} is on a disk with {free / 1e6:,.1f} MB left; the checkpoints of this run "
            f"take up to {needs_bytes / 1e6:,.1f} MB. Free some, choose another disk with "
            "--workdir=FOLDER, or keep fewer with --config.checkpoint.keep=1."
        )


def _launch() -> dict[str, Any]:
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "git_revision": git("rev-parse", "HEAD"),
        "git_dirty": bool(git("status", "--porcelain")),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "devices": [device.device_kind for device in jax.devices()],
        "backend": jax.default_backend(),
        "processes": jax.process_count(),
        "xla_flags": xla_flags(),
        "packages": versions(),
    }


def processor() -> str:
    """The CPU's model name where the system tells, else its architecture."""
    try:
        names = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def xla_flags() -> str:
    """XLA_FLAGS without the number of simulated devices, on which results do not depend."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    return " ".join(flag for flag in flags if "host_platform_device_count" not in flag)


def versions() -> dict[str, str | None]:
    """Of the packages that results depend on; None where one is not installed."""
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def git(*arguments: str) -> str | None:
    """What git says of this project's own checkout; None where there is none."""
    root = Path(__file__).parents[2]
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() if arguments[0] != "diff" else done.stdout
