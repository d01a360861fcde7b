"""The verb: which runs a command line means, what is refused, what is left behind, going on."""

import csv
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imgrec import config, launching, sweep
from imgrec.errors import UserError
from imgrec.launching import Run
from imgrec.training import resolving

CONFIG = """
from imgrec.config import *

def get_config(arg=""):
    return Experiment(
        data=DataConfig(dataset="digits", batch_size=32, validation="96"),
        train=TrainConfig(duration="4st"),
        eval=EvalConfig(every="1000st"),
        checkpoint=CheckpointConfig(every="1000st"),
        log=LogConfig(every="2st", tensorboard=False),
        model=ModelConfig(name="resnet8"),
    )
"""

# Stands in for imgrec.main: what a finished run leaves; it fails at a learning rate of 9.
STAND_IN = """
import json, pathlib, re, sys
line = " ".join(sys.argv)
folder = pathlib.Path(re.search(r"--workdir=(.*)", line)[1])
rate = float(re.search(r"learning_rate=([^ ]*)", line)[1])
if rate == 9:
    sys.exit("error: the loss is nan")
(folder / "evaluation" / "test").mkdir(parents=True)
metrics = {"step": 4, "total_steps": 4, "accuracy": 1 - rate, "loss": rate, "n": 359}
(folder / "evaluation" / "test" / "metrics.json").write_text(json.dumps(metrics))
(folder / "metrics.jsonl").write_text(json.dumps({"step": 4, "validation/accuracy": rate}))
"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    """A sweep in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.py").write_text(CONFIG)

    def run(*arguments: str) -> int:
        return sweep.main(["sweep", "--config=tiny.py", *arguments])

    return run


@pytest.fixture
def stand_in(monkeypatch):
    def training_run(name, folder, spec, overrides):
        cwd = Path.cwd()
        line = (sys.executable, "-c", STAND_IN, *overrides, f"--workdir={cwd / folder}")
        return Run(name, cwd / folder, line, cwd)

    monkeypatch.setattr(launching, "training_run", training_run)


