"""Runs as one array job of SLURM, a task each, through submitit.

SLURM queues them, requeues them when it preempts one or when its time is up (the run saves
first), and goes on when whoever submitted them has gone. Which job has which run is noted in the
folder of logs, so that the same command waits for jobs that are still there instead of
submitting them twice.
"""

import getpass
import importlib.util
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from imgrec.errors import UserError, unknown
from imgrec.files import write_text
from imgrec.launching.runs import Launch, Outcome, Run, execute

DEFAULTS: dict[str, Any] = {"time": 60, "job_name": "imgrec"}
"""Minutes, after which a run saves and queues again; sbatch's other options are the cluster's."""

_OURS = ("nodes", "ntasks_per_node")  # one task a run
_MOST_TIMEOUTS = 1000  # a run may take as many turns of `time` as it needs
_POLL_SECONDS = 5.0


class Task:
    """What a task of the array does; submitit calls `checkpoint` when SLURM is about to end it."""

    def __init__(self) -> None:
        """Nothing runs yet, which is also the state that submitit may pickle."""
        self._launch: Launch | None = None

    def __call__(self, run: Run, log: Path) -> Outcome:
        """Runs it in this task."""
        return execute(run, log, self._started)

    def checkpoint(self, run: Run, log: Path) -> Any:
        """Has the run save and stop, and asks for the same again: submitit requeues the job."""
        from submitit.helpers import DelayedSubmission

        if self._launch is not None:
            self._launch.stop()
        # `scontrol requeue`, which follows, is among the processes that requeueing ends.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return DelayedSubmission(Task(), run, log)

    def _started(self, launch: Launch) -> None:
        self._launch = launch


def check(options: Mapping[str, Any]) -> None:
    """Refuses what cannot work, before anything is submitted.

    Raises:
      UserError: submitit or SLURM's commands are not there, or an option is not sbatch's.
    """
    if importlib.util.find_spec("submitit") is None:
        raise UserError(
            "The engine 'slurm' needs submitit: pip install 'imgrec[slurm]'. Without it, "
            "--engine=local runs one after the other here."
        )
    if lacking := [name for name in ("sbatch", "squeue", "srun") if shutil.which(name) is None]:
        raise UserError(
            f"The engine 'slurm' needs SLURM's commands, and {', '.join(lacking)} cannot be found. "
            "Start this on a login node of the cluster, or with --engine=local."
        )
    if ours := [name for name in _OURS if name in options]:
        raise UserError(
            f"The engine 'slurm' gives each run one task, so {ours[0]} cannot be set. A run over "
            "several nodes is launched by scripts/launch/train.sbatch."
        )
    known = _known_options()
    for name in options:
        if name not in known:
            raise unknown("option of the engine 'slurm'", name, known)


def launch(
    runs: Sequence[Run], logs: Path, options: Mapping[str, Any], said: Callable[[str], None]
) -> Iterator[Outcome]:
    """Submits runs whose job is not there yet, and gives outcomes as jobs end."""
    waiting = _jobs_still_there(runs, logs)
    if waiting:
        said(f"waiting for {len(waiting)} that SLURM has already: {_listed(waiting)}")
    fresh = [run for run in runs if run.name not in waiting]
    if fresh:
        submitted = _submit(fresh, logs, options)
        said(f"submitted {len(submitted)} to SLURM: {_listed(submitted)}")
        waiting |= submitted
    try:
        yield from _outcomes({run.name: run for run in runs}, waiting)
    except KeyboardInterrupt:
        ids = " ".join(sorted({job.job_id.split("_")[0] for job in waiting.values()}))
        said(f"SLURM goes on with them: the same command waits again; scancel {ids} ends them.")
        raise


