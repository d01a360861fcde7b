"""Saving, keeping, choosing and restoring, on whatever mesh is at hand."""

import jax
import numpy as np
import pytest

from imgrec.errors import UserError
from imgrec.training import checkpoints as module
from imgrec.training.checkpoints import Checkpoints
from imgrec.training.plan import plan


def assert_equal(a, b) -> None:
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def test_round_trip_brings_state_window_and_place_in_the_data(tiny, tmp_path):
    tiny.train.ema = 0.9
    planned = plan(tiny)
    state, feed = planned.initial_state(), planned.feed()
    for _ in range(3):
        next(feed)
    window = [{"loss": 1.5, "learning_rate": 0.1}]
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest_step is None
        checkpoints.save(3, state, feed, window)
    expected = jax.device_get(next(feed))
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest_step == 3
        other = planned.feed()
        restored, saved_window = checkpoints.restore(planned.state, planned.shardings, other)
    assert_equal(restored, state)
    assert saved_window == window
    assert_equal(next(other), expected)


def test_a_checkpoint_goes_to_the_mesh_at_hand(tiny, tmp_path):
    planned = plan(tiny)
    state = planned.initial_state()
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, state, planned.feed(), [])
    tiny.mesh.data, tiny.mesh.fsdp = 2, 4
    wide = plan(tiny)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        restored, _ = checkpoints.restore(wide.state, wide.shardings, wide.feed())
    assert_equal(restored, state)
    kernel = restored.params["stage3_block0"]["conv1"]["kernel"]
    assert len(kernel.sharding.device_set) == 8
    assert kernel.addressable_shards[0].data.size == kernel.size // 4


def test_only_the_latest_are_kept(tiny, tmp_path):
    planned = plan(tiny)
    state, feed = planned.initial_state(), planned.feed()
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state, feed, [])
    kept = sorted(path.name for path in (tmp_path / "checkpoints" / "latest").iterdir())
    assert kept == ["2", "3"]


def test_the_best_stays_until_it_is_beaten(tiny, tmp_path):
    planned = plan(tiny)
    variables = planned.initial_state().variables
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.best() is None
        for step, value, best in [(1, 0.5, 1), (2, 0.4, 1), (3, 0.5, 1), (4, 0.6, 4), (4, 0.6, 4)]:
            checkpoints.save_best(step, value, variables)
            assert checkpoints.best()[0] == best
        assert checkpoints.best() == (4, 0.6)
        restored = checkpoints.restore_best(planned.state.variables, planned.shardings.variables)
    assert_equal(restored, variables)


def test_what_a_killed_run_left_half_written_is_no_checkpoint(tiny, tmp_path):
    planned = plan(tiny)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(1, planned.initial_state(), planned.feed(), [])
    half = tmp_path / "checkpoints" / "latest" / "2.orbax-checkpoint-tmp"
    (half / "state").mkdir(parents=True)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest_step == 1


def test_another_format_version_is_refused(tiny, tmp_path, monkeypatch):
    planned = plan(tiny)
    monkeypatch.setattr(module, "FORMAT", 99)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(1, planned.initial_state(), planned.feed(), [])
    monkeypatch.undo()
    with (
        Checkpoints(tmp_path, keep=2) as checkpoints,
        pytest.raises(UserError, match="format version 99; this imgrec reads version 1"),
    ):
        checkpoints.restore(planned.state, planned.shardings, planned.feed())


def test_a_checkpoint_of_another_model_is_refused(tiny, tmp_path):
    planned = plan(tiny)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(1, planned.initial_state(), planned.feed(), [])
    tiny.model.name = "wrn10_1"
    other = plan(tiny)
    with (
        Checkpoints(tmp_path, keep=2) as checkpoints,
        pytest.raises(UserError, match="does not fit this model"),
    ):
        checkpoints.restore(other.state, other.shardings, other.feed())
