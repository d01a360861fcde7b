"""How long one waits: for the import, and from the command to the first step."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

IMPORT_TARGET, START_TARGET = 2.5, 10.0  # seconds
_IMPORT = """
import time
begin = time.perf_counter()
import imgrec.main
print(time.perf_counter() - begin)
"""


class StartError(RuntimeError):
    """The run ended before its first step; its output is the message."""


def measure(
    arguments: Sequence[str], *, rounds: int, told: Callable[[str], object] = print
) -> dict[str, Any]:
    """Seconds to the first step with an empty and with a filled compilation cache.

    Each start is a process of its own, `python -m imgrec.main`, from its beginning to the line
    of the first step; it is then ended. The first start of all is not counted: it brings the
    files into memory.

    Args:
      arguments: of the experiment, `--config=...` and `--config.FIELD=...`.
      rounds: starts of either kind.
      told: is given a line a round.

    Raises:
      StartError: the command does not reach its first step.
    """
    cold, warm, imports = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _first_step(arguments, folder / "before", folder / "run_before")
        for i in range(rounds):
            cache = folder / f"cache{i}"
            cold.append(_first_step(arguments, cache, folder / f"cold{i}"))
            warm.append(_first_step(arguments, cache, folder / f"warm{i}"))
            imports.append(_import())
            told(
                f"round {i + 1} of {rounds}: first step after {cold[-1]:.1f} s, with compiled "
                f"programs kept {warm[-1]:.1f} s; import {imports[-1]:.2f} s"
            )
    reached = min(warm) <= START_TARGET and min(imports) <= IMPORT_TARGET
    return {
        "claim": "from command to first step with compiled programs kept",
        "metric": "seconds",
        "values": warm,
        "median": statistics.median(warm),
        "minimum": min(warm),
        "target": START_TARGET,
        "reached": reached,
        "n": rounds,
        "seconds": {"cold": cold, "warm": warm, "import of imgrec.main": imports},
        "targets": {"warm": START_TARGET, "import of imgrec.main": IMPORT_TARGET},
    }


def _import() -> float:
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def _first_step(arguments: Sequence[str], cache: Path, workdir: Path) -> float:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
    command = [sys.executable, "-m", "imgrec.main", *arguments, f"--workdir={workdir}"]
    command += ["--config.log.every=1st", "--config.train.steps_per_call=1"]
    begin = time.perf_counter()
    run = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**environment, "IMGREC_CACHE": str(cache), "PYTHONUNBUFFERED": "1"},
    )
    assert run.stdout is not None
    printed = []
    try:
        for line in run.stdout:
            printed.append(line)
            if line.startswith("step 1/"):
                return time.perf_counter() - begin
    finally:
        run.kill()
        run.stdout.close()
        run.wait()
    raise StartError("".join(printed[-20:]))
