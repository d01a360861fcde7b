import contextlib
import dataclasses
import io

import jax
import numpy as np
import pytest
from rich.console import Console

from imgrec.config import MeshConfig
from imgrec.errors import UserError
from imgrec.training import loop, resident, run_folder
from imgrec.training.plan import plan


def planned(tiny, mode, **train):
    """The plan of a run with every augmentation on, its training set resident or not."""
    tiny.data = dataclasses.replace(tiny.data, resident=mode, per_class=12, batch_size=16)
    tiny.augment = dataclasses.replace(
        tiny.augment, pad_crop=1, flip=True, rotation=20.0, cutout=2, mixup=0.3, cutmix=1.0
    )
    tiny.train = dataclasses.replace(tiny.train, **train)
    return plan(tiny)


def augmented(made, steps):
    """What the model would see in each step: augmented images, targets, and their indices."""

    def prepare(fed, key):
        batch = made.take(fed)
        return {**made.task.prepare(batch, key), "index": batch["index"], "mask": batch["mask"]}

    prepare = jax.jit(prepare)
    with contextlib.closing(made.feed()) as feed:
        return [jax.device_get(prepare(next(feed), jax.random.key(i))) for i in range(steps)]


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("sampling", ["shuffle", "class_balanced"])
def test_the_same_batches_bit_for_bit_over_two_epochs(tiny, devices, sampling):
    tiny.mesh = MeshConfig(data=devices)
    tiny.data.sampling = sampling
    host, device = planned(tiny, "off"), planned(tiny, "on")
    assert not host.resident and device.resident
    steps = int(np.ceil(2 * host.steps_per_epoch)) + 1  # 120 examples in batches of 16
    for ours, theirs in zip(augmented(device, steps), augmented(host, steps), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_states_of_both_feeds_are_one_another(tiny):
    host, device = planned(tiny, "off"), planned(tiny, "on")
    with contextlib.closing(host.feed()) as a, contextlib.closing(device.feed()) as b:
        for _ in range(11):
            next(a), next(b)
        assert a.get_state() == b.get_state()
        again = device.feed()
        again.set_state(a.get_state())
        expected = jax.device_get(next(a)["index"])
        assert (jax.device_get(jax.jit(device.take)(next(again))["index"]) == expected).all()


def test_each_device_holds_the_whole_set_and_gathers_its_own_rows(tiny):
    tiny.mesh = MeshConfig(data=8)
    made = planned(tiny, "on")
    handle = next(made.feed())
    assert handle["source"]["image"].sharding.is_fully_replicated
    batch = jax.jit(made.take)(handle)
    assert [shard.data.shape[0] for shard in batch["image"].addressable_shards] == [2] * 8
    compiled = jax.jit(made.take).lower(handle).compile().as_text()
    assert "all-gather" not in compiled and "all-reduce" not in compiled


def run(tiny, folder, **train):
    made = planned(tiny, "on", **train)
    run_folder.open_folder(folder, tiny, allow_change=False, needs_bytes=0)
    return made, loop.train(made, folder, Console(file=io.StringIO(), width=200))


def test_several_steps_a_call_train_the_same(tiny, tmp_path):
    """Calls end where something is due, so logs and checkpoints fall on the same steps."""
    duration = {"duration": "7st"}
    tiny.log.every, tiny.eval.every, tiny.checkpoint.every = "3st", "5st", "5st"
    _, once = run(tiny, tmp_path / "1", **duration)
    for steps_per_call, expected in ((2, [2, 1, 2, 1, 1]), (3, [3, 1, 1, 1, 1])):
        folder = tmp_path / str(steps_per_call)
        made, several = run(tiny, folder, **duration, steps_per_call=steps_per_call)
        assert several.step == once.step == 7
        np.testing.assert_allclose(several.test["loss"], once.test["loss"], rtol=1e-5)
        logs = [(each / "metrics.jsonl").read_text() for each in (tmp_path / "1", folder)]
        assert logs[0].count("train/loss") == logs[1].count("train/loss") == 3
        step, calls = 0, []
        while step < 7:
            calls.append(made.steps_from(step))
            step += calls[-1]
        assert calls == expected


def test_auto_takes_what_lies_in_memory_and_fits(tiny, monkeypatch):
    assert planned(tiny, "auto").resident
    assert "resident: 0.0 MB of training images" in planned(tiny, "auto").feeding
    monkeypatch.setattr(resident, "_limit", lambda mesh: 7_000)  # 120 images take 7,680 bytes
    assert not planned(tiny, "auto").resident
    assert "more than 0.0 MB" in planned(tiny, "auto").feeding


def test_what_is_rendered_or_cropped_anew_is_not_kept_unasked(tiny):
    tiny.data.dataset, tiny.data.per_class, tiny.data.validation = "scenes", 0, "0"
    assert "read as they are needed" in planned(tiny, "auto").feeding
    tiny.data.image_size, tiny.data.crop = 16, "inception"
    assert "cropped anew" in planned(tiny, "auto").feeding
    with pytest.raises(UserError, match=r"crop='inception' cuts a new one.*crop=center"):
        planned(tiny, "on")


def test_several_steps_a_call_need_a_resident_set(tiny):
    with pytest.raises(UserError, match=r"steps_per_call=4 needs .*data.resident=on"):
        planned(tiny, "off", steps_per_call=4)


def test_calls_too_long_for_the_intervals_are_refused(tiny):
    with pytest.raises(UserError, match=r"steps_per_call=3 never fits .*: 2. Set .* to at most 2"):
        planned(tiny, "on", steps_per_call=3)