def test_every_combination_is_run_and_the_same_command_goes_on(command, stand_in, capsys):
    arguments = ["--sweep=optimizer.learning_rate=0.1,9,0.2", "--sweep=seed=0,1"]
    assert command(*arguments) == 1
    said = capsys.readouterr()
    assert "6 runs in runs/tiny_sweep: optimizer.learning_rate 0.1, 9.0, 0.2 x seed 0, 1" in (
        said.out
    )
    assert "error: the loss is nan" in said.out
    assert "2 of 6 runs failed (learning_rate=9,seed=0, learning_rate=9,seed=1)" in said.err
    # The best by validation has the worst test accuracy of those that came to an end.
    assert (
        "best by validation: learning_rate=0.2,seed=0 (0.2000); on the test split it has 0.8"
        in (said.out)
    )

    saved = json.loads(Path("runs/tiny_sweep/sweep.json").read_text())
    assert [(r["values"]["seed"], r["status"], r["test_accuracy"]) for r in saved["runs"]] == [
        (0, "done", 0.9),
        (1, "done", 0.9),
        (0, "failed", None),
        (1, "failed", None),
        (0, "done", 0.8),
        (1, "done", 0.8),
    ]
    with Path("runs/tiny_sweep/sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["optimizer.learning_rate"] for row in rows[::2]] == ["0.1", "9.0", "0.2"]
    assert rows[2]["error"] == "error: the loss is nan"
    assert Path("runs/tiny_sweep/learning_rate=0.1,seed=0/evaluation").is_dir()

    assert command("--sweep=seed=1,0,2", "--sweep=optimizer.learning_rate=0.2,0.10") == 0
    statuses = json.loads(Path("runs/tiny_sweep/sweep.json").read_text())["runs"]
    assert [run["status"] for run in statuses] == ["done before"] * 4 + ["done"] * 2


def test_a_plan_starts_nothing(command, capsys):
    assert command("--sweep=seed=0,1", "--config.train.ema=0.9", "--plan") == 0
    said = capsys.readouterr().out

    assert said.count("to run") == 2
    assert "--config=tiny.py --config.train.ema=0.9 --config.seed=1" in said
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "No field to sweep"),
        (["--sweep=sed=0,1"], r"Unknown field config\.sed\. Did you mean config\.seed"),
        (["--sweep=optimizer=a"], r"config\.optimizer is a section"),
        (["--sweep=optimizer.learning_rate=0.1,1e-1"], "there twice: two spellings"),
        (["--sweep=optimizer.learning_rate=fast"], "expected float"),
        (["--sweep=seed=0,-1"], r"config\.seed=-1 is impossible"),
        (["--sweep=seed=0,1", "--config.seed=2"], "seed is swept"),
        (["--sweep=seed=0,1", "--config.seed", "2"], "seed is swept"),
        (["--sweep=seed=0", "--engine=slrum"], r"Did you mean 'slurm'"),
        (["--sweep=seed=0", "--engine_options=a=1"], "'local' takes no options"),
        (["--sweep=seed=0", "--engine_options=gpu"], "expected NAME=VALUE"),
        (["--sweep=seed=0", "--swep=1"], "Did you mean --sweep"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_made(command, arguments, said):
    with pytest.raises(UserError, match=said):
        command(*arguments)
    assert sorted(path.name for path in Path().iterdir()) == ["tiny.py"]


def test_a_folder_of_another_experiment_is_refused_before_any_run(command, stand_in):
    folder = Path("runs/tiny_sweep/learning_rate=0.2")
    folder.mkdir(parents=True)
    experiment = resolving.resolve(config.Experiment(name="tiny"))
    saved = {"experiment": config.to_dict(experiment)}
    (folder / "config.json").write_text(json.dumps(saved))

    with pytest.raises(UserError, match=r"(?s)another configuration.*train.duration: .* -> '4st'"):
        command("--sweep=optimizer.learning_rate=0.1,0.2")
    assert not Path("runs/tiny_sweep/learning_rate=0.1").exists()
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        command("--sweep=optimizer.learning_rate=0.1,0.2")


def test_a_run_folder_and_a_sweep_at_work_are_left_alone(command, stand_in):
    rate = "--sweep=optimizer.learning_rate=0.1"
    Path("run").mkdir()
    Path("run/config.json").write_text("{}")
    with pytest.raises(UserError, match="the folder of a single run"):
        command(rate, "--workdir=run")

    Path("busy").mkdir()
    with Path("busy/.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="Another sweep is at work in busy"):
            command(rate, "--workdir=busy")
    assert command(rate, "--workdir=busy") == 0


def test_help_names_the_verb_and_its_flags(capsys):
    assert sweep.main(["sweep", "--help"]) == 0
    said = capsys.readouterr().out
    assert "python -m imgrec.sweep" in said
    assert all(f"--{flag}: " in said for flag in ("sweep", "engine", "engine_options", "plan"))


@pytest.mark.slow
def test_a_real_run_is_stopped_by_a_signal_and_gone_on_with(tmp_path):
    """As a user does it: an interrupt while the run trains, the same command again."""
    (tmp_path / "tiny.py").write_text(CONFIG.replace("4st", "200000st"))
    line = [sys.executable, "-m", "imgrec.sweep", "--config=tiny.py", "--sweep=seed=7"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(
        line, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    folder = tmp_path / "runs" / "tiny_sweep"
    metrics = folder / "seed=7" / "metrics.jsonl"
    until = time.monotonic() + 120
    while not metrics.exists() or not metrics.read_text():
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)

    assert process.returncode == 75, said
    assert "asked to save and stop" in said and "The same command goes on" in said
    assert list((folder / "seed=7" / "checkpoints" / "latest").iterdir())
    step = int(re.search(r"at step (\d+) of", (folder / "logs" / "seed=7.log").read_text())[1])

    # The same experiment but for its length, so that the test ends: as if it were the last step.
    saved = folder / "seed=7" / "config.json"
    saved.write_text(saved.read_text().replace("200000st", f"{step + 2}st"))
    (tmp_path / "tiny.py").write_text(CONFIG.replace("4st", f"{step + 2}st"))
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Resumed {folder}/seed=7 at step {step}" in (folder / "logs/seed=7.log").read_text()
    (run,) = json.loads((folder / "sweep.json").read_text())["runs"]
    assert (run["status"], run["n"]) == ("done", 359)
