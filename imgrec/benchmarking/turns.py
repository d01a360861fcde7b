"""What contestants that took turns say about each other, and the result file they end in."""

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from imgrec.files import write_text
from imgrec.training import run_folder


def compared(ours: Sequence[float], peer: Sequence[float]) -> dict[str, Any]:
    """How many times our speed is the peer's, from speeds of the same rounds.

    "minimum" sets the best turn of each beside the other's (the shortest times, which other
    work on the machine disturbed least); "median" is that of the ratios round by round.
    """
    values = [a / b for a, b in zip(ours, peer, strict=True)]
    return {
        "minimum": max(ours) / max(peer),
        "median": statistics.median(values),
        "values": values,
    }


def machine() -> dict[str, Any]:
    """Where it was measured."""
    return {
        "processor": run_folder.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": run_folder.versions(),
    }


def write(result: Mapping[str, Any], path: Path, command: str) -> None:
    """Writes a result with where and by which revision it was measured."""
    told = {
        **result,
        "device": f"{run_folder.processor()}, {os.cpu_count()} cores, {jax.default_backend()}",
        "machine": machine(),
        "git_revision": run_folder.git("rev-parse", "HEAD"),
        "command": command,
    }
    write_text(path, json.dumps(told, indent=2) + "\n")
