"""python -m imgrec.bench --config=FILE --what=step: how fast things are, here and beside others.

Prints what it measures and writes it, with facts about the machine, to
`results/bench_WHAT_CONFIG.json`. Speeds of contestants are compared only within one run, in
which they take turns. Exit codes: 0 done, 2 bad input.
"""

import sys
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console

from imgrec import cli, config, validation
from imgrec.benchmarking import step, turns
from imgrec.config import Experiment
from imgrec.errors import unknown


def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit code."""
    experiment, given = cli.parse(argv, _define_flags)
    validation.validate(experiment)
    for peer in given.against:
        if peer not in step.PEERS:
            raise unknown("peer", peer, step.PEERS)
    console = Console(highlight=False, soft_wrap=True)
    command = "python -m imgrec.bench " + " ".join(
        a for a in argv[1:] if not a.startswith(("--torch_python", "--out"))
    )
    result = _step(experiment, given, console)
    path = Path(given.out) / f"bench_step_{_name(experiment)}.json"
    turns.write({**result, "fingerprint": config.fingerprint(experiment)}, path, command)
    console.print(f"{path} written")
    return 0


def _step(experiment: Experiment, given: flags.FlagValues, console: Console) -> dict[str, Any]:
    found = step.measure(
        experiment,
        given.against,
        rounds=given.rounds,
        seconds=given.seconds,
        torch_python=given.torch_python,
    )
    for name, rate in found["images_per_second"].items():
        console.print(f"{name}: {rate:,.0f} images/s in its best turn")
    for name, ratio in found["ratios"].items():
        console.print(
            f"{ratio['minimum']:.3f} times the speed of {step.PEERS[name][1]} by the minimum of "
            f"times, {ratio['median']:.3f} by the median of rounds, {ratio['cpu']:.3f} by the "
            "least processor time"
        )
    return step.as_result(found)


def _name(experiment: Experiment) -> str:
    """Of the result; a precision other than the usual is another result."""
    dtype = experiment.train.compute_dtype
    return experiment.name + (f"_{dtype}" if dtype != "float32" else "")


def _define_flags(flag_values: flags.FlagValues) -> None:
    def define(kind: Any, name: str, default: Any, text: str) -> None:
        kind(name, default, text, flag_values=flag_values)

    define(flags.DEFINE_list, "what", ["step"], "step")
    define(flags.DEFINE_multi_string, "against", [], "torch or flax; repeat it for both")
    define(flags.DEFINE_integer, "rounds", 10, "turns of each contestant")
    define(flags.DEFINE_float, "seconds", 1.0, "of a turn, about")
    define(flags.DEFINE_string, "torch_python", sys.executable, "interpreter that has PyTorch")
    define(flags.DEFINE_string, "out", "results", "folder of the result")


if __name__ == "__main__":
    cli.run(main)
