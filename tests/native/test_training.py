"""Runs that have their convolutions from the kernels, through the front door."""

import json
import os

import numpy as np
import pytest

from imgrec import main
from imgrec.errors import UserError
from imgrec.evaluation import predictions
from imgrec.native import build


@pytest.fixture
def run(tmp_path, monkeypatch, tiny_config):
    """run(name, *flags): trains in tmp_path / name; the losses and the test's logits."""
    # The verb sets XLA_FLAGS, which is read once a process: here it is not to leak.
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))

    def call(name, *flags):
        folder = tmp_path / name
        command = [
            "main",
            f"--config={tiny_config}",
            f"--workdir={folder}",
            "--config.log.every=1st",
        ]
        assert main.main([*command, *flags]) == 0
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        losses = [line["train/loss"] for line in lines if "train/loss" in line]
        return losses, predictions.load(folder / "evaluation" / "test" / "predictions.npz").logits

    return call


NATIVE, XLA = (f"--config.train.cpu_convolutions={kind}" for kind in ("native", "xla"))


def test_a_run_learns_what_it_learns_by_xlas_convolutions(run, tmp_path):
    losses, logits = run("native", NATIVE, "--config.train.accumulate=2")
    expected, expected_logits = run("xla", XLA, "--config.train.accumulate=2")
    assert len(losses) == 4
    # Another order of sums in float32, after four steps.
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-3, atol=1e-3)
    kinds = [
        json.loads((tmp_path / name / "config.json").read_text())["cpu_convolutions"]
        for name in ("native", "xla")
    ]
    assert kinds == [f"native {build.REVISION}", "xla"]


def test_bfloat16_learns_what_float32_does(run):
    losses, logits = run("halved", NATIVE, "--config.train.compute_dtype=bfloat16")
    expected, expected_logits = run("whole", NATIVE)
    np.testing.assert_allclose(losses, expected, rtol=0.02)
    assert not np.array_equal(logits, expected_logits)


def test_a_resumed_run_is_the_uncut_one_to_the_bit(run):
    run("cut", NATIVE, "--config.train.duration=2st", "--config.schedule.name=constant")
    again, resumed = run("cut", NATIVE, "--config.schedule.name=constant", "--allow_config_change")
    whole, expected = run("whole", NATIVE, "--config.schedule.name=constant")
    assert again == whole and len(whole) == 4
    np.testing.assert_array_equal(resumed, expected)


def test_insisting_on_them_over_several_devices_is_refused(run):
    with pytest.raises(UserError, match=r"'native' computes on one device.*mesh has 2"):
        run("two", NATIVE, "--config.mesh.data=2")
