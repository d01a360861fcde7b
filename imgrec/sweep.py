"""python -m imgrec.sweep --config=CONFIG --sweep='FIELD=VALUE,VALUE' ...: one run for each value.

Every combination of the values is trained in a folder of its own, by an engine that exists: one
after the other here, as an array job of SLURM, or as tasks of Ray. The same command goes on where
it was left. `sweep.json` and `sweep.csv` have a row for each run. Exit codes: 0 all are done, 1
some failed (the others ran all the same), 2 bad input, 75 stopped (run the same command to go on).
"""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console

from imgrec import cli, config, launching, validation
from imgrec.config import Experiment
from imgrec.console import EXIT_STOPPED, create, interruptible
from imgrec.errors import UserError
from imgrec.files import write_text
from imgrec.launching import Outcome, Run, engine_flags, grid, results, runs, together
from imgrec.training import resolving

_USAGE = """usage: python -m imgrec.sweep --config=FILE[:ARG] --sweep='FIELD=VALUE,VALUE' [FLAGS]

  --config: as of imgrec.main, and so is --config.FIELD=VALUE, which sets a field of all runs
"""


@dataclass(frozen=True)
class Point:
    """One combination of values: what is run for it, and where."""

    values: dict[str, Any]
    experiment: Experiment
    run: Run