def _outcomes(runs: Mapping[str, Run], waiting: dict[str, Any]) -> Iterator[Outcome]:
    """Outcomes as jobs end; `waiting` keeps those that have not.

    Args:
      runs: by name.
      waiting: jobs by the run's name.
    """
    missing: set[str] = set()
    while waiting:
        queued = _queued()
        for name, job in list(waiting.items()):
            outcome = _outcome(runs[name], job)
            # A task that is ended while it requeues itself may leave an error, and runs again.
            again = queued is not None and job.job_id in queued
            if outcome is not None and not (outcome.exit_code is None and again):
                del waiting[name]
                yield outcome
            elif queued is not None and not again:
                # Not in the queue twice in a row: a result may take a while to show on a shared
                # file system.
                if name in missing:
                    del waiting[name]
                    yield _lost(runs[name], job)
                missing.add(name)
            else:
                missing.discard(name)
        if waiting:
            time.sleep(_POLL_SECONDS)


def _submit(runs: Sequence[Run], logs: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    executor = _executor(logs, options)
    try:
        jobs = executor.map_array(Task(), runs, [logs / f"{run.name}.log" for run in runs])
    except Exception as error:  # sbatch's own words are in submitit's exception
        raise UserError(f"SLURM did not take the jobs: {error}") from error
    submitted = {run.name: job for run, job in zip(runs, jobs, strict=True)}
    noted = _noted(logs) | {name: job.job_id for name, job in submitted.items()}
    write_text(_notes(logs), json.dumps(noted, indent=2) + "\n")
    return submitted


def _executor(logs: Path, options: Mapping[str, Any]) -> Any:
    import submitit

    executor = submitit.SlurmExecutor(logs / "slurm", max_num_timeout=_MOST_TIMEOUTS)
    extra = {"requeue": True}  # where a node is lost, too
    executor.update_parameters(**{**DEFAULTS, **options, "additional_parameters": extra})
    return executor


def _known_options() -> list[str]:
    import submitit

    return sorted(submitit.SlurmExecutor._valid_parameters() - {*_OURS, "additional_parameters"})


def _jobs_still_there(runs: Sequence[Run], logs: Path) -> dict[str, Any]:
    """Jobs of an earlier command that SLURM still has, by the run's name."""
    noted = {name: id for name, id in _noted(logs).items() if name in {run.name for run in runs}}
    if not noted:
        return {}
    import submitit

    queued = _queued()
    if queued is None:
        raise UserError(
            "squeue gives no answer, so that it is not known which of these runs SLURM has "
            "already. Try again when `squeue` works."
        )
    return {
        name: submitit.SlurmJob(logs / "slurm", id) for name, id in noted.items() if id in queued
    }


def _notes(logs: Path) -> Path:
    return logs / "slurm" / "jobs.json"


def _noted(logs: Path) -> dict[str, str]:
    """Ids of jobs by the run's name."""
    return json.loads(_notes(logs).read_text()) if _notes(logs).exists() else {}


def _queued() -> set[str] | None:
    """Ids of all jobs of this user that wait or run, array elements each; None if not known.

    squeue and not sacct, since not every cluster keeps accounts.
    """
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--user={getpass.getuser()}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return set(done.stdout.split())


def _outcome(run: Run, job: Any) -> Outcome | None:
    """What the job's task left behind, None where that is nothing yet."""
    if not job.paths.result_pickle.exists():
        return None
    try:
        return job.result()
    except Exception as error:  # whatever the task met outside of the run itself
        return Outcome(run.name, run.folder, None, error=f"{job.paths.stderr}: {error}")


def _lost(run: Run, job: Any) -> Outcome:
    stderr = job.paths.stderr
    lines = stderr.read_text(errors="replace").splitlines()[-5:] if stderr.exists() else []
    told = "\n".join([f"SLURM's job {job.job_id} ended without an outcome ({stderr}).", *lines])
    return Outcome(run.name, run.folder, None, error=told)


def _listed(jobs: Mapping[str, Any]) -> str:
    ids = [job.job_id for job in jobs.values()]
    return ", ".join(ids[:3]) + (f" ... {ids[-1]}" if len(ids) > 3 else "")
