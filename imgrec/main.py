"""python -m imgrec.main --config=configs/digits_lenet.py: train, evaluating as it goes.

Resolves the configuration, plans, trains in the run folder (or resumes there) and evaluates
the chosen parameters once on the test split. Exit codes: 0 done, 2 bad input, 75 stopped by
a signal with a checkpoint saved (run the same command to go on), 1 anything else.
"""

import errno
import json
import os
import sys
from pathlib import Path

from absl import flags
from jax.errors import JaxRuntimeError
from rich.console import Console

from imgrec import cli, config, validation
from imgrec.config import Experiment
from imgrec.console import bar, interruptible
from imgrec.data.pipeline import WorkerDiedError
from imgrec.errors import UserError
from imgrec.training import (
    cluster,
    compilation_cache,
    distributed,
    dry_run,
    exhaustion,
    goodput,
    heads,
    input_spec,
    loop,
    memory,
    profiling,
    resolving,
    run_folder,
    sameness,
    xla,
)
from imgrec.training.clock import Clock
from imgrec.training.cluster import Job
from imgrec.training.plan import plan
from imgrec.training.signals import EXIT_STOPPED
from imgrec.training.window import DivergenceError
from imgrec.transfer.heads import TRAINED


def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit code."""
    clock = Clock()
    experiment, given = cli.parse(argv, _define_flags)
    job = cluster.find(
        os.environ,
        coordinator=given.coordinator,
        processes=given.processes,
        process=given.process,
    )
    with distributed.joined(job, start_timeout=given.start_timeout, lost_after=given.lost_after):
        return _run(experiment, given, job, clock)


def _run(experiment: Experiment, flag_values: flags.FlagValues, job: Job, clock: Clock) -> int:
    validation.validate(experiment)
    limit, simulated = _planned_for(flag_values)
    experiment = resolving.resolve(experiment)
    folder = Path(flag_values.workdir or Path("runs") / experiment.name)
    console = Console(highlight=False, soft_wrap=True, quiet=job.process > 0)
    console.print(f"config {experiment.name}, fingerprint {config.fingerprint(experiment)}")
    console.print(json.dumps(config.to_dict(experiment), indent=2), markup=False)
    if experiment.classifier.name:
        return _run_classical(experiment, flag_values, folder, job, console)
    console.print(xla.configure(experiment, job.processes))
    console.print(compilation_cache.configure(), markup=False)
    console.print(f"processes: {job.processes}, {job.found}", markup=False)
    sameness.check(experiment)
    planned = plan(experiment)
    sameness.check_data(planned.dataset, resident=planned.resident)
    profiled = profiling.parse(flag_values.profile, planned.total_steps)
    if profiled and experiment.head.name != TRAINED:
        raise UserError(
            f"--profile traces steps, and config.head.name={experiment.head.name!r} makes none."
        )
    if flag_values.dry_run:
        picture = folder.with_name(f"{folder.name}.dry_run.png")
        dry_run.report(planned, picture, console, limit=limit, simulated=bool(simulated))
        return 0

    said: list[str] = []
    if job.process == 0:
        said = run_folder.open_folder(
            folder,
            experiment,
            allow_change=flag_values.allow_config_change,
            needs_bytes=(experiment.checkpoint.keep + 2) * planned.state_bytes,
            record=planned.dataset.info.record,
        )
        input_spec.write(input_spec.of(experiment, planned.dataset.info), folder)
    sameness.check_folder(folder)
    console.print(dry_run.parameter_table(planned), markup=False)
    for line in (*dry_run.describe(planned), *said):
        console.print(line, markup=False)
    clock.add("start-up", clock.seconds()["total"])
    try:
        if experiment.head.name == TRAINED:
            with profiling.tracing(folder, profiled, console.print) as observe:
                outcome = loop.train(planned, folder, console, clock=clock, observe=observe)
        else:
            outcome = heads.fit(planned, folder, console)
    except DivergenceError as error:
        print(f"error: {error} {' '.join(error.__notes__)}", file=sys.stderr)
        return 1
    except JaxRuntimeError as error:
        if not exhaustion.is_exhausted(error):
            raise
        print("error: " + "\n".join(exhaustion.explain(error, planned, folder)), file=sys.stderr)
        return 1
    except WorkerDiedError as error:
        print(f"error: {error} The same command goes on from {folder}.", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(
            f"error: {error}. What was saved before is whole; free some space, and the same "
            "command goes on from there.",
            file=sys.stderr,
        )
        return 1
    _print_seconds(outcome.seconds, console)
    if job.process == 0:
        for line in goodput.of_launch(
            folder,
            outcome.seconds,
            outcome.steps,
            experiment.train.compute_dtype,
            planned.mesh.devices.size,
        ):
            console.print(line, markup=False)
    if outcome.test is None:
        console.print(
            f"Stopped by {outcome.stopped_by} at step {outcome.step} of {planned.total_steps}; "
            f"everything is saved in {folder}. The same command goes on from there."
        )
        return EXIT_STOPPED
    console.print(
        f"test accuracy {outcome.test['accuracy']:.4f} (loss {outcome.test['loss']:.4f}, "
        f"n {outcome.test['n']:,}, parameters of step {outcome.evaluated_step}); "
        f"all results in {folder}"
    )
    return 0


def _run_classical(
    experiment: Experiment, given: flags.FlagValues, folder: Path, job: Job, console: Console
) -> int:
    """Features and a classifier on them, in a process alone."""
    from imgrec.classical import fitting, planning  # which wait for what networks do not need

    for flag in ("profile", "memory_limit", "simulate"):
        if given[flag].value:
            raise UserError(
                f"--{flag} is about training steps, and config.classifier.name="
                f"{experiment.classifier.name!r} makes none."
            )
    if job.processes > 1:
        raise UserError(
            f"A classical classifier is fitted in one process, and this is one of {job.processes} "
            f"({job.found}). Start it once, with IMGREC_PROCESSES=1."
        )
    console.print(compilation_cache.configure(), markup=False)
    planned = planning.plan_classical(experiment)
    for line in planned.describe():
        console.print(line, markup=False)
    if given.dry_run:
        console.print("Nothing was fitted.")
        return 0
    info = planned.dataset.info
    said = run_folder.open_folder(
        folder,
        planned.experiment,
        allow_change=given.allow_config_change,
        needs_bytes=planned.needs,
        record=info.record,
    )
    input_spec.write(input_spec.of(planned.experiment, info), folder)
    for line in said:
        console.print(line, markup=False)
    with interruptible():
        try:
            with bar(console) as shown:
                outcome = fitting.fit(planned, folder, console, shown)
        except KeyboardInterrupt:
            console.print(
                f"Stopped; features and classifiers that were done are in {folder}, and the same "
                "command goes on with them."
            )
            return EXIT_STOPPED
    _print_seconds(outcome.seconds, console)
    assert outcome.test is not None
    console.print(
        f"test accuracy {outcome.test['accuracy']:.4f} (loss {outcome.test['loss']:.4f}, "
        f"n {outcome.test['n']:,}); all results in {folder}"
    )
    return 0


def _planned_for(flag_values: flags.FlagValues) -> tuple[int | None, int]:
    """Memory of a device in bytes, and number of devices, that a dry run is to suppose."""
    text, devices = flag_values.memory_limit, flag_values.simulate
    for name, given in (("--memory_limit", text), ("--simulate", devices)):
        if given and not flag_values.dry_run:
            raise UserError(f"{name}={given} is for planning; add --dry_run, or leave it out.")
    if devices:
        dry_run.simulate(devices)
    return (memory.parse_size(text, "--memory_limit") if text else None), devices


def _define_flags(flag_values: flags.FlagValues) -> None:
    cluster.define_flags(flag_values)
    flags.DEFINE_string(
        "workdir", "", "the run folder; by default runs/<config name>", flag_values=flag_values
    )
    flags.DEFINE_bool(
        "dry_run", False, "show what would be done and cost, and stop", flag_values=flag_values
    )
    flags.DEFINE_string(
        "memory_limit",
        "",
        "what a device is to have in a dry run, as in 40GB; by default what those here have",
        flag_values=flag_values,
    )
    flags.DEFINE_integer(
        "simulate", 0, "a dry run for so many devices, whatever is here", flag_values=flag_values
    )
    flags.DEFINE_string(
        "profile",
        "",
        "steps to trace into the run folder's profile/, as in 100:105",
        flag_values=flag_values,
    )
    flags.DEFINE_bool(
        "allow_config_change",
        False,
        "go on in a run folder whose saved configuration differs",
        flag_values=flag_values,
    )


def _print_seconds(seconds: dict[str, float], console: Console) -> None:
    parts = [f"{name} {spent:.1f}" for name, spent in seconds.items() if name != "total"]
    console.print(f"seconds: {', '.join(parts)}; total {seconds['total']:.1f}")


if __name__ == "__main__":
    cli.run(main)
