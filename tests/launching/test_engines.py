"""What run_all promises, by the local engine; engines that are not there say so."""

import shutil
import signal
import sys
import threading
import time

import pytest

from imgrec import launching
from imgrec.errors import UserError
from imgrec.launching import Run


def python(tmp_path, name: str, code: str) -> Run:
    return Run(name, tmp_path / name, (sys.executable, "-c", code), tmp_path)


def run_all(tmp_path, runs, **kwargs):
    return launching.run_all(runs, logs=tmp_path / "logs", **kwargs)


def test_all_are_run_whatever_becomes_of_each(tmp_path):
    runs = [
        python(tmp_path, "a", "print('fine')"),
        python(tmp_path, "b", "print('error: bad value'); raise SystemExit(2)"),
        python(tmp_path, "c", "import os; os.kill(os.getpid(), 9)"),
        python(tmp_path, "d", "pass"),
    ]
    ended, said = [], []
    outcomes = run_all(tmp_path, runs, ended=ended.append, said=said.append)

    assert [(o.name, o.exit_code, o.status) for o in outcomes] == [
        ("a", 0, "done"),
        ("b", 2, "failed"),
        ("c", -9, "failed"),
        ("d", 0, "done"),
    ]
    assert outcomes[1].error == "error: bad value"
    assert [o.name for o in ended] == ["a", "b", "c", "d"]
    assert (tmp_path / "logs" / "a.log").read_text() == "fine\n"
    assert sum("started" in line for line in said) == 4


def test_one_that_stopped_is_started_again_after_the_others(tmp_path):
    twice = (
        "import pathlib, sys; p = pathlib.Path('times'); n = len(p.read_text()) if p.exists() "
        "else 0; p.write_text('x' * (n + 1)); sys.exit(75 if n < 2 else 0)"
    )
    order = []
    stopped, other = run_all(
        tmp_path,
        [python(tmp_path, "stopped", twice), python(tmp_path, "other", "pass")],
        ended=lambda outcome: order.append(outcome.name),
    )

    assert (stopped.exit_code, stopped.launches) == (0, 3)
    assert other.launches == 1
    assert order == ["other", "stopped"]


def test_one_that_only_ever_stops_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("imgrec.launching.engines._MOST_LAUNCHES", 3)
    (outcome,) = run_all(tmp_path, [python(tmp_path, "a", "raise SystemExit(75)")])

    assert (outcome.status, outcome.launches) == ("stopped", 3)


def test_an_interrupt_ends_the_study_and_the_same_call_goes_on(tmp_path):
    code = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "again = pathlib.Path('ready').exists()\n"
        "pathlib.Path('ready').write_text('x')\n"
        "time.sleep(0 if again else 60)\n"
    )
    runs = [python(tmp_path, "a", code), python(tmp_path, "b", "print('b')")]

    def interrupt():
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    said = []
    with pytest.raises(KeyboardInterrupt):
        run_all(tmp_path, runs, said=said.append)
    thread.join()
    assert "second Ctrl-C" in said[-1]
    assert not (tmp_path / "logs" / "b.log").exists()

    assert [outcome.status for outcome in run_all(tmp_path, runs)] == ["done", "done"]


def test_names_and_folders_differ(tmp_path):
    run = python(tmp_path, "a", "pass")
    with pytest.raises(ValueError, match="a name of its own"):
        run_all(tmp_path, [run, run])
    with pytest.raises(ValueError, match="a folder of its own"):
        run_all(tmp_path, [run, Run("b", run.folder, run.command)])


def test_engines_that_are_not_there_are_refused_in_words(monkeypatch):
    with pytest.raises(UserError, match=r"'slrum'\. Did you mean 'slurm'"):
        launching.check("slrum")
    with pytest.raises(UserError, match="takes no options, and was given partition"):
        launching.check("local", {"partition": "gpu"})
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="sbatch, squeue, srun cannot be found"):
        launching.check("slurm")
    for engine, package in (("slurm", "submitit"), ("ray", "ray")):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(UserError, match=rf"pip install 'imgrec\[{engine}\]'") as error:
            launching.check(engine)
        assert package in str(error.value).lower()
