"""What the benchmarks share: contestants that take turns, and the result file they end in."""

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from imgrec.files import write_text
from imgrec.training import run_folder

ROOT = Path(__file__).parents[1]


def take_turns(contestants: Mapping[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Images/s of each contestant in each round; a contestant returns how many images it did.

    One round is not counted, in which programs compile and workers start. The order changes from
    round to round, so that nobody always follows the same neighbour.
    """
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for i in range(rounds + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            begin = time.perf_counter()
            images = contestants[name]()
            rate = images / (time.perf_counter() - begin)
            if i:
                rates[name].append(rate)
        if i:
            latest = ", ".join(f"{name} {rates[name][-1]:,.0f}" for name in contestants)
            print(f"round {i} of {rounds}, images/s: {latest}", flush=True)
    return rates


def ratio(rates: Mapping[str, list[float]], ours: str, peer: str) -> float:
    """The median over rounds of our rate over the peer's in the same round."""
    return statistics.median(a / b for a, b in zip(rates[ours], rates[peer], strict=True))


def write(result: Mapping[str, Any], out: str, command: str) -> None:
    """Writes a result with where and by which revision it was measured."""
    told = {
        **result,
        "device": f"{run_folder.processor()}, {os.cpu_count()} cores, {jax.default_backend()}",
        "git_revision": run_folder.git("rev-parse", "HEAD"),
        "command": command,
    }
    write_text(Path(out), json.dumps(told, indent=2) + "\n")
    print(f"{out} written")
