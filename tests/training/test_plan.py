"""A plan is everything known before a run: lengths in steps, shapes, places; nothing computed."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from imgrec.augment import normalise
from imgrec.errors import UserError
from imgrec.models.airbench import whitening_kernel
from imgrec.training.plan import plan


def test_durations_become_steps_of_the_training_split(tiny):
    tiny.train.duration = "3ep"
    tiny.eval.every = "0.5ep"
    tiny.checkpoint.every = "64ex"
    tiny.log.every = "10%"
    planned = plan(tiny)
    # 1,797 digits less a fifth to test and 96 to validate leave 1,342: 41.94 batches of 32.
    assert len(planned.dataset.train) == 1342
    assert planned.steps_per_epoch == 1342 / 32
    assert planned.total_steps == 126
    assert (planned.eval_every, planned.checkpoint_every, planned.log_every) == (21, 2, 13)


def test_the_state_is_shapes_until_it_is_made(tiny):
    tiny.train.ema = 0.9
    planned = plan(tiny)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(planned.state))
    state = planned.initial_state()
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    assert shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), planned.state)
    assert planned.state_bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    jax.tree.map(np.testing.assert_array_equal, state.average["params"], state.params)


def test_the_initial_state_depends_on_the_seed_and_not_on_the_mesh(tiny):
    kernel = plan(tiny).initial_state().params["stem"]["conv"]["kernel"]
    tiny.mesh.data, tiny.mesh.fsdp = 2, 4
    planned = plan(tiny)
    other = planned.initial_state().params["stem"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel, other)
    assert other.sharding.spec == PartitionSpec(None, None, None, "fsdp")
    tiny.seed = 1
    assert not np.array_equal(kernel, plan(tiny).initial_state().params["stem"]["conv"]["kernel"])


def test_a_model_that_asks_for_training_images_is_initialised_from_them(tiny):
    tiny.data.image_size = 9
    tiny.model.name = "airbench94"
    tiny.train.ema = 0.9
    planned = plan(tiny)
    assert planned.task.module.num_classes == 10
    state = planned.initial_state()
    images = planned.dataset.train.gather(np.arange(len(planned.dataset.train)))["image"]
    info = planned.dataset.info
    expected = whitening_kernel(normalise(images, info.mean, info.std))
    for variables in (state.variables, state.average["model_state"]):
        kernel = variables["whitening"]["whiten"]["kernel"]
        np.testing.assert_allclose(kernel, expected, rtol=1e-3, atol=1e-3)


def test_a_second_shape_is_an_error_and_no_second_trace(tiny):
    tiny.data.resident = "off"
    planned = plan(tiny)
    state, batch = planned.initial_state(), next(planned.feed())
    step, cost = planned.compile_step(state, batch)
    assert cost["flops"] > 1e6
    with pytest.raises(TypeError, match=r"compiled with uint8\[32,8,8,1\]"):
        step(state, {name: value[:16] for name, value in batch.items()})


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("train", "duration", "0.0001ep", "less than one step"),
        ("eval", "batch_size", 3, "eval.batch_size=3"),
        ("data", "batch_size", 31, "data.batch_size=31"),
        ("augment", "mean", (0.5, 0.5, 0.5), "mean"),
    ],
)
def test_what_cannot_be_is_refused(tiny, section, field, value, message):
    tiny.mesh.data = 8
    tiny.data.batch_size = 32
    setattr(getattr(tiny, section), field, value)
    if field == "mean":
        tiny.augment.std = (0.2, 0.2, 0.2)
    with pytest.raises(UserError, match=message):
        plan(tiny)
