"""One run as a process: its exit code, its log, stopping it, and whether it has come to its end."""

import json
import signal
import sys
import threading
import time

import pytest

from imgrec.launching import Run, training_run
from imgrec.launching.runs import Launch, execute, is_finished

# Saves when it is asked to, as imgrec.main does, and says when it can be asked.
SAVES = """
import pathlib, signal, sys, time
def stop(*_):
    pathlib.Path("saved").write_text("x")
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
pathlib.Path("ready").write_text("x")
time.sleep(60)
"""


def python(tmp_path, code: str, name: str = "run") -> Run:
    return Run(name, tmp_path / name, (sys.executable, "-c", code), tmp_path)


def finish(folder, *, total: int = 40, steps: tuple[int, ...] = (20, 40)) -> None:
    (folder / "evaluation" / "test").mkdir(parents=True)
    (folder / "evaluation" / "test" / "metrics.json").write_text(json.dumps({"total_steps": total}))
    for step in steps:
        (folder / "checkpoints" / "latest" / str(step)).mkdir(parents=True)


def wait_for(path) -> None:
    until = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < until, f"{path} never came"
        time.sleep(0.01)


def test_a_command_line_of_imgrec_main(tmp_path):
    run = training_run("a", tmp_path / "a", "c.py:x", ["--config.seed=1"])

    assert run.command[1:] == (
        *("-m", "imgrec.main", "--config=c.py:x", "--config.seed=1"),
        f"--workdir={tmp_path}/a",
    )


def test_an_outcome_has_exit_code_and_time_and_the_log_is_appended_to(tmp_path):
    log = tmp_path / "logs" / "run.log"
    done = execute(python(tmp_path, "print('one')"), log)
    failed = execute(python(tmp_path, "import sys; print('two'); sys.exit(3)"), log)

    assert (done.exit_code, done.status, done.error, done.launches) == (0, "done", "", 1)
    assert (failed.exit_code, failed.status, failed.error) == (3, "failed", "two")
    assert log.read_text() == "one\ntwo\n"
    assert done.seconds > 0


def test_the_error_of_a_run_is_its_own_words_where_it_has_some(tmp_path):
    said = "print('a'); print('error: no such data'); print('  give another'); raise SystemExit(2)"
    traceback = "print('b' * 9); raise RuntimeError('broken')"

    assert (
        execute(python(tmp_path, said), tmp_path / "1").error
        == "error: no such data\n  give another"
    )
    assert execute(python(tmp_path, traceback), tmp_path / "2").error.endswith(
        "RuntimeError: broken"
    )


def test_a_program_that_is_not_there_is_a_failure_and_no_exception(tmp_path):
    outcome = execute(Run("x", tmp_path / "x", ("/no/such/python",), tmp_path), tmp_path / "log")

    assert outcome.status == "failed"
    assert "/no/such/python" in outcome.error


def test_stop_lets_it_save(tmp_path):
    launch = Launch(python(tmp_path, SAVES), tmp_path / "log")
    wait_for(tmp_path / "ready")
    launch.stop()

    assert (tmp_path / "saved").exists()
    assert launch.wait().status == "stopped"
    launch.stop()  # of one that has ended does nothing


def test_an_interrupt_is_passed_on_once_and_waited_for(tmp_path):
    def interrupt():
        wait_for(tmp_path / "ready")
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        execute(python(tmp_path, SAVES), tmp_path / "log")
    thread.join()

    assert (tmp_path / "saved").exists()


def test_a_second_interrupt_kills(tmp_path):
    deaf = (
        "import pathlib, signal, time; signal.signal(signal.SIGTERM, lambda *_: "
        "pathlib.Path('asked').write_text('x')); pathlib.Path('ready').write_text('x')\n"
        "for _ in range(60): time.sleep(1)"  # a signal ends one sleep, not all of them
    )
    launches = []

    def interrupt():
        for sign in ("ready", "asked"):
            wait_for(tmp_path / sign)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        execute(python(tmp_path, deaf), tmp_path / "log", launches.append)
    thread.join()

    assert launches[0].wait().exit_code == -signal.SIGKILL


def test_the_warning_signal_of_slurm_ends_no_run(tmp_path):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGUSR2); print('alive')"

    assert execute(python(tmp_path, code), tmp_path / "log").exit_code == 0


def test_finished_is_tested_at_the_end_of_its_checkpoints(tmp_path):
    finish(tmp_path / "whole")
    finish(tmp_path / "thinned", steps=())  # checkpoints cleared away
    finish(tmp_path / "longer", steps=(40, 60))  # gone on with, and stopped
    finish(tmp_path / "anew", steps=(20,))
    (tmp_path / "broken" / "evaluation" / "test").mkdir(parents=True)
    (tmp_path / "broken" / "evaluation" / "test" / "metrics.json").write_text("{")

    told = {path.name: is_finished(path) for path in tmp_path.iterdir()}
    assert told == {
        "whole": True,
        "thinned": True,
        "longer": False,
        "anew": False,
        "broken": False,
    }
    assert not is_finished(tmp_path / "nowhere")


def test_a_finished_run_is_not_started(tmp_path):
    finish(tmp_path / "run")
    outcome = execute(python(tmp_path, "raise SystemExit(1)"), tmp_path / "log")

    assert (outcome.status, outcome.launches) == ("done before", 0)
    assert not (tmp_path / "log").exists()
