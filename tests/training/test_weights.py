"""Weights of an earlier run: refused before any work unless they fit (loading: test_loop.py)."""

import pytest

from imgrec.errors import UserError
from imgrec.training.checkpoints import Checkpoints
from imgrec.training.plan import plan


def test_a_folder_without_a_checkpoint_is_refused(tiny, tmp_path):
    tiny.init.weights = str(tmp_path)
    with pytest.raises(UserError, match="is no run folder with a checkpoint"):
        plan(tiny)


def test_another_model_is_refused_with_what_differs(tiny, tmp_path):
    planned = plan(tiny)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save_best(1, 0.5, planned.initial_state().variables)
    tiny.init.weights = str(tmp_path)
    plan(tiny)
    tiny.model.name = "resnet14"
    with pytest.raises(UserError, match="params/stage3_block1/norm1/scale: missing there"):
        plan(tiny)
