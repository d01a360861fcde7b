"""python -m imgrec.ablate --study=configs/studies/NAME.py: what each change is worth, over seeds.

A study is a base experiment, named changes of it and seeds; each change is trained once a seed,
through an engine that exists: one run after the other here, as an array job of SLURM, or as tasks
of Ray. The same command goes on where it was left. The table is written into the study's folder
whenever a run ends, charts and a page at the end. Exit codes: 0 all are done, 1 some failed (the
others ran all the same), 2 bad input, 75 stopped (run the same command to go on).
"""

import dataclasses
import json
import os
import pprint
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from absl import flags
from rich.console import Console

from imgrec import ablation, claims, cli, config, launching
from imgrec.ablation import Rate, Study, StudyRun, estimate, seals, summary
from imgrec.ablation.estimate import Estimate
from imgrec.config import Experiment
from imgrec.console import EXIT_STOPPED, create, interruptible
from imgrec.errors import UserError
from imgrec.files import write_bytes, write_text
from imgrec.launching import Outcome, Run, engine_flags, runs, together
from imgrec.reporting import study_page, study_text
from imgrec.reporting.columns import aligned
from imgrec.reporting.units import duration, quantity
from imgrec.training import resolving

_USAGE = """usage: python -m imgrec.ablate --study=FILE[:SCALE] [FLAGS]

  --study: a Python file whose get_study(scale='') returns an imgrec.ablation.Study
"""


@dataclass(frozen=True)
class Planned:
    """A study with all that is known of it before it is run."""

    study: Study
    name: str
    folder: Path
    runs: Sequence[StudyRun]
    command: str


def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit code."""
    given = flags.FlagValues()
    _define_flags(given)
    if cli.HELP & set(argv):
        print(_USAGE + cli.flag_help(given))
        return 0
    if rest := cli.read_flags(given, argv):
        raise UserError(f"Arguments without a flag: {' '.join(rest)}. See --help.")
    # What is done here is counting, and the devices are for the runs.
    jax.config.update("jax_platforms", "cpu")
    if given.data_root:
        os.environ["IMGREC_DATA"] = str(Path(given.data_root).expanduser().absolute())
    options = engine_flags.options(given.engine_options)
    launching.check(given.engine, options)
    planned = _planned(argv, given)
    stated = Rate(given.rate, "as stated") if given.rate else None
    console = create()
    expected = estimate.estimate(planned.study, planned.runs, stated)
    if given.plan:
        _show_plan(planned, expected, console)
        return 0
    if given.engine == "local":
        for row, why in expected.unknown.items():
            raise UserError(f"The change {row!r}: {why}")
    console.print(_told(planned, expected), markup=False)
    with interruptible(), together.alone(planned.folder, "study"):
        for aside in seals.put_aside(planned.folder, planned.runs, given.again):
            console.print(f"kept as {aside}", markup=False)
        return _run(planned, given.engine, options, given.results, console)


def _planned(argv: Sequence[str], given: flags.FlagValues) -> Planned:
    """The study of a command line, refused where anything of it cannot be meant."""
    if not given.study:
        raise UserError(
            "No study given. Name a file, as in --study=configs/studies/residual.py:cpu; there "
            f"are: {', '.join(sorted(map(str, Path().glob('configs/studies/*.py')))) or 'none'}."
        )
    study = cli.load(given.study, "get_study", Study, kind="study", others="configs/studies/*.py")
    if given.seeds:
        study = dataclasses.replace(study, seeds=_seeds(given.seeds))
    ablation.check(study)
    path, _, scale = given.study.partition(":")
    name = Path(path).stem + (f"_{scale}" if scale else "")
    base, _ = cli.parse(["", f"--config={Path(path).parent / study.base}"], lambda flags: None)
    folder = Path(given.workdir or Path("runs") / "studies" / name)
    found = ablation.resolve(study, base, name=name, folder=folder)
    together.check(folder)
    default = resolving.resolve(Experiment())
    for run in found:
        if run.name not in given.again:
            together.check_begun(run.folder, resolving.resolve(run.experiment), default)
    seals.check(folder, found, given.again)
    command = shlex.join(["python", "-m", "imgrec.ablate", *argv[1:]])
    return Planned(study, name, folder, found, command)


def _seeds(texts: Sequence[str]) -> tuple[int, ...]:
    if bad := [text for text in texts if not text.strip().isdigit()]:
        raise UserError(f"--seeds: {bad[0]!r} is no seed; expected numbers, as in --seeds=0,1,2.")
    return tuple(int(text) for text in texts)


def _run(
    planned: Planned,
    engine: str,
    options: Mapping[str, Any],
    results: str,
    console: Console,
) -> int:
    outcomes: dict[str, Outcome] = {}

    def write() -> dict[str, Any]:
        seals.seal(planned.folder, planned.runs)
        found = summary.summarise(planned.study, planned.name, planned.runs, outcomes)
        _write_texts(found, planned)
        return found

    def ended(outcome: Outcome) -> None:
        outcomes[outcome.name] = outcome
        told = f"{len(outcomes)}/{len(planned.runs)} {outcome.name}: {outcome.status}"
        if outcome.status == "failed":
            console.print(told, f"(exit code {outcome.exit_code})", markup=False)
            console.print(outcome.error or "it wrote nothing", markup=False)
        elif outcome.status != "done before":
            console.print(told, f"({outcome.seconds:.0f} s)", markup=False)
        write()

    stopped = False
    launches = [_launch(planned, run) for run in planned.runs]
    write()
    try:
        launching.run_all(
            launches,
            engine,
            logs=planned.folder / "logs",
            options=options,
            said=lambda line: console.print(line, markup=False),
            ended=ended,
        )
    except KeyboardInterrupt:
        stopped = True
    found = write()
    _write_page(found, planned)
    _show(found, planned, console)
    if stopped or any(outcome.status == "stopped" for outcome in outcomes.values()):
        console.print(f"Stopped. The same command goes on:\n  {planned.command}", markup=False)
        return EXIT_STOPPED
    if failed := study_text.missing(found):
        print(
            f"error: {len(failed)} of {len(planned.runs)} runs failed ({failed[0][0]}"
            f"{', ...' if len(failed) > 1 else ''}). What they wrote is in "
            f"{planned.folder / 'logs'}; the same command tries them again, and leaves the others "
            "as they are.",
            file=sys.stderr,
        )
        return 1
    if results:
        for path in _claim(found, planned, Path(results)):
            console.print(f"{path}", markup=False)
    return 0


def _launch(planned: Planned, run: StudyRun) -> Run:
    """A run as the front door's command on a configuration of its own, written into the folder."""
    path = planned.folder / "configs" / f"{run.name}.py"
    experiment = pprint.pformat(config.to_dict(run.experiment), sort_dicts=False, width=99)
    write_text(path, _CONFIG.format(run=run.name, study=planned.name, experiment=experiment))
    return launching.training_run(run.name, run.folder, str(path.absolute()))


