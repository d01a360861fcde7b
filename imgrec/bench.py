"""python -m imgrec.bench --config=FILE --what=step: how fast things are, here and beside others.

What can be measured of an experiment:

  step        the compiled training step; --against=torch and --against=flax beside the same
              network, batch and precision in PyTorch eager and in stock Flax
  start       from the command to the first step, with and without compiled programs kept
  input       augmented images/s, from the host and resident
  end_to_end  the whole loop, with log lines and checkpoints, over the bare step
  evaluation  a pass over validation over its forward passes alone
  latency     one image at a time: p50, p95, p99
  to_accuracy whole runs of the recipe beside the same recipe in PyTorch eager

or all but to_accuracy, which takes as long as whole runs do. Each result is printed and written,
with facts about the machine, to `results/bench_WHAT_CONFIG.json`. Speeds are compared only within
one run, in which contestants take turns. Exit codes: 0 done, 2 bad input.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console

from imgrec import claims, cli, config, validation
from imgrec.benchmarking import (
    latency,
    passes,
    start,
    step,
    synthetic,
    to_accuracy,
    turns,
    whole_run,
)
from imgrec.config import Experiment
from imgrec.data import Dataset
from imgrec.errors import unknown
from imgrec.training import resolving, xla

Result = dict[str, Any]
# Those that leave this process as it is come first; the rest set XLA's flags for themselves.
WHATS = ("step", "start", "input", "end_to_end", "evaluation", "latency", "to_accuracy")
_ELSEWHERE = ("step", "start")
_LONG = ("to_accuracy",)  # that nobody wants by the way


def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit code."""
    experiment, given = cli.parse(argv, _define_flags)
    whats = _checked(given)
    validation.validate(experiment)
    experiment = resolving.resolve(experiment)
    console = Console(highlight=False, soft_wrap=True)
    folder = Path(given.out or claims.root() / "results")
    results = {}
    for i, what in enumerate(whats):
        if what not in _ELSEWHERE and (i == 0 or whats[i - 1] in _ELSEWHERE):
            console.print(xla.configure(experiment))
        console.print(f"{what}:")
        results[what] = _measure(what, experiment, given, argv, console.print)
        for line in _said(results[what]):
            console.print(f"  {line}", markup=False)
    # At the end, since to name the device starts the backend, which fixes XLA's flags.
    for what, result in results.items():
        path = folder / f"bench_{what}_{_name(experiment)}.json"
        fingerprint = config.fingerprint(experiment)
        turns.write({**result, "fingerprint": fingerprint}, path, _command(argv, what))
    return 0


def _checked(given: Any) -> list[str]:
    """What is to be measured, in the order in which it can be."""
    for what in given.what:
        if what not in (*WHATS, "all"):
            raise unknown("value of --what", what, (*WHATS, "all"))
    for peer in given.against:
        if peer not in step.PEERS:
            raise unknown("peer", peer, step.PEERS)
    everything = "all" in given.what
    return [w for w in WHATS if w in given.what or (everything and w not in _LONG)]


def _measure(
    what: str,
    experiment: Experiment,
    given: flags.FlagValues,
    argv: Sequence[str],
    told: Callable[[str], object],
) -> Result:
    dataset: Dataset | None = None
    if given.noise:
        dataset = synthetic.dataset(experiment.data, 8 * experiment.data.batch_size)
    common: dict[str, Any] = {"rounds": given.rounds, "told": told}
    if what == "step":
        return step.measure(
            experiment,
            given.against,
            seconds=given.seconds,
            torch_python=given.torch_python,
            **common,
        )
    arguments = [a for a in argv[1:] if a.startswith("--config")]
    if what == "start":
        return start.measure(arguments, **common)
    if what == "to_accuracy":
        return to_accuracy.measure(experiment, arguments, torch_python=given.torch_python, **common)
    if what == "latency":
        return latency.measure(experiment, calls=given.calls, dataset=dataset)
    common["dataset"] = dataset
    if what == "input":
        return passes.measure_input(experiment, batches=given.steps, **common)
    if what == "end_to_end":
        return whole_run.measure(experiment, steps=given.steps, **common)
    return passes.measure_evaluation(experiment, **common)


def _said(result: Result) -> list[str]:
    """A result in lines for people."""
    asked = "" if result["target"] is None else f" (asked {result['target']:g})"
    lines = [f"{result['claim']}: {result['metric']} {result['median']:.4g}{asked}"]
    for name, ratio in result.get("ratios", {}).items():
        lines.append(
            f"{ratio['minimum']:.3f} times the speed of {step.PEERS[name][1]} by the minimum of "
            f"times, {ratio['median']:.3f} by the median of rounds, {ratio['cpu']:.3f} by the "
            "least processor time"
        )
    if "milliseconds" in result and result["metric"] == "ms":
        spread = ", ".join(f"{name} {ms:.2f}" for name, ms in result["milliseconds"].items())
        lines.append(f"milliseconds: {spread}")
    return lines


def _name(experiment: Experiment) -> str:
    """Of the result; a precision other than the usual is another result."""
    dtype = experiment.train.compute_dtype
    return experiment.name + (f"_{dtype}" if dtype != "float32" else "")


def _command(argv: Sequence[str], what: str) -> str:
    """What measures this again, without where things lie on this machine."""
    own = ("--what", "--torch_python", "--out", "--config.data.root")
    rest = [a for a in argv[1:] if not a.startswith(own)]
    return " ".join(["python -m imgrec.bench", *rest, f"--what={what}"])


def _define_flags(flag_values: flags.FlagValues) -> None:
    def define(kind: Any, name: str, default: Any, text: str, **options: Any) -> None:
        kind(name, default, text, flag_values=flag_values, **options)

    whats = ", ".join(WHATS)
    define(flags.DEFINE_list, "what", ["step"], f"{whats}; several with commas, or all")
    define(flags.DEFINE_multi_string, "against", [], "torch or flax, of step; repeat it for both")
    define(flags.DEFINE_integer, "rounds", 8, "turns of each contestant", lower_bound=1)
    define(flags.DEFINE_float, "seconds", 1.0, "of a turn of step, about", lower_bound=0.0)
    define(flags.DEFINE_integer, "steps", 12, "of a turn of input or end_to_end", lower_bound=1)
    define(flags.DEFINE_integer, "calls", 300, "of latency", lower_bound=1)
    define(flags.DEFINE_bool, "noise", False, "random images instead of the data set's files")
    define(flags.DEFINE_string, "torch_python", sys.executable, "interpreter that has PyTorch")
    define(flags.DEFINE_string, "out", "", "folder of the results; by default results/")


if __name__ == "__main__":
    cli.run(main)
