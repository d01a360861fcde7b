"""What the dry run says is what the compiler and the run find (its output: test_main.py)."""

import pytest

from imgrec import models
from imgrec.training import dry_run
from imgrec.training.plan import plan


def test_memory_on_each_device_falls_with_sharding(tiny):
    one = plan(tiny)
    alone = dry_run.memory_bytes(one, next(one.feed()))
    assert alone["state"] == one.state_bytes
    tiny.mesh.data, tiny.mesh.fsdp = 1, 8
    eight = plan(tiny)
    shared = dry_run.memory_bytes(eight, next(eight.feed()))
    assert shared["activations"] == pytest.approx(alone["activations"] / 8, rel=0.05)
    assert shared["gradients"] < alone["gradients"] / 4
    assert shared["state"] < alone["state"] / 4


def test_the_estimate_is_of_the_size_that_the_compiler_finds(tiny):
    planned = plan(tiny)
    batch = next(planned.feed())
    estimate = dry_run.memory_bytes(planned, batch)
    step, _ = planned.compile_step(planned.state, batch)
    found = step.func.memory_analysis()
    assert estimate["state"] + estimate["training set"] == pytest.approx(
        found.argument_size_in_bytes, rel=0.05
    )
    peak = found.temp_size_in_bytes
    assert 0.3 * peak < estimate["activations"] + estimate["gradients"] < 3 * peak


def test_flops_are_three_times_the_forward_pass(tiny):
    """Backward costs twice forward, but for the first layer, which needs no input gradient."""
    planned = plan(tiny)
    flops = dry_run.step_flops(planned, next(planned.feed()))
    forward = 32 * models.flops(planned.task.module, (8, 8, 1))
    stem = 32 * 2 * 64 * 9 * 16  # 3x3 weights from 1 channel to 16 at each of 64 pixels
    assert flops == pytest.approx(3 * forward - stem, rel=1e-6)
    # The compiler's own count sees only one part of a batch that is cut into several.
    tiny.train.accumulate = 4
    parts = plan(tiny)
    assert dry_run.step_flops(parts, next(parts.feed())) == pytest.approx(flops, rel=1e-6)


def test_the_description_names_data_steps_and_devices(tiny):
    data, steps, feeding, devices = dry_run.describe(plan(tiny))
    assert feeding.startswith("feeding: resident: 0.1 MB of training images")
    assert "digits, 8x8x1, 10 classes, train 1,342, validation 96, test 359" in data
    assert steps.startswith("steps: 6 of batch 32")
    assert devices == "devices: 1 cpu (data 1 x fsdp 1 x tensor 1)"
