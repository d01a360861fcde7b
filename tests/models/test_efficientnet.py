"""EfficientNet: the scaled tables, what variants have of their own, and switches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.errors import UserError
from imgrec.models.efficientnet import Stage, scaled


def _create(name, **options):
    return models.create(ModelConfig(name, ConfigDict(options)), 10)


def _params(module, side=64):
    images = jnp.zeros((1, side, side, 3))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    flat = jax.tree_util.tree_leaves_with_path(variables["params"])
    return {"/".join(key.key for key in path): leaf.shape for path, leaf in flat}


@pytest.mark.parametrize(
    ("tables", "stem", "features", "repeats", "final"),
    [
        # The authors' tables, as everybody prints them.
        (scaled(1.0, 1.0), 32, [16, 24, 40, 80, 112, 192, 320], [1, 2, 2, 3, 3, 4, 1], 1280),
        (scaled(2.0, 3.1), 64, [32, 48, 80, 160, 224, 384, 640], [4, 7, 7, 10, 10, 13, 4], 2560),
        (
            scaled(1.4, 1.8, lite=True),
            32,
            [24, 32, 56, 112, 160, 272, 448],
            [1, 4, 4, 6, 6, 8, 1],
            1280,
        ),
    ],
)
def test_scaling(tables, stem, features, repeats, final):
    assert (tables["stem"], tables["final"]) == (stem, final)
    assert [stage.features for stage in tables["stages"]] == features
    assert [stage.repeats for stage in tables["stages"]] == repeats


def test_variants_have_their_own_image_size_and_dropout():
    sides = [models.describe(f"efficientnet_b{n}").image_shape[0] for n in range(8)]
    assert sides == [224, 240, 260, 300, 380, 456, 528, 600]
    sides = [models.describe(f"efficientnet_lite{n}").image_shape[0] for n in range(5)]
    assert sides == [224, 240, 260, 280, 300]
    dropout = [models.describe(f"efficientnet_b{n}").options["dropout"] for n in range(8)]
    assert dropout == [0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5]
    assert _create("efficientnet_b7").dropout == 0.5
    assert _create("efficientnet_b7", dropout=0.1).dropout == 0.1


def test_a_name_may_give_any_factors():
    b3, same = _create("efficientnet_b3", dropout=0.2), _create("efficientnet_w1.2_d1.4")
    assert same == b3
    assert _create("efficientnet_w1_d1") == _create("efficientnet_b0")
    deeper = _create("efficientnet_w1_d4")
    assert [stage.repeats for stage in deeper.stages] == [4, 8, 8, 12, 12, 16, 4]
    assert [stage.features for stage in deeper.stages] == [16, 24, 40, 80, 112, 192, 320]
    with pytest.raises(UserError, match=r"efficientnet_w1_d0: factors .* above 0"):
        _create("efficientnet_w1_d0")


def test_lite_has_no_squeeze_excitation_and_either_can_be_switched():
    b0, lite0 = _create("efficientnet_b0"), _create("efficientnet_lite0")
    assert (b0.activation, lite0.activation) == ("swish", "relu6")
    assert any("squeeze" in name for name in _params(b0))
    assert not any("squeeze" in name for name in _params(lite0))
    without = _params(_create("efficientnet_b0", squeeze_excitation=False))
    assert without == _params(lite0)
    assert _params(_create("efficientnet_lite0", squeeze_excitation=True)) == _params(b0)


def test_names_of_the_parameters_and_bottlenecks_relative_to_the_input_of_a_block():
    params = _params(_create("efficientnet_b0"))
    assert params["stem/conv/kernel"] == (3, 3, 3, 32)
    assert params["stage1_block0/depthwise/conv/kernel"] == (3, 3, 1, 32)
    assert params["stage1_block0/squeeze_excitation/reduce/kernel"] == (32, 8)
    assert "stage1_block0/expand/conv/kernel" not in params
    assert params["stage2_block0/expand/conv/kernel"] == (1, 1, 16, 96)
    assert params["stage2_block0/squeeze_excitation/reduce/kernel"] == (96, 4)
    assert params["stage2_block1/squeeze_excitation/expand/kernel"] == (6, 144)
    assert params["stage7_block0/project/norm/scale"] == (320,)
    assert params["final/conv/kernel"] == (1, 1, 320, 1280)
    assert params["head/kernel"] == (1280, 10)


def test_maps_and_gates_on_request():
    module = _create("efficientnet_b0")
    images = jnp.zeros((2, 64, 70, 3))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    named = jax.eval_shape(lambda v: models.intermediates(module, v, images), variables)
    shapes = {name: value.shape for name, value in named.items()}
    assert shapes["stage1"] == (2, 32, 35, 16)
    assert shapes["stage3"] == (2, 8, 9, 40)
    assert shapes["stage7"] == (2, 2, 3, 320)
    assert shapes["pre_logits"] == (2, 1280)
    assert shapes["stage2_block0/squeeze_excitation/gate"] == (2, 96)


def test_initialisation():
    thin = {"stem": 8, "stages": (Stage(5, 6, 64, 1, 2),), "final": 256}
    module = models.create(ModelConfig("efficientnet_b0"), 400).clone(**thin)
    images = jnp.zeros((1, 8, 8, 3))
    params = jax.jit(lambda: module.init(jax.random.key(0), images, train=False))()["params"]
    head = np.abs(params["head"]["kernel"])
    assert 0.99 / 20 < head.max() <= 1 / 20
    # Each channel's kernel reaches 25 places of its own map.
    depthwise = params["stage1_block0"]["depthwise"]["conv"]["kernel"]
    assert np.std(depthwise) == pytest.approx(np.sqrt(2 / 25), rel=0.06)
    final = params["final"]["conv"]["kernel"]
    assert np.std(final) == pytest.approx(np.sqrt(2 / 256), rel=0.03)


def test_padding_and_epsilon_reach_every_layer(fill):
    stages = (Stage(3, 2, 8, 1, 2), Stage(5, 1, 8, 1, 1))
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 8, 3)), jnp.float32)

    def logits(**options):
        module = _create("efficientnet_b0", **options).clone(stem=8, stages=stages, final=8)
        variables = fill(module, images, train=False)
        return np.asarray(jax.jit(lambda v: module.apply(v, images, train=False))(variables))

    default = logits()
    assert np.array_equal(default, logits(padding="same", norm_epsilon=1e-3))
    assert np.abs(default - logits(padding="half")).max() > 1e-3
    assert np.abs(default - logits(norm_epsilon=1.0)).max() > 1e-3


def test_a_step_moves_the_statistics_by_a_hundredth_of_what_the_batch_has():
    images = jnp.ones((2, 8, 8, 3))

    def mean(**fields):
        module = _create("efficientnet_b0", dropout=0.0)
        module = module.clone(stem=8, stages=(), final=8, **fields)
        variables = jax.jit(lambda: module.init(jax.random.key(0), images, train=False))()
        train = jax.jit(lambda v: module.apply(v, images, train=True, mutable=["batch_stats"]))
        return train(variables)[1]["batch_stats"]["stem"]["norm"]["mean"]

    np.testing.assert_allclose(mean(), 0.01 * mean(norm_momentum=0.0), rtol=1e-3, atol=1e-7)
