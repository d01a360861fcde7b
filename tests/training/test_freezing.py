"""What stands still comes out of training as it went in, to the bit; sleepers wake fresh."""

import contextlib
import io
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from ml_collections import ConfigDict
from rich.console import Console

from imgrec.config import OptimizerConfig
from imgrec.errors import UserError
from imgrec.training import freezing, loop, rules, run_folder
from imgrec.training.checkpoints import Checkpoints
from imgrec.training.plan import plan

LAYERS = (("stem",), ("block0",), ("norm", "head"))
NAMES = ["block0/kernel", "head/kernel", "norm/scale", "stem/kernel"]


def starts(every=0, **settings):
    return freezing.starts(OptimizerConfig(**settings), NAMES, LAYERS, every)


def test_layers_thaw_from_the_top():
    assert starts() == dict.fromkeys(NAMES, 0)
    assert starts(5) == {
        "block0/kernel": 5,
        "head/kernel": 0,
        "norm/scale": 0,
        "stem/kernel": 10,
    }
    assert starts(5, freeze=("stem/.*",))["stem/kernel"] is None


def test_nothing_left_to_train_is_refused():
    with pytest.raises(
        UserError, match=r"holds all 4 parameters still.*--config\.head\.name=probe"
    ):
        starts(freeze=(".*",))


def test_a_regex_that_matches_nothing_is_refused_with_the_nearest_name(tiny):
    tiny.optimizer.freeze = ("stem/conv/kernal",)
    with pytest.raises(
        UserError,
        match=re.escape("freeze: the rule 'stem/conv/kernal' matches none")
        + ".*nearest is 'stem/conv/kernel'",
    ):
        plan(tiny)


def test_gradients_of_what_stands_still_are_exactly_zero():
    params = {name: jnp.array([1.0, 2.0]) for name in NAMES}
    begin = {"stem/kernel": None, "block0/kernel": 3, "head/kernel": 0}

    def gradient(step):
        def loss(p):
            held = freezing.held(p, begin, jnp.int32(step))
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(held))

        return jax.jit(jax.grad(loss))(params)

    for step, awake in ((2, {"head/kernel", "norm/scale"}), (3, {*NAMES} - {"stem/kernel"})):
        for name, grad in gradient(step).items():
            np.testing.assert_array_equal(grad, [2.0, 4.0] if name in awake else [0.0, 0.0])


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, *, train=False):
        for name in ("low", "high"):
            x = nn.BatchNorm(use_running_average=not train, momentum=0.5, name=name)(x)
        # Without parameters of its own: it goes with those beside it.
        bare = nn.BatchNorm(
            use_running_average=not train, use_bias=False, use_scale=False, name="bare"
        )
        return bare(x)


def test_frozen_norms_run_as_in_evaluation():
    x = jnp.asarray(np.random.default_rng(0).normal(3.0, 2.0, (16, 5)), jnp.float32)
    variables = Normed().init(jax.random.key(0), x)
    moved = jax.tree.map(lambda leaf: leaf + 0.5, variables)

    def run(begin, step=0, train=True):
        with freezing.norms_held(begin, jnp.int32(step)):
            return Normed().apply(moved, x, train=train, mutable=["batch_stats"])

    names = rules.names(moved["params"])
    frozen, stats = run(dict.fromkeys(names, None))
    jax.tree.map(np.testing.assert_array_equal, stats["batch_stats"], moved["batch_stats"])
    np.testing.assert_array_equal(frozen, Normed().apply(moved, x))
    np.testing.assert_array_equal(run(dict.fromkeys(names, None), train=False)[0], frozen)

    free, free_stats = run({})
    assert not np.allclose(free, frozen)
    for step, expected in ((6, (frozen, moved)), (7, (free, free_stats))):
        found, stats = run(dict.fromkeys(names, 7), step)
        np.testing.assert_array_equal(found, expected[0])
        jax.tree.map(
            np.testing.assert_array_equal, stats["batch_stats"], expected[1]["batch_stats"]
        )

    # One of two: the other still learns.
    low = {name: None if name.startswith("low") else 0 for name in names}
    stats = run(low)[1]["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, stats["low"], moved["batch_stats"]["low"])
    for name in ("high", "bare"):
        assert not np.allclose(stats[name]["var"], moved["batch_stats"][name]["var"])


def test_a_sleeper_wakes_as_if_training_had_just_begun():
    params, grads = jnp.array([1.0, -2.0]), [jnp.array([0.1 * i, -1.0]) for i in range(1, 7)]
    adam = optax.scale_by_adam()
    sleeping = freezing.asleep_until(adam, 3)
    state, fresh = sleeping.init(params), adam.init(params)
    for i, grad in enumerate(grads):
        update, state = sleeping.update(grad, state, params)
        if i < 3:
            np.testing.assert_array_equal(update, [0.0, 0.0])
        else:
            expected, fresh = adam.update(grad, fresh, params)
            np.testing.assert_array_equal(update, expected)


def run(experiment, folder):
    planned = plan(experiment)
    before = jax.device_get(planned.initial_state())
    run_folder.open_folder(folder, experiment, allow_change=False, needs_bytes=0)
    loop.train(planned, folder, Console(file=io.StringIO()))
    with Checkpoints(folder, keep=2) as checkpoints, contextlib.closing(planned.feed()) as feed:
        state, _ = checkpoints.restore(planned.state, planned.shardings, feed)
    return before, jax.device_get(state)


@pytest.mark.parametrize(("name", "remat"), [("sgd", "none"), ("adamw", "blocks")])
def test_a_frozen_backbone_is_bit_identical_after_training(tiny, tmp_path, name, remat):
    tiny.train.remat = remat
    tiny.optimizer.name, tiny.optimizer.options = name, ConfigDict()
    tiny.optimizer.weight_decay, tiny.optimizer.clip_norm = 0.1, 0.5
    tiny.optimizer.freeze = ("(stem|stage1_block0)/.*",)
    tiny.train.ema = 0.9
    before, after = run(tiny, tmp_path / "run")
    same = jax.tree.map(np.array_equal, before.averaged_variables, after.averaged_variables)
    trained = jax.tree.map(np.array_equal, before.variables, after.variables)
    for found in (same, trained):
        for path, equal in jax.tree.leaves_with_path(found):
            frozen = re.search("(stem|stage1_block0)/", rules.name_of(path)) is not None
            assert equal == frozen, rules.name_of(path)


@pytest.mark.parametrize("remat", ["none", "dots"])
def test_gradual_unfreezing_in_a_run(tiny, tmp_path, remat):
    tiny.train.remat = remat
    # Layers: stem, three blocks, head. After 6 steps the head and one block have moved, as
    # the second thaws at step 3 and the third at 6.
    tiny.optimizer.name, tiny.optimizer.options = "adamw", ConfigDict()
    tiny.optimizer.weight_decay, tiny.optimizer.unfreeze_every = 0.1, "3st"
    tiny.train.ema = 0.9
    before, after = run(tiny, tmp_path / "run")
    for earlier, later in (
        (before.variables, after.variables),
        (before.averaged_variables, after.averaged_variables),
    ):
        for path, equal in jax.tree.leaves_with_path(jax.tree.map(np.array_equal, earlier, later)):
            moved = re.search("/(stage3_block0|head)/", rules.name_of(path)) is not None
            assert equal == (not moved), rules.name_of(path)
