"""The front door: exit codes, refusals before any work, and that nothing is lost by them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from imgrec import cli, main
from imgrec.errors import UserError
from imgrec.training import loop

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(tmp_path, monkeypatch, tiny_config):
    """Calls the verb as its command line would; the run folder is tmp_path / "run"."""
    # The verb sets XLA_FLAGS, which is read once a process: here it is not to leak.
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))

    def call(*flags: str) -> int:
        return main.main(
            ["main", f"--config={tiny_config}", f"--workdir={tmp_path / 'run'}", *flags],
        )

    return call


def test_it_trains_and_the_second_time_only_reports(run, tmp_path, capsys):
    assert run() == 0
    first = capsys.readouterr().out
    metrics = json.loads((tmp_path / "run" / "evaluation" / "test" / "metrics.json").read_text())
    assert f"test accuracy {metrics['accuracy']:.4f}" in first
    assert '"learning_rate": 0.1' in first and "fingerprint" in first  # the resolved config
    assert "head/kernel" in first  # CLU's parameter overview
    assert re.search(r"seconds: .*\bcompile \d", first)
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["experiment"]["name"] == "tiny"
    assert run() == 0
    assert f"test accuracy {metrics['accuracy']:.4f}" in capsys.readouterr().out


def test_a_head_is_fitted_by_the_same_door(run, tmp_path, capsys):
    assert run("--config.head.name=prototype") == 0
    metrics = json.loads((tmp_path / "run" / "evaluation" / "test" / "metrics.json").read_text())
    said = capsys.readouterr().out
    assert f"test accuracy {metrics['accuracy']:.4f}" in said
    assert "seconds: features" in said
    assert metrics["head"]["name"] == "prototype"
    with pytest.raises(UserError, match="holds a run of another configuration"):
        run("--config.head.name=prototype", "--config.head.options.metric=euclidean")


def test_the_dry_run_trains_nothing(run, tmp_path, capsys):
    assert run("--dry_run") == 0
    printed = capsys.readouterr().out
    for part in (
        "FLOPs",
        "memory on each device",
        "Nothing was trained",
        "head/kernel",
        "steps: 4",
    ):
        assert part in printed
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "run.dry_run.png").stat().st_size > 1000


def test_a_dry_run_plans_for_devices_that_are_not_here(tmp_path, tiny_config):
    command = [sys.executable, "-m", "imgrec.main", f"--config={tiny_config}"]
    command += ["--dry_run", "--simulate=2", "--memory_limit=2.5MB", "--config.mesh.data=2"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "devices: 2 cpu (data 2 x fsdp 1 x tensor 1)" in said
    assert "DOES NOT FIT into 2.5 MB. By the compiler's count these do:" in said
    assert "--config." in said.partition("these do:")[2]


def test_steps_are_traced_into_the_run_folder(run, tmp_path, capsys):
    assert run("--profile=1:3") == 0
    said = capsys.readouterr().out
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))
    assert str(tmp_path / "run" / "profile") in said
    with pytest.raises(UserError, match="ends after the run, which has 4 steps"):
        run("--profile=3:9")


@pytest.mark.parametrize("flag", ["--simulate=2", "--memory_limit=1GB"])
def test_planning_is_for_dry_runs(run, flag):
    with pytest.raises(UserError, match="is for planning; add --dry_run"):
        run(flag)


def test_a_device_without_memory_ends_the_run_and_loses_nothing(run, tmp_path, capsys, monkeypatch):
    """The error is a real one: of an allocation that no machine could make."""
    real = loop.MetricWindow.add
    calls = []

    def add(window, metrics, steps):
        calls.append(steps)
        if len(calls) == 3:
            jax.jit(lambda: jnp.zeros(2**46, jnp.uint8))()
        real(window, metrics, steps)

    monkeypatch.setattr(loop.MetricWindow, "add", add)
    assert run("--config.checkpoint.every=1st") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: a device has no memory left (RESOURCE_EXHAUSTED")
    assert "--config.train.remat=" in error
    remedy = error.partition("--config.train.")[2].partition(":")[0]
    assert run(f"--config.train.{remedy}", "--allow_config_change") == 0
    assert "Resumed" in capsys.readouterr().out


def test_another_configuration_names_the_fields_and_loses_nothing(run, tmp_path, capsys):
    assert run() == 0
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=r"seed: 0 -> 1") as error:
        run("--config.seed=1", "--config.train.duration=6st")
    assert "train.duration: '4st' -> '6st'" in str(error.value)
    assert "--allow_config_change" in str(error.value)
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before
    capsys.readouterr()
    assert run("--config.train.duration=6st", "--allow_config_change") == 0
    printed = capsys.readouterr().out
    assert "Resumed" in printed and "at step 4 of 6" in printed


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--config.data.dataset=digit"], "Unknown data set 'digit'. Did you mean 'digits'"),
        (["--config.model.name=resnet21"], "resnet21"),
        (["--config.model.name=resnetty"], "Unknown model 'resnetty'. Did you mean 'resnet"),
        (["--config.model.options.shortcutt=B"], "Did you mean 'shortcut'"),
        (["--config.optimizer.name=adam"], "Unknown optimizer 'adam'. Did you mean 'adamw'"),
        (["--config.optimizer.options.nestrov=True"], "Did you mean 'nesterov'"),
        (["--config.schedule.name=cosin"], "Did you mean 'cosine'"),
        (["--config.data.dataset=mnist", "--config.data.root=/nowhere"], "train-images-idx3-ubyte"),
        (["--config.mesh.data=8", "--config.data.batch_size=30"], "Nearest that can: 24 or 32"),
        (["--config.mesh.data=9"], "asks for 9 devices"),
        (["--config.train.accumulate=5"], "train.accumulate=5"),
        (["--config.train.duration=3"], "is not a duration"),
        (["--config.train.duration=0.001ep"], "less than one step"),
        (["--config.data.validation=5000"], "5000"),
        (["--config.augment.cutout=9"], "cutout=9 is larger"),
        (["--config.optimizer.freeze=('nothing/.*',)"], "matches none of the"),
        (["--config.model.name=vit_ti3"], "Patches of 3x3 pixels do not tile"),
        (["--config.init.weights=/nowhere"], "is no run folder"),
        (["--config.init.weights=efficientnet_lite"], "Did you mean 'efficientnet_lite"),
        (
            ["--config.init.weights=efficientnet_lite0"],
            "Set --config.model.name=efficientnet_lite0",
        ),
        (["--config.init.weights=weights.pth"], "There is no file weights.pth"),
        (
            [f"--config.init.weights={ROOT / 'README.md'}"],
            "holds no weights: it begins with b'# imgrec",
        ),
        (["--config.task=detection"], "task"),
    ],
)
def test_bad_input_is_refused_before_any_work(run, tmp_path, flags, expected):
    with pytest.raises(UserError) as error:
        run(*flags)
    assert expected in str(error.value)
    assert not (tmp_path / "run").exists()


def test_an_unwritable_run_folder(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        run(f"--workdir={tmp_path / 'file' / 'run'}")


def test_a_folder_that_holds_something_else(run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds no run"):
        run()
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_divergence_ends_with_code_1_and_the_way_back(run, capsys):
    assert run("--config.optimizer.learning_rate=1e30") == 1
    message = capsys.readouterr().err
    assert "at step" in message and "last good checkpoint" in message


def test_a_disk_that_fills_up_is_said_plainly(run, monkeypatch, capsys):
    from imgrec.training.checkpoints import Checkpoints

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(Checkpoints, "save", full)
    assert run() == 1
    message = capsys.readouterr().err
    assert "No space left on device" in message and "same command goes on" in message


def test_a_user_error_is_one_message_and_code_2(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["main", "--config=configs/nothing.py"])
    with pytest.raises(SystemExit) as end:
        cli.run(main.main)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: No config file 'configs/nothing.py'.")


BLOCKED = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec

def find_others(name, *rest):
    absent = name.partition(".")[0] in ("tensorflow", "tensorflow_datasets", "torch")
    return None if absent else find(name, *rest)

PathFinder.find_spec = staticmethod(find_others)

from imgrec import cli, main
cli.run(main.main)
"""


def test_without_tensorflow_tfds_and_torch_training_works(tmp_path, tiny_config):
    command = [sys.executable, "-c", BLOCKED, f"--config={tiny_config}"]
    command += [f"--workdir={tmp_path / 'run'}", "--config.log.tensorboard=True"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "No TensorBoard events: tensorflow cannot be imported" in done.stdout
    assert "pip install" in done.stdout
    lines = [json.loads(s) for s in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert "test/accuracy" in lines[-1]