_CONFIG = '''"""{run} of the study {study}, as imgrec.ablate wrote it."""

from imgrec import config

EXPERIMENT = {experiment}


def get_config() -> config.Experiment:
    """The experiment of this run."""
    return config.from_dict(EXPERIMENT)
'''


def _write_texts(found: Mapping[str, Any], planned: Planned) -> None:
    """All there is to say of a study, whenever one of its runs ends."""
    folder = planned.folder
    record = {"command": planned.command, **found}
    write_text(folder / "study.json", json.dumps(record, indent=2) + "\n")
    write_text(folder / "study.md", study_text.render_markdown(found, planned.command))
    write_text(folder / "study.csv", study_text.rows_csv(found))
    write_text(folder / "runs.csv", study_text.runs_csv(found))


def _write_page(found: Mapping[str, Any], planned: Planned) -> None:
    """The page, and its charts as files of their own."""
    page, pictures = study_page.render(found, planned.command)
    write_text(planned.folder / "study.html", page)
    for picture in pictures:
        write_bytes(planned.folder / picture.name, picture.content)


def _claim(found: Mapping[str, Any], planned: Planned, results: Path) -> list[Path]:
    """Records a finished study among the results: the base's runs as a claim, with the table."""
    rows = found["rows"]
    base = [run.folder for run in planned.runs if run.change == planned.study.base_name]
    command = shlex.join(["python", "-m", "imgrec.ablate", *_lasting(planned.command)])
    claim = claims.of_runs(
        base, claim=found["question"], target=None, command=f"{command} --data_root=FOLDER"
    )
    result = {
        **claim,
        "metric": f"{study_text.metric_name(found['metric'])} of {rows[0]['name']}",
        "value": rows[0]["mean"],
        "values": rows[0]["values"],
        "mean": rows[0]["mean"],
        "study": {name: value for name, value in found.items() if name != "question"},
    }
    path = results / f"study_{planned.name}.json"
    claims.write(path, result)
    write_text(path.with_suffix(".md"), study_text.render_markdown(found, result["command"]))
    return [path, path.with_suffix(".md")]


