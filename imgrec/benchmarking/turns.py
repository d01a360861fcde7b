"""Contestants in one process that take turns, and the result file that a measurement ends in."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from imgrec import claims
from imgrec.training import run_folder

ROOT = Path(__file__).parents[2]


def take_turns(
    contestants: Mapping[str, Callable[[], int]],
    rounds: int,
    told: Callable[[str], object] = print,
) -> dict[str, list[float]]:
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
            told(f"round {i} of {rounds}, images/s: {latest}")
    return rates


def ratio(rates: Mapping[str, list[float]], ours: str, peer: str) -> float:
    """The median over rounds of our rate over the peer's in the same round."""
    return compared(rates[ours], rates[peer])["median"]


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


def write(result: Mapping[str, Any], out: str | Path, command: str) -> None:
    """Writes a result with where and by which revision it was measured."""
    told = {
        **result,
        "device": f"{run_folder.processor()}, {os.cpu_count()} cores, {jax.default_backend()}",
        "versions": run_folder.versions(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "git_revision": run_folder.git("rev-parse", "HEAD"),
        "git_dirty": bool(run_folder.git("status", "--porcelain")),
        "command": command,
    }
    claims.write(Path(out), told)
    print(f"{out} written")
