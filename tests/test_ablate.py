"""The verb: what is run, what is refused, what is left behind, going on."""

import csv
import dataclasses
import fcntl
import json
import runpy
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from imgrec import ablate, ablation, config, launching
from imgrec.ablation import estimate, seals
from imgrec.ablation.estimate import Estimate
from imgrec.errors import UserError
from imgrec.evaluation import predictions
from imgrec.evaluation.predictions import Predictions
from imgrec.launching import Run
from imgrec.reporting import study_page
from imgrec.training import resolving

RENDER, COUNTED = study_page.render, estimate.estimate

BASE = """
from imgrec.config import *

def get_config(arg=""):
    return Experiment(
        data=DataConfig(dataset="digits", batch_size=32, validation="96"),
        train=TrainConfig(duration="4st"),
        model=ModelConfig(name="resnet8"),
    )
"""

STUDY = """
from imgrec.ablation import Change, Study

def get_study(scale=""):
    assert scale in ("", "small")
    return Study(
        question="Does it matter?",
        base="base.py",
        changes=(Change("plain", {"model.name": "plain8"}), Change("ema", {"train.ema": 0.9})),
        seeds=(0, 1, 2),
    )
"""

# Stands in for imgrec.main: copies what a finished run leaves. It fails where a file says so,
# and waits to be interrupted where another does.
STAND_IN = """
import pathlib, shutil, signal, sys, time
made, folder = map(pathlib.Path, sys.argv[1:])
if pathlib.Path("fail").exists() and folder.name in pathlib.Path("fail").read_text():
    sys.exit("error: the loss is nan")
if pathlib.Path("wait").exists() and folder.name in pathlib.Path("wait").read_text():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    pathlib.Path("waits").write_text("")
    time.sleep(60)
with open("started", "a") as file:
    print(folder.name, file=file)
shutil.copytree(made, folder, dirs_exist_ok=True)
"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    """A study in a folder of its own, whose runs are stood in for."""
    monkeypatch.chdir(tmp_path)
    Path("base.py").write_text(BASE)
    Path("mine.py").write_text(STUDY)

    def training_run(name, folder, spec):
        experiment = resolving.resolve(runpy.run_path(spec)["get_config"]())
        made = tmp_path / "made" / name
        write_run(made, experiment)
        line = (sys.executable, "-c", STAND_IN, str(made), str(folder))
        return Run(name, Path.cwd() / folder, line)

    monkeypatch.setattr(launching, "training_run", training_run)
    # Charts and counting take most of the time, and have tests that look at them.
    monkeypatch.setattr(study_page, "render", lambda *_: ("", []))
    monkeypatch.setattr(estimate, "estimate", lambda *_: Estimate({}, {}, {}, ""))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda *arguments: ablate.main(["ablate", "--study=mine.py", *arguments])
    signal.signal(signal.SIGINT, before)


def write_run(folder: Path, experiment: config.Experiment) -> None:
    """As training leaves it; the network with averaged parameters is right more often."""
    right = 70 + 10 * (experiment.train.ema > 0) + experiment.seed
    labels = (np.arange(100) % 3).astype(np.int32)
    logits = np.eye(3, dtype=np.float32)[(labels + (np.arange(100) >= right)) % 3]
    said = Predictions(np.arange(100), labels, logits)
    beside = {"step": 4, "total_steps": 4}
    predictions.write_report(folder / "evaluation" / "test", said, ["a", "b", "c"], beside)
    files = {
        "config.json": {
            "experiment": config.to_dict(experiment),
            "fingerprint": config.fingerprint(experiment),
        },
        "cost.json": {"flops": 1e9, "parameters": 75_002},
        "seconds.json": {"total": 2.0},
        "launches.jsonl": {
            "processor": "CPU",
            "cores": 2,
            "backend": "cpu",
            "packages": {"jax": "0"},
            "git_revision": "0123456789" * 4,
            "git_dirty": False,
            "xla_flags": "",
        },
        "metrics.jsonl": {"step": 4, "train/loss": 1.0, "time/images_per_second": 10.0},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content) + "\n")


def started() -> list[str]:
    found = Path("started").read_text().split()
    Path("started").unlink()
    return found


def test_all_are_run_and_a_failed_one_is_told_and_tried_again(command, capsys, monkeypatch):
    monkeypatch.setattr(study_page, "render", RENDER)
    Path("fail").write_text("plain_seed1")
    assert command("--results=results") == 1
    said = capsys.readouterr()
    assert "5/9 plain_seed1: failed (exit code 1)" in said.out
    assert "error: the loss is nan" in said.out
    assert "1 of 9 runs failed (plain, seed 1)" in said.err
    assert len(started()) == 8
    assert not Path("results").exists()

    Path("fail").unlink()
    assert command("--results=results") == 0
    assert started() == ["plain_seed1"]
    folder = Path("runs/studies/mine")
    found = json.loads((folder / "study.json").read_text())
    base, plain, ema = found["rows"]
    assert base["values"] == plain["values"] == [0.70, 0.71, 0.72]
    assert ema["difference"]["difference"] == pytest.approx(0.1)
    assert (plain["difference"]["difference"], plain["difference"]["p_t"]) == (0.0, 1.0)
    rows = list(csv.DictReader((folder / "study.csv").read_text().splitlines()))
    assert [row["change"] for row in rows] == ["base", "plain", "ema"]
    assert "+10.00 \\[+10.00, +10.00\\]" in (folder / "study.md").read_text()
    assert (folder / "study.html").stat().st_size > 10_000
    for name in ("effects.svg", "pareto_flops.svg", "pareto_time.svg"):
        assert (folder / name).read_bytes().startswith(b"<?xml")

    claim = json.loads(Path("results/study_mine.json").read_text())
    assert (claim["metric"], claim["values"]) == ("test accuracy of base", [0.70, 0.71, 0.72])
    assert claim["study"]["rows"][2]["mean"] == pytest.approx(0.81)
    assert claim["command"] == (
        "python -m imgrec.ablate --study=mine.py --results=results --data_root=FOLDER"
    )
    assert Path("results/study_mine.md").read_text().startswith("# mine\n")

    assert command() == 0
    assert not Path("started").exists()


def test_a_run_is_what_its_own_configuration_says(command):
    command("--seeds=5")
    path = Path("runs/studies/mine/configs/ema_seed5.py")
    experiment = runpy.run_path(str(path))["get_config"]()
    assert (experiment.seed, experiment.train.ema, experiment.name) == (5, 0.9, "mine")
    found = json.loads(Path("runs/studies/mine/study.json").read_text())
    fingerprint = config.fingerprint(resolving.resolve(experiment))
    assert found["runs"][2]["fingerprint"] == fingerprint


def test_more_seeds_leave_finished_runs_alone(command):
    assert command("--seeds=0") == 0
    started()
    assert command("--seeds=0,1") == 0
    assert started() == ["base_seed1", "plain_seed1", "ema_seed1"]


def test_an_interrupt_stops_and_the_same_command_goes_on(command, capsys):
    Path("wait").write_text("plain_seed0")

    def interrupt():
        while not Path("waits").exists():
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    assert command("--seeds=0") == 75
    thread.join()
    said = capsys.readouterr().out
    assert "The same command goes on:\n  python -m imgrec.ablate --study=mine.py --seeds=0" in said
    found = json.loads(Path("runs/studies/mine/study.json").read_text())
    assert [run["status"] for run in found["runs"]] == ["done", "not run", "not run"]
    Path("wait").unlink()
    assert command("--seeds=0") == 0
    assert started() == ["base_seed0", "plain_seed0", "ema_seed0"]


def test_a_plan_counts_and_starts_nothing(command, capsys, monkeypatch):
    monkeypatch.setattr(estimate, "estimate", COUNTED)
    assert command("--plan", "--rate=1e9", "--seeds=0") == 0
    said = capsys.readouterr().out
    assert said.count("to run") >= 3 and "about" in said
    assert "1.0 GFLOP/s, as stated" in said
    assert "nothing was trained" in said
    assert not Path("runs").exists()
    # ResNet-8 on 8x8 images: 1.495 MFLOP forward, three times, 4 steps of 32 images.
    assert "574 MFLOP" in said

    assert command("--seeds=0") == 0
    capsys.readouterr()
    assert command("--plan", "--seeds=0,1") == 0
    said = capsys.readouterr().out
    assert said.count("finished  ") == 3
    assert "about 6.0 s (by what 3 finished runs of this study took" in said


def test_a_plan_without_the_data_says_so_and_a_run_refuses(command, capsys, monkeypatch):
    monkeypatch.setattr(estimate, "estimate", COUNTED)
    monkeypatch.setenv("IMGREC_DATA", "")  # is set, and put back
    Path("base.py").write_text(BASE.replace("digits", "cifar10"))
    assert command("--plan", "--data_root=nowhere") == 0
    assert "cost of base is not known" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"The change 'base': .*cifar10"):
        command("--data_root=nowhere")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--study="], "No study given"),
        (["--study=min.py"], r"No study file 'min.py'. Did you mean mine.py"),
        (["--study=mine.py:large"], "does not work: AssertionError"),
        (["--study=base.py"], "defines no get_study"),
        (["--seeds=0,x"], "'x' is no seed"),
        (["--seeds=0,0"], "The seed 0 is there twice"),
        (["--again=plan_seed0"], "run to repeat: 'plan_seed0'. Did you mean 'plain_seed0'"),
        (["--engine=slrum"], "Did you mean 'slurm'"),
        (["--stdy=1"], "Did you mean --study"),
        (["word"], "Arguments without a flag: word"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_made(command, arguments, said):
    with pytest.raises(UserError, match=said):
        command(*arguments)
    assert sorted(path.name for path in Path().iterdir()) == ["base.py", "mine.py"]


def test_a_study_of_another_base_is_refused_by_name(command):
    command("--seeds=0")
    Path("base.py").write_text(BASE.replace("4st", "5st"))
    with pytest.raises(
        UserError, match=r"(?s)base_seed0 was begun.*train.duration: '4st' -> '5st'"
    ):
        command("--seeds=0")


def test_a_second_command_at_work_and_a_single_run_are_left_alone(command):
    Path("busy").mkdir()
    with Path("busy/.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="Another study is at work in busy"):
            command("--workdir=busy")
    Path("busy/config.json").write_text("{}")
    with pytest.raises(UserError, match="the folder of a single run"):
        command("--workdir=busy")


class TestChangedByHand:
    @pytest.fixture
    def run(self, command):
        base = runpy.run_path("base.py")["get_config"]()
        study = dataclasses.replace(runpy.run_path("mine.py")["get_study"](), seeds=(0,))
        folder = Path("runs/studies/mine")
        runs = ablation.resolve(study, base, name="mine", folder=folder)
        for each in runs:
            write_run(each.folder, resolving.resolve(each.experiment))
        seals.seal(folder, runs)
        return folder / "plain_seed0"

    def test_a_result(self, command, run):
        path = run / "evaluation" / "test" / "metrics.json"
        path.write_text(path.read_text().replace('"accuracy": 0.7', '"accuracy": 0.8', 1))
        with pytest.raises(UserError, match=r"plain_seed0: .*accuracy was 0.7, and is 0.8.*npz"):
            command("--seeds=0")

    def test_a_result_that_nobody_had_seen(self, command, run):
        Path("runs/studies/mine/seals.json").unlink()
        path = run / "evaluation" / "test" / "metrics.json"
        path.write_text(path.read_text().replace('"accuracy": 0.7', '"accuracy": 0.8', 1))
        with pytest.raises(UserError, match=r"accuracy is 0.8, and predictions.npz has 0.7"):
            command("--seeds=0")

    def test_the_hash_of_a_configuration(self, command, run):
        saved = json.loads((run / "config.json").read_text())
        saved["fingerprint"] = "0" * 12
        (run / "config.json").write_text(json.dumps(saved))
        with pytest.raises(
            UserError, match=r"plain_seed0: config.json: fingerprint was .* is 0000"
        ):
            command("--seeds=0")
        Path("runs/studies/mine/seals.json").unlink()
        with pytest.raises(UserError, match="its fields have the fingerprint"):
            command("--seeds=0")

    def test_a_run_that_is_gone_is_repeated_when_that_is_asked(self, command, run, capsys):
        shutil.rmtree(run)
        with pytest.raises(UserError, match="plain_seed0: it was finished, and its results are"):
            command("--seeds=0")
        assert command("--seeds=0", "--again=plain_seed0,ema_seed0") == 0
        assert started() == ["plain_seed0", "ema_seed0"]
        assert Path("runs/studies/mine/ema_seed0.before1/config.json").exists()
        assert "kept as runs/studies/mine/ema_seed0.before1" in capsys.readouterr().out

    def test_evaluating_a_run_further_is_no_change(self, command, run):
        path = run / "evaluation" / "test" / "metrics.json"
        more = {**json.loads(path.read_text()), "calibration": {"ece": 0.1}}
        path.write_text(json.dumps(more))
        assert command("--seeds=0") == 0

    def test_notes_that_cannot_be_read_are_told(self, command, run):
        Path("runs/studies/mine/seals.json").write_text("{")
        with pytest.raises(UserError, match=r"seals.json cannot be read"):
            command("--seeds=0")


def test_help_names_the_verb_and_its_flags(capsys):
    assert ablate.main(["ablate", "--help"]) == 0
    said = capsys.readouterr().out
    assert "python -m imgrec.ablate" in said
    for flag in ("study", "plan", "seeds", "rate", "again", "results", "engine", "workdir"):
        assert f"--{flag}: " in said
