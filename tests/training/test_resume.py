"""A run that was killed and started again equals, bit for bit, the run that was not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

CONFIG = """
from ml_collections import ConfigDict
from imgrec.config import *

def get_config(arg=""):
    # Batch norm, dropout, stochastic augmentation, mixing and EMA: all that could slip.
    return Experiment(
        name="resume",
        data=DataConfig(dataset="digits", batch_size=24, validation="200"),
        augment=AugmentConfig(
            pad_crop=1, flip=True, rotation=10.0, cutout=2, mixup=0.4, cutmix=1.0
        ),
        model=ModelConfig(name="wrn10_1", options=ConfigDict({"dropout": 0.2})),
        optimizer=OptimizerConfig(learning_rate=0.1, weight_decay=1e-4),
        schedule=ScheduleConfig(name="one_cycle"),
        train=TrainConfig(duration="20st", ema=0.9),
        eval=EvalConfig(every="6st", batch_size=120),
        checkpoint=CheckpointConfig(every="5st", keep=2),
        log=LogConfig(every="3st", tensorboard=False),
    )
"""

# Runs the front door, and raises a signal in it while the given step is in flight.
LAUNCH = """
import os, signal, sys
from imgrec import cli, main
from imgrec.training.window import MetricWindow

number, at = getattr(signal, sys.argv.pop(1), None), int(sys.argv.pop(1))
add, steps = MetricWindow.add, 0

def add_and_signal(self, metrics, *count):
    global steps
    add(self, metrics, *count)
    steps += 1
    if number and steps == at:
        os.kill(os.getpid(), number)

MetricWindow.add = add_and_signal
cli.run(main.main)
"""


def launch(
    folder: Path, *overrides: str, devices: int = 1, signal: str = "none", at: int = 0
) -> int:
    config = folder.parent / "resume.py"
    config.write_text(CONFIG)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            LAUNCH,
            signal,
            str(at),
            f"--config={config}",
            f"--workdir={folder}",
            *overrides,
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        },
        capture_output=True,
        text=True,
    )
    print(done.stdout[-2000:], done.stderr[-4000:])  # pytest shows it where a test fails
    return done.returncode


def metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl, less what the clock says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


def final_state(folder: Path) -> dict[str, np.ndarray]:
    with ocp.StandardCheckpointer() as checkpointer:
        path = folder / "checkpoints" / "latest" / "20" / "state"
        one_device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one_device),
            checkpointer.metadata(path).item_metadata.tree,
        )
        tree = checkpointer.restore(path, like)
    return {
        jax.tree_util.keystr(name): np.asarray(leaf)
        for name, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uncut") / "run"
    assert launch(folder) == 0
    return folder


def assert_same_run(folder: Path, uncut: Path) -> None:
    assert metrics(folder) == metrics(uncut)
    ours, theirs = final_state(folder), final_state(uncut)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    for name in ("metrics.json", "predictions.npz"):
        report = Path("evaluation") / "test" / name
        if name.endswith("json"):
            assert (folder / report).read_text() == (uncut / report).read_text()
        else:
            a, b = np.load(folder / report), np.load(uncut / report)
            for array in ("index", "label", "logits"):
                np.testing.assert_array_equal(a[array], b[array])


def test_the_uncut_run_has_all_that_is_to_be_compared(uncut):
    lines = metrics(uncut)
    assert [line["step"] for line in lines if "train/loss" in line] == [3, 6, 9, 12, 15, 18, 20]
    assert [line["step"] for line in lines if "validation/loss" in line] == [6, 12, 18, 20]
    assert all("validation_ema/loss" in line for line in lines if "validation/loss" in line)
    assert len(final_state(uncut)) > 100  # parameters, statistics, momentum, averages


def test_sigkill_inside_an_epoch(uncut, tmp_path):
    """Killed at step 13: past a checkpoint (10), an evaluation (12) and inside a log window."""
    assert launch(tmp_path / "run", signal="SIGKILL", at=13) == -9
    assert launch(tmp_path / "run") == 0
    assert_same_run(tmp_path / "run", uncut)


def test_sigkill_before_the_first_checkpoint(uncut, tmp_path):
    assert launch(tmp_path / "run", signal="SIGKILL", at=2) == -9
    assert launch(tmp_path / "run") == 0
    assert_same_run(tmp_path / "run", uncut)


@pytest.mark.parametrize(("signal", "at"), [("SIGTERM", 8), ("SIGINT", 16)])
def test_a_signal_saves_exits_75_and_the_same_command_goes_on(uncut, tmp_path, signal, at):
    """Stopped off every interval: the open log window travels in the checkpoint."""
    folder = tmp_path / "run"
    assert launch(folder, signal=signal, at=at) == 75
    steps = sorted(int(path.name) for path in (folder / "checkpoints" / "latest").iterdir())
    assert steps[-1] == at
    assert launch(folder) == 0
    assert_same_run(folder, uncut)


def test_saved_on_eight_devices_resumed_on_one(tmp_path):
    """Sums are rounded in another order on eight devices, so equal to a tolerance.

    The digits' background is one grey: a rectifier whose input there is 0 but for rounding
    switches thousands of pixels at once. At small learning rates that stays a small step.
    """
    gentle = "--config.optimizer.learning_rate=0.005"
    folder, uncut = tmp_path / "run", tmp_path / "uncut"
    assert launch(uncut, gentle) == 0
    assert launch(folder, gentle, devices=8, signal="SIGTERM", at=8) == 75
    assert launch(folder, gentle) == 0
    for ours, theirs in zip(metrics(folder), metrics(uncut), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            # Accuracies are counts; one example that flips moves them by its share.
            coarse = {"accuracy": 0.02, "gradient_norm": 0.05}
            tolerance = next((t for what, t in coarse.items() if what in name), 2e-3)
            assert ours[name] == pytest.approx(theirs[name], rel=tolerance, abs=tolerance), name
    ours, theirs = final_state(folder), final_state(uncut)
    for name, value in theirs.items():
        # A leaf that had not been restored would differ by all of its size.
        difference = np.linalg.norm(np.float64(ours[name]) - value)
        assert difference <= 0.05 * np.linalg.norm(np.float64(value)) + 1e-3, name