def _lasting(command: str) -> list[str]:
    """The arguments of a command without those that are one machine's own."""
    own = ("--data_root", "--workdir", "--results", "--engine", "--rate", "--again")
    kept = [a for a in shlex.split(command)[3:] if not a.startswith(own)]
    return [*kept, "--results=results"]


def _show(found: Mapping[str, Any], planned: Planned, console: Console) -> None:
    header, rows = study_text.table(found)
    for line in ["", *aligned([header, *rows]), ""]:
        console.print(line, markup=False)
    for note in (study_text.about_published(found), *found["notes"]):
        if note:
            console.print(note, markup=False)
    names = ("study.md", "study.csv", "study.html")
    console.print(", ".join(str(planned.folder / name) for name in names), markup=False)


def _told(planned: Planned, expected: Estimate) -> str:
    """In a line, what there is to do."""
    left = [run for run in planned.runs if not runs.is_finished(run.folder)]
    said = f"{planned.name}: {len(planned.runs)} runs in {planned.folder}, {len(left)} to run"
    seconds = [expected.seconds[run.change] for run in left if run.change in expected.seconds]
    if left and len(seconds) == len(left):
        said += f", about {duration(sum(seconds))} (by {expected.rate})"
    return said


def _show_plan(planned: Planned, expected: Estimate, console: Console) -> None:
    console.print(f"{planned.study.question}\n", markup=False)
    rows = [["run", "configuration", "status", "steps", "parameters", "FLOP to train", "time"]]
    total = 0.0
    for run in planned.runs:
        cost = expected.costs.get(run.change)
        done = runs.is_finished(run.folder)
        begun = "begun" if (run.folder / "config.json").exists() else "to run"
        total += cost.flops if cost and not done else 0.0
        counted = ["–"] * 3
        if cost:
            counted = [f"{cost.steps:,}", quantity(cost.parameters, "").strip()]
            counted.append(quantity(cost.flops, "FLOP"))
        seconds = duration(expected.seconds.get(run.change))
        status = "finished" if done else begun
        rows.append([run.name, run.fingerprint, status, *counted, seconds])
    for line in aligned(rows):
        console.print(line, markup=False)
    for row, why in expected.unknown.items():
        console.print(f"cost of {row} is not known: {why}", markup=False)
    console.print(f"\n{_told(planned, expected)}", markup=False)
    console.print(
        f"To train: {quantity(total, 'FLOP')}, three forward passes of every batch."
        + ("" if expected.rate else " --rate=1e11 (FLOP/s) would say how long that takes."),
        markup=False,
    )
    console.print(f"metric: {study_text.metric_name(planned.study.metric)}; nothing was trained.")


def _define_flags(flag_values: flags.FlagValues) -> None:
    flags.DEFINE_string("study", "", "the study, FILE[:SCALE]", flag_values=flag_values)
    engine_flags.define(flag_values)
    flags.DEFINE_string(
        "workdir", "", "a folder for the runs; by default runs/studies/NAME[_SCALE]",
        flag_values=flag_values,
    )  # fmt: skip
    flags.DEFINE_bool("plan", False, "say what would be run, and stop", flag_values=flag_values)
    flags.DEFINE_list(
        "seeds", [], "in place of the study's own: 0,1,2,3,4", flag_values=flag_values
    )
    flags.DEFINE_float(
        "rate", 0.0, "operations a second (FLOP/s) to estimate times by", flag_values=flag_values
    )
    flags.DEFINE_string(
        "data_root",
        "",
        "the folder of official data files, as $IMGREC_DATA",
        flag_values=flag_values,
    )
    flags.DEFINE_list(
        "again",
        [],
        "names of finished runs to train anew; the old are kept",
        flag_values=flag_values,
    )
    flags.DEFINE_string(
        "results", "", "a folder that study_NAME.json and .md are written to when all is done",
        flag_values=flag_values,
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
