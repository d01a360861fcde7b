"""The SLURM engine by submitit's own local executor: the same pickles, signals and requeueing.

What is left out is SLURM itself: its commands are replaced by what they would say.
"""

import json
import os
import signal
import sys
import time

import pytest

from imgrec import launching
from imgrec.errors import UserError
from imgrec.launching import Run, on_slurm

submitit = pytest.importorskip("submitit")


@pytest.fixture
def cluster(monkeypatch):
    """Jobs are processes here, and all that were not yet seen to end are in the queue."""
    jobs = {}

    def executor(logs, options):
        made = submitit.LocalExecutor(logs / "slurm")
        submit = made.map_array

        def map_array(*args):
            found = submit(*args)
            jobs.update({job.job_id: job for job in found})
            return found

        made.map_array = map_array
        made.update_parameters(timeout_min=1)
        return made

    def queued():
        running = {id for id, job in jobs.items() if job._process.poll() is None}
        return running

    monkeypatch.setattr(on_slurm, "_executor", executor)
    monkeypatch.setattr(on_slurm, "_queued", queued)
    monkeypatch.setattr(on_slurm, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    yield jobs
    for job in jobs.values():
        job.cancel()
        job._process.wait()


def python(tmp_path, name: str, code: str) -> Run:
    return Run(name, tmp_path / name, (sys.executable, "-c", code), tmp_path)


def run_all(tmp_path, runs, **kwargs):
    return launching.run_all(runs, "slurm", logs=tmp_path / "logs", **kwargs)


def test_each_run_is_a_job_with_an_outcome_of_its_own(tmp_path, cluster):
    runs = [
        python(tmp_path, "a", "print('a')"),
        python(tmp_path, "b", "print('error: no'); raise SystemExit(2)"),
    ]
    said = []
    outcomes = run_all(tmp_path, runs, said=said.append)

    assert [(o.exit_code, o.error) for o in outcomes] == [(0, ""), (2, "error: no")]
    assert (tmp_path / "logs" / "a.log").read_text() == "a\n"
    assert "submitted 2 to SLURM" in said[0]
    noted = json.loads((tmp_path / "logs" / "slurm" / "jobs.json").read_text())
    assert sorted(noted) == ["a", "b"] and set(noted.values()) == set(cluster)


def test_before_its_time_is_up_a_run_saves_and_the_job_goes_on(tmp_path, cluster, monkeypatch):
    code = (
        "import os, pathlib, signal, sys, time\n"
        "def stop(*_):\n"
        "    pathlib.Path('saved').write_text('x')\n"
        "    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "if pathlib.Path('saved').exists(): sys.exit(0)\n"
        "pathlib.Path('part').write_text(str(os.getppid()))\n"
        "pathlib.Path('part').rename('ready')\n"
        "time.sleep(60)\n"
    )
    interrupted = []

    def queued():
        if (tmp_path / "ready").exists() and not interrupted:
            # As SLURM signals the tasks of a job.
            interrupted.append(int((tmp_path / "ready").read_text()))
            os.kill(interrupted[0], signal.SIGUSR2)
        return set(cluster)

    monkeypatch.setattr(on_slurm, "_queued", queued)
    (outcome,) = run_all(tmp_path, [python(tmp_path, "a", code)])

    assert interrupted and (tmp_path / "saved").exists()
    assert outcome.exit_code == 0


def test_a_job_that_vanished_is_lost_and_the_others_are_waited_for(tmp_path, cluster):
    killed = python(tmp_path, "killed", "import os, signal; os.kill(os.getppid(), signal.SIGKILL)")
    lost, fine = run_all(tmp_path, [killed, python(tmp_path, "fine", "pass")])

    assert (lost.exit_code, lost.status) == (None, "failed")
    assert fine.status == "done"


def test_who_stops_waiting_finds_the_jobs_again(tmp_path, cluster, monkeypatch):
    code = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.02)"
    runs = [python(tmp_path, "a", code)]

    def interrupted(seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(time, "sleep", interrupted)
        said = []
        with pytest.raises(KeyboardInterrupt):
            run_all(tmp_path, runs, said=said.append)
        assert "SLURM goes on with them" in said[-1] and "scancel" in said[-1]

    # submitit would look for this job with SLURM's commands.
    def found(folder, id):
        (tmp_path / "go").write_text("x")
        return cluster[id]

    monkeypatch.setattr(submitit, "SlurmJob", found)
    said = []
    (outcome,) = run_all(tmp_path, runs, said=said.append)

    assert outcome.status == "done"
    assert len(cluster) == 1
    assert "waiting for 1 that SLURM has already" in said[0]


def test_without_an_answer_of_squeue_nothing_is_submitted_twice(tmp_path, cluster, monkeypatch):
    notes = tmp_path / "logs" / "slurm" / "jobs.json"
    notes.parent.mkdir(parents=True)
    notes.write_text(json.dumps({"a": "12_0"}))
    monkeypatch.setattr(on_slurm, "_queued", lambda: None)

    with pytest.raises(UserError, match="squeue gives no answer"):
        run_all(tmp_path, [python(tmp_path, "a", "pass")])
    assert not cluster


def test_options_are_those_of_sbatch(cluster):
    launching.check("slurm", {"partition": "gpu", "time": 600, "gpus_per_node": 1})
    with pytest.raises(UserError, match=r"'partitoin'\. Did you mean 'partition'"):
        launching.check("slurm", {"partitoin": "gpu"})
    with pytest.raises(UserError, match=r"one task, so nodes .*train\.sbatch"):
        launching.check("slurm", {"nodes": 2})


def test_what_is_submitted_asks_slurm_to_requeue(tmp_path, monkeypatch):
    """The real executor, up to the text that sbatch would be given."""
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    executor = on_slurm._executor(tmp_path, {"partition": "gpu", "time": 90})
    text = executor._make_submission_file_text("true", "x")

    for line in ("--requeue", "--partition=gpu", "--time=90", "--signal=USR2@90"):
        assert f"#SBATCH {line}\n" in text
    assert executor.max_num_timeout >= 1000


def test_squeue_names_array_elements_and_its_silence_is_not_emptiness(tmp_path, monkeypatch):
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\nprintf '12_0\\n12_1\\n7\\n'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert on_slurm._queued() == {"12_0", "12_1", "7"}

    squeue.write_text("#!/bin/sh\nexit 1\n")
    assert on_slurm._queued() is None
