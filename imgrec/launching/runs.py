"""One run as a command in a process of its own: started, awaited, stopped so that it saves.

Every engine launches runs by what is here, be it on this machine or in a task of a cluster, so
that exit codes, logs and stopping mean the same everywhere.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

EXIT_DONE = 0
EXIT_STOPPED = 75  # as of imgrec.main: everything is saved, and the same command goes on

_POLL_SECONDS = 0.1
_LAST_LINES = 12
_LAST_BYTES = 20_000


@dataclass(frozen=True)
class Run:
    """A command that fills a run folder, and goes on there when it is started again.

    Attributes:
      name: that no other run of the study has; it also names the log.
      folder: of the run.
      command: the program and its arguments.
      cwd: where it starts, by default where this process is.
    """

    name: str
    folder: Path
    command: tuple[str, ...]
    cwd: Path = field(default_factory=Path.cwd)


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
      name: of the run.
      folder: of the run.
      exit_code: of its command, negative for a signal; None where the engine lost it.
      seconds: that its launches took.
      launches: how often it was started; 0 if it was finished before.
      error: the last lines it wrote, or the engine's words, where it failed.
    """

    name: str
    folder: Path
    exit_code: int | None
    seconds: float = 0.0
    launches: int = 1
    error: str = ""

    @property
    def status(self) -> str:
        """In a word: "done", "done before", "stopped" or "failed"."""
        if self.exit_code == EXIT_DONE:
            return "done" if self.launches else "done before"
        return "stopped" if self.exit_code == EXIT_STOPPED else "failed"


def training_run(
    name: str, folder: Path, config: str, overrides: Sequence[str] = (), cwd: Path | None = None
) -> Run:
    """The run of `python -m imgrec.main` on a configuration.

    Args:
      name: of the run.
      folder: its run folder.
      config: "FILE[:ARG]", as --config takes it.
      overrides: such as "--config.seed=1".
      cwd: which relative paths start from; here by default.
    """
    cwd = cwd or Path.cwd()
    arguments = (f"--config={config}", *overrides, f"--workdir={cwd / folder}")
    return Run(name, cwd / folder, (sys.executable, "-m", "imgrec.main", *arguments), cwd)


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder came to its end and was tested there.

    Test metrics of a shorter run that was since gone on with do not count, nor do those that
    lie beside checkpoints of a run that was begun anew.
    """
    try:
        saved = json.loads((folder / "evaluation" / "test" / "metrics.json").read_text())
        total = int(saved["total_steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    latest = (folder / "checkpoints" / "latest").glob("*")
    steps = [int(path.name) for path in latest if path.name.isdigit()]
    return max(steps, default=total) == total


def execute(
    run: Run, log: Path, started: Callable[["Launch"], None] = lambda launch: None
) -> Outcome:
    """Runs it to its end, in a task of a cluster; a finished one is left as it is.

    Args:
      run: what to do.
      log: gets what it writes, after what earlier launches wrote.
      started: is given the launch, for whoever may have to stop it.

    Raises:
      KeyboardInterrupt: this process was interrupted. The run was then asked to save and stop,
        and has done so; a second interrupt does not wait for that.
    """
    if is_finished(run.folder):
        return Outcome(run.name, run.folder, EXIT_DONE, launches=0)
    launch = Launch(run, log)
    started(launch)
    try:
        return launch.wait()
    except BaseException:
        launch.stop()
        launch.wait()
        raise


class Launch:
    """A run under way, in a session of its own: a terminal's Ctrl-C reaches it only through us."""

    def __init__(self, run: Run, log: Path):
        """Starts it.

        Args:
          run: what to do.
          log: gets what it writes, after what earlier launches wrote.
        """
        self._run, self._log = run, log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log_begins = log.stat().st_size if log.exists() else 0
        self._started = time.monotonic()
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                # SLURM sends the signal by which it warns submitit to all processes of a job; it
                # would end a program that does not know of it. What is ignored stays ignored.
                ("/bin/sh", "-c", 'trap "" USR2; exec "$@"', "sh", *run.command),
                cwd=run.cwd,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def wait(self) -> Outcome:
        """Waits for its end."""
        # Not in the kernel, where an interrupt that Ray makes would not be noticed.
        while (code := self._process.poll()) is None:
            time.sleep(_POLL_SECONDS)
        seconds = time.monotonic() - self._started
        failed = code not in (EXIT_DONE, EXIT_STOPPED)
        error = self._last_lines() if failed else ""
        return Outcome(self._run.name, self._run.folder, code, seconds, error=error)

    def stop(self) -> None:
        """Asks it to save and to stop, and waits until it has; an interrupt meanwhile kills it.

        It may be called by a signal handler that came in the midst of `wait`.
        """
        pid = self._process.pid
        try:
            os.kill(pid, signal.SIGTERM)
            # Without taking the exit code from `wait`, and without Popen's lock.
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        except (ProcessLookupError, ChildProcessError):
            return
        except KeyboardInterrupt:
            os.killpg(pid, signal.SIGKILL)
            raise

    def _last_lines(self) -> str:
        with self._log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_begins, end - _LAST_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        lines = [line.rstrip() for line in lines if line.strip()]
        ours = [i for i, line in enumerate(lines) if line.startswith("error: ")]
        return "\n".join(lines[ours[-1] :] if ours else lines[-_LAST_LINES:])