def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit code."""
    argv = list(argv)
    if cli.HELP & set(argv):
        shown = flags.FlagValues()
        _define_flags(shown)
        print(_USAGE + cli.flag_help(shown))
        return 0
    base, given = cli.parse(argv, _define_flags)
    options = engine_flags.options(given.engine_options)
    launching.check(given.engine, options)
    folder = Path(given.workdir or Path("runs") / f"{base.name}_sweep")
    points = _points(argv, given.sweep, folder)
    together.check(folder)
    default = resolving.resolve(Experiment())
    for point in points:
        together.check_begun(point.run.folder, point.experiment, default)
    console = create()
    console.print(
        f"{len(points)} runs in {folder}: " + " x ".join(_described(points)), markup=False
    )
    if given.plan:
        for point in points:
            told = "finished" if runs.is_finished(point.run.folder) else "to run"
            console.print(f"{point.run.name}: {told}\n  {shlex.join(point.run.command)}")
        return 0
    with interruptible(), together.alone(folder, "sweep"):
        return _sweep(points, folder, given.engine, options, argv, console)


def _sweep(
    points: Sequence[Point],
    folder: Path,
    engine: str,
    options: Mapping[str, Any],
    argv: Sequence[str],
    console: Console,
) -> int:
    command = shlex.join(["python", "-m", "imgrec.sweep", *argv[1:]])
    outcomes: dict[str, Outcome] = {}

    def rows() -> list[dict[str, Any]]:
        return [
            results.row(point.values, point.run.folder, outcomes.get(point.run.name))
            for point in points
        ]

    def write() -> None:
        found = rows()
        record = {"command": command, "engine": engine, "runs": found}
        write_text(folder / "sweep.json", json.dumps(record, indent=2) + "\n")
        write_text(folder / "sweep.csv", results.as_csv(found))

    def ended(outcome: Outcome) -> None:
        outcomes[outcome.name] = outcome
        told = f"{len(outcomes)}/{len(points)} {outcome.name}: {outcome.status}"
        accuracy = results.measured(outcome.folder).get("test_accuracy")
        if outcome.status == "failed":
            console.print(told, f"(exit code {outcome.exit_code})", markup=False)
            console.print(outcome.error or "it wrote nothing", markup=False)
        else:
            told += f", test accuracy {accuracy:.4f}" if accuracy is not None else ""
            console.print(told, f"({outcome.seconds:.0f} s)", markup=False)
        write()

    stopped = False
    write()
    try:
        launching.run_all(
            [point.run for point in points],
            engine,
            logs=folder / "logs",
            options=options,
            said=lambda line: console.print(line, markup=False),
            ended=ended,
        )
    except KeyboardInterrupt:
        stopped = True
    write()
    console.print(results.as_table(found := rows()))
    if (best := results.best(found)) is not None:
        console.print(
            f"best by validation: {best['name']} ({best['validation_accuracy']:.4f}); on the test "
            f"split it has {best['test_accuracy']:.4f}",
            markup=False,
        )
    console.print(f"{folder / 'sweep.json'}, {folder / 'sweep.csv'}", markup=False)
    if stopped or any(outcome.status == "stopped" for outcome in outcomes.values()):
        console.print(f"Stopped. The same command goes on:\n  {command}", markup=False)
        return EXIT_STOPPED
    failed = [outcome.name for outcome in outcomes.values() if outcome.status == "failed"]
    if failed:
        print(
            f"error: {len(failed)} of {len(points)} runs failed ({', '.join(failed[:5])}). What "
            f"they wrote is in {folder / 'logs'}; the same command tries them again, and leaves "
            "the others as they are.",
            file=sys.stderr,
        )
        return 1
    return 0


def _points(argv: Sequence[str], specs: Sequence[str], folder: Path) -> list[Point]:
    """All combinations, each checked as imgrec.main would check it.

    Raises:
      UserError: a field that is not one, or is set beside; a value of a wrong type, that is not
        possible, or that is there twice by another spelling.
    """
    axes = grid.parse(specs)
    own = _own_arguments(argv)
    for axis in axes:
        if any(argument.partition("=")[0] in _spellings(axis.field) for argument in own):
            raise UserError(
                f"{axis.field} is swept, and --config.{axis.field} is given too. Leave out one."
            )
    points: dict[str, Point] = {}
    spec = next(a.split("=", 1)[1] for a in own if a.startswith("--config="))
    overrides = [argument for argument in own if not argument.startswith("--config=")]
    for texts in grid.points(axes):
        arguments = [
            *overrides,
            *(f"--config.{field}={grid.unquoted(text)}" for field, text in texts.items()),
        ]
        experiment, _ = cli.parse([argv[0], f"--config={spec}", *arguments], lambda flags: None)
        validation.validate(experiment)
        experiment = resolving.resolve(experiment)
        values = {field: _value(experiment, field) for field in texts}
        name = grid.name(values)
        if name in points:
            raise UserError(
                f"{', '.join(f'{f}={t}' for f, t in texts.items())} is there twice: two spellings "
                "of one value."
            )
        run = launching.training_run(name, folder / name, spec, arguments)
        points[name] = Point(values, experiment, run)
    return list(points.values())


def _own_arguments(argv: Sequence[str]) -> list[str]:
    """The arguments that set the experiment, each in one piece: "--config.seed=1"."""
    found, rest = [], list(argv[1:])
    while rest:
        argument = rest.pop(0)
        name = argument.partition("=")[0].lstrip("-")
        if name != "config" and not name.removeprefix("no").startswith("config."):
            continue
        if "=" not in argument and rest and not rest[0].startswith("-"):
            argument = f"{argument}={rest.pop(0)}"
        found.append("--" + argument.lstrip("-"))
    return found


def _spellings(field: str) -> tuple[str, str]:
    return f"--config.{field}", f"--noconfig.{field}"


def _value(experiment: Experiment, field: str) -> Any:
    """The value of a dotted field as a plain JSON value."""
    value: Any = config.to_dict(experiment)
    for part in field.split("."):
        value = value[part]
    return value


def _described(points: Sequence[Point]) -> list[str]:
    fields = points[0].values
    return [
        f"{field} {', '.join(dict.fromkeys(str(point.values[field]) for point in points))}"
        for field in fields
    ]


def _define_flags(flag_values: flags.FlagValues) -> None:
    flags.DEFINE_multi_string(
        "sweep", [], "a field and its values: 'optimizer.learning_rate=0.1,0.03'; give one for "
        "each field", flag_values=flag_values,
    )  # fmt: skip
    engine_flags.define(flag_values)
    flags.DEFINE_string(
        "workdir", "", "a folder for the runs; by default runs/<config name>_sweep",
        flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_bool("plan", False, "say what would be run, and stop", flag_values=flag_values)


if __name__ == "__main__":
    cli.run(main)
