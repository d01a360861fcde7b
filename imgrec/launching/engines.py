"""Runs of a study, given to an engine: what has to be run, again where it was stopped, and how.

No scheduling is done here. "local" starts one run after the other; who has more machines has
SLURM or Ray on them, which know about queues, devices and lost nodes.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgrec.errors import UserError, unknown
from imgrec.launching import on_ray, on_slurm
from imgrec.launching.runs import EXIT_DONE, EXIT_STOPPED, Launch, Outcome, Run, is_finished

Options = Mapping[str, Any]
Said = Callable[[str], None]

_MOST_LAUNCHES = 20  # of a run that is stopped time and again


@dataclass(frozen=True)
class Engine:
    """Where runs go.

    Attributes:
      check: raises a UserError where it cannot be used, or not with these options.
      launch: runs all, and gives outcomes as they come.
    """

    check: Callable[[Options], None]
    launch: Callable[[Sequence[Run], Path, Options, Said], Iterator[Outcome]]


def run_all(
    runs: Sequence[Run],
    engine: str = "local",
    *,
    logs: Path,
    options: Options | None = None,
    said: Said = lambda line: None,
    ended: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Runs them all, whatever becomes of each.

    A run that is finished already is left as it is, one that fails does not keep the others from
    running, and one that was stopped with its state saved (exit code 75) is started again.

    Args:
      runs: with names of their own and folders of their own.
      engine: one of `ENGINES`.
      logs: folder for what runs write, NAME.log each, and for what the engine keeps.
      options: the engine's own, such as SLURM's partition.
      said: is told what goes on, a line at a time.
      ended: is given each outcome as it comes.

    Returns:
      An outcome for each run, in their order.

    Raises:
      UserError: the engine is unknown, not installed, or does not take the options.
      KeyboardInterrupt: runs on this machine, or of this Ray session, have saved and stopped;
        those given to SLURM go on.
      ValueError: two runs have the same name or folder.
    """
    for kind in ("name", "folder"):
        if len({getattr(run, kind) for run in runs}) < len(runs):
            raise ValueError(f"each run needs a {kind} of its own")
    options, logs = options or {}, logs.absolute()
    check(engine, options)
    outcomes: dict[str, Outcome] = {}

    def keep(outcome: Outcome) -> None:
        before = outcomes.get(outcome.name)
        if before is not None:
            outcome = dataclasses.replace(
                outcome,
                seconds=before.seconds + outcome.seconds,
                launches=before.launches + outcome.launches,
            )
        outcomes[outcome.name] = outcome

    for run in runs:
        if is_finished(run.folder):
            keep(Outcome(run.name, run.folder, EXIT_DONE, launches=0))
            ended(outcomes[run.name])
    pending = [run for run in runs if run.name not in outcomes]
    while pending:
        for outcome in ENGINES[engine].launch(pending, logs, options, said):
            keep(outcome)
            if _goes_on(outcomes[outcome.name]):
                said(f"{outcome.name}: stopped with its state saved; it is started again")
            else:
                ended(outcomes[outcome.name])
        pending = [run for run in pending if _goes_on(outcomes[run.name])]
    return [outcomes[run.name] for run in runs]


def check(engine: str, options: Options | None = None) -> None:
    """Refuses an engine that is not there, or options that it does not take.

    Raises:
      UserError: saying what is known, or how to install it.
    """
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)
    ENGINES[engine].check(options or {})


def _goes_on(outcome: Outcome) -> bool:
    return outcome.exit_code == EXIT_STOPPED and outcome.launches < _MOST_LAUNCHES


def _check_local(options: Options) -> None:
    if options:
        raise UserError(
            f"The engine 'local' takes no options, and was given {', '.join(sorted(options))}. "
            "They are for --engine=slurm or --engine=ray."
        )


def _local(runs: Sequence[Run], logs: Path, options: Options, said: Said) -> Iterator[Outcome]:
    """One after the other: each has the whole machine, as if it were started by hand."""
    del options
    for run in runs:
        log = logs / f"{run.name}.log"
        said(f"{run.name}: started, writes to {log}")
        launch = Launch(run, log)
        try:
            outcome = launch.wait()
        except KeyboardInterrupt:
            said(f"{run.name}: asked to save and stop; a second Ctrl-C does not wait for that")
            launch.stop()
            launch.wait()
            raise
        yield outcome


ENGINES = {
    "local": Engine(_check_local, _local),
    "slurm": Engine(on_slurm.check, on_slurm.launch),
    "ray": Engine(on_ray.check, on_ray.launch),
}
