"""What the dry run says of an experiment (its output: test_main.py; of memory: test_memory.py)."""

import pytest

from imgrec import models
from imgrec.errors import UserError
from imgrec.training import dry_run, memory
from imgrec.training.plan import plan


def test_flops_are_three_times_the_forward_pass(tiny):
    """Backward costs twice forward, but for the first layer, which needs no input gradient."""
    planned = plan(tiny)
    flops = memory.of_step(planned).flops
    forward = 32 * models.flops(planned.task.module, (8, 8, 1))
    stem = 32 * 2 * 64 * 9 * 16  # 3x3 weights from 1 channel to 16 at each of 64 pixels
    assert flops == pytest.approx(3 * forward - stem, rel=1e-6)
    # The compiler's own count sees only one part of a batch that is cut into several.
    tiny.train.accumulate = 4
    assert memory.of_step(plan(tiny)).flops == pytest.approx(flops, rel=1e-6)


def test_devices_that_are_not_here_can_be_none(tiny):
    with pytest.raises(UserError, match=r"--simulate=-1: a dry run needs at least 1 device"):
        dry_run.simulate(-1)


def test_the_description_names_data_steps_and_devices(tiny):
    data, steps, feeding, devices = dry_run.describe(plan(tiny))
    assert feeding.startswith("feeding: resident: 0.1 MB of training images")
    assert "digits, 8x8x1, 10 classes, train 1,342, validation 96, test 359" in data
    assert steps.startswith("steps: 6 of batch 32")
    assert devices == "devices: 1 cpu (data 1 x fsdp 1 x tensor 1)"
