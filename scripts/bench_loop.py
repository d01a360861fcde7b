"""Loop overhead: images/s of the whole training loop over images/s of the bare jitted step.

    python scripts/bench_loop.py --data_root=FOLDER

The experiment is CIFAR-10 ResNet-20 at batch 128. "Bare" repeats the compiled step on one
batch that stays on the device; "loop" is what `imgrec.training.loop` does between two
evaluations: the data pipeline, the transfer, the clock, the metric window and its log lines.
Both run in one process and take turns, so that a change of the machine's speed meets both.
Writes `results/bench_loop.json`.
"""

import argparse
import contextlib
import io
import json
import os
import runpy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
from rich.console import Console

from imgrec import config
from imgrec.training import loop, progress, run_folder, xla
from imgrec.training.plan import Plan, plan

ROOT = Path(__file__).parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_root", default="", help="folder with the official files")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=12, help="of each kind in a round")
    parser.add_argument("--out", default=str(ROOT / "results" / "bench_loop.json"))
    arguments = parser.parse_args()
    if arguments.data_root:
        os.environ["IMGREC_DATA"] = arguments.data_root

    experiment = runpy.run_path(str(ROOT / "configs" / "cifar10_resnet.py"))["get_config"]()
    experiment.name, experiment.log.every = "bench_loop", f"{arguments.steps}st"
    experiment.log.tensorboard = False
    print(xla.configure(experiment))

    planned = plan(experiment)
    batch_size = experiment.data.batch_size
    # The bare step takes its batch from memory as it is, wherever the loop's batches come from.
    alone = plan(replace(experiment, data=replace(experiment.data, resident="off")))
    with contextlib.closing(alone.feed()) as feed:
        batch = next(feed)
    state = alone.initial_state()
    step, _ = alone.compile_step(state, batch)

    def bare() -> float:
        nonlocal state
        begin = time.perf_counter()
        for _ in range(arguments.steps):
            state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        return arguments.steps * batch_size / (time.perf_counter() - begin)

    bare()
    loops, bares = _take_turns(planned, bare, arguments.rounds)
    loops = [arguments.steps * batch_size / seconds for seconds in loops]
    ratios = [loop / bare for loop, bare in zip(loops, bares, strict=True)]
    result = {
        "claim": "images/s of the whole loop over images/s of the bare jitted step",
        "metric": "ratio",
        "values": ratios,
        "median": statistics.median(ratios),
        "mean": statistics.fmean(ratios),
        "std": statistics.stdev(ratios),
        "n": len(ratios),
        "target": 0.95,
        "reached": statistics.median(ratios) >= 0.95,
        "bare_images_per_second": bares,
        "loop_images_per_second": loops,
        "device": f"{run_folder.processor()}, {os.cpu_count()} cores, {jax.default_backend()}",
        "git_revision": run_folder.git("rev-parse", "HEAD"),
        "command": "python scripts/bench_loop.py --data_root=FOLDER",
        "fingerprint": config.fingerprint(planned.experiment),
    }
    Path(arguments.out).parent.mkdir(exist_ok=True)
    Path(arguments.out).write_text(json.dumps(result, indent=2) + "\n")
    print(f"median ratio {result['median']:.4f} over {len(ratios)} rounds; {arguments.out}")
    return 0


class _EnoughError(Exception):
    """Ends the loop when all rounds are measured."""


def _take_turns(
    planned: Plan, bare: Callable[[], float], rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds between log lines of the real loop, and what `bare` gave after each of them."""
    loops: list[float] = []
    bares: list[float] = []
    logged, began = progress.TrainProgress.logged, None

    def log_and_take_turns(self: progress.TrainProgress, *arguments: object) -> None:
        nonlocal began
        logged(self, *arguments)
        if began is not None:  # the first interval holds the compilation
            loops.append(time.perf_counter() - began)
            bares.append(bare())
            rate = f"{loops[-1]:.2f} s a log interval of the loop, {bares[-1]:.1f} images/s bare"
            print(rate, flush=True)
        if len(loops) == rounds:
            raise _EnoughError
        began = time.perf_counter()

    progress.TrainProgress.logged = log_and_take_turns
    try:
        with tempfile.TemporaryDirectory() as folder:
            loop.train(planned, Path(folder), Console(file=io.StringIO()))
    except _EnoughError:
        pass
    finally:
        progress.TrainProgress.logged = logged
    return loops, bares


if __name__ == "__main__":
    sys.exit(main())
