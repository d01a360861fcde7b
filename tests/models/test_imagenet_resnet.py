"""ImageNet ResNets: where each option acts, and the counts of released variants."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.models.imagenet_resnet import ResidualBlock


def _shapes(name, num_classes=1000, image_size=64, **options):
    """Shapes of the parameters and of the intermediates."""
    module = models.create(ModelConfig(name, ConfigDict(options)), num_classes)
    images = jnp.zeros((1, image_size, image_size, 3))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    maps = jax.eval_shape(lambda v: models.intermediates(module, v, images), variables)
    params = {
        "/".join(key.key for key in path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
    }
    return params, {name: value.shape[1:] for name, value in maps.items()}


def _count(params):
    return sum(int(np.prod(shape)) for shape in params.values())


def _block(**changed):
    fields = {
        "features": 4,
        "strides": 1,
        "bottleneck": False,
        "groups": 1,
        "group_width": 64,
        "attention": "none",
        "shortcut": "every_other",
        "anti_aliased": False,
        "drop_rate": 0.0,
        "zero_init_residual": True,
        "dtype": jnp.float32,
    }
    return ResidualBlock(**{**fields, **changed})


def _positive(*shape):
    """Maps as a rectifier leaves them."""
    return jnp.asarray(np.random.default_rng(0).exponential(size=shape), jnp.float32)


@pytest.mark.parametrize(
    ("name", "num_classes", "options", "parameters"),
    [
        # Counts of released models: timm's resnet50d and gluon's resnet50c are the deep stem
        # with and without means in the shortcut, which have no parameters.
        ("resnet50", 1000, {"stem": "deep", "shortcut": "mean"}, 25_576_264),
        ("resnet50", 1000, {"anti_aliased": True}, 25_557_032),
        # The ResNet-18 of kuangliu's pytorch-cifar.
        ("resnet18", 10, {"stem": "small_images"}, 11_173_962),
    ],
)
def test_parameters_of_refined_networks(name, num_classes, options, parameters):
    params, _ = _shapes(name, num_classes, **options)
    assert _count(params) == parameters


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({}, (16, 8, 4, 2)),
        ({"stem": "deep", "shortcut": "mean"}, (16, 8, 4, 2)),
        ({"anti_aliased": True}, (16, 8, 4, 2)),
        ({"stem": "small_images"}, (64, 32, 16, 8)),
    ],
)
def test_resolutions_of_the_stages(options, sizes):
    _, maps = _shapes("resnet18", **options)
    expected = {f"stage{i + 1}": (size, size, 64 * 2**i) for i, size in enumerate(sizes)}
    assert maps == {**expected, "pre_logits": (512,)}


@pytest.mark.parametrize("options", [{}, {"shortcut": "mean"}, {"anti_aliased": True}])
def test_odd_resolutions_round_up_on_both_paths(options):
    _, maps = _shapes("resnet50", image_size=67, width=8, **options)
    assert [maps[f"stage{i}"][0] for i in (1, 2, 3, 4)] == [17, 9, 5, 3]


def test_names_of_the_parameters():
    params, _ = _shapes("resnext50_32x4d")
    assert params["stem/conv/kernel"] == (7, 7, 3, 64)
    assert params["stage1_block0/conv1/kernel"] == (1, 1, 64, 128)
    assert params["stage1_block0/conv2/kernel"] == (3, 3, 4, 128)
    assert params["stage4_block2/conv2/kernel"] == (3, 3, 32, 1024)
    assert params["stage4_block2/norm3/scale"] == (2048,)
    assert params["stage1_block0/projection/conv/kernel"] == (1, 1, 64, 256)
    assert params["head/kernel"] == (2048, 1000)
    projections = {name.split("/")[0] for name in params if "projection" in name}
    assert projections == {f"stage{i}_block0" for i in (1, 2, 3, 4)}
    basic, _ = _shapes("resnet18")
    assert "stage1_block0/projection/conv/kernel" not in basic


def test_a_narrower_network_narrows_everywhere():
    params, _ = _shapes("resnet50", width=16)
    assert params["stage1_block0/conv2/kernel"] == (3, 3, 16, 16)
    assert params["stage4_block0/conv2/kernel"] == (3, 3, 128, 128)
    grouped, _ = _shapes("resnext50_32x4d", width=32)
    assert grouped["stage1_block0/conv2/kernel"] == (3, 3, 2, 64)


def test_the_stride_is_in_the_3x3_convolution(fill):
    # In the first version, a 1x1 convolution with stride skipped three pixels in four.
    block = _block(bottleneck=True, strides=2)
    x = _positive(1, 8, 8, 8)
    variables = fill(block, x, train=False)
    branch = jax.tree.map(jnp.asarray, variables)
    branch["params"]["projection"]["conv"]["kernel"] *= 0
    branch["params"]["norm3"]["bias"] += 50.0  # keeps the last rectifier open
    apply = jax.jit(functools.partial(block.apply, train=False))
    before = apply(branch, x)
    after = apply(branch, x.at[0, 3, 3].add(10.0))
    assert not np.allclose(before, after, atol=1e-4)


def test_blocks_start_as_the_identity_unless_told_otherwise():
    x = _positive(2, 6, 6, 4)
    for zero in (True, False):
        block = _block(zero_init_residual=zero)
        init = functools.partial(block.init_with_output, jax.random.key(1), train=False)
        out, _ = jax.jit(init)(x)
        assert np.array_equal(out, x) == zero
    assert models.describe("resnet50").options["zero_init_residual"] is True


def test_a_dropped_branch_leaves_the_shortcut(fill):
    x = _positive(16, 6, 6, 4)
    block = _block(drop_rate=0.5)
    variables = fill(block, x, train=False)
    train = functools.partial(block.apply, train=True, mutable=["batch_stats"])
    out, _ = jax.jit(lambda: train(variables, x, rngs={"dropout": jax.random.key(2)}))()
    unchanged = np.all(np.asarray(out == x), axis=(1, 2, 3))
    assert 0 < unchanged.sum() < 16


def test_drop_rates_rise_over_all_stages():
    module = models.create(ModelConfig("resnet18", ConfigDict({"stochastic_depth": 0.4})), 10)
    rates = []

    def record(next_function, args, kwargs, context):
        if isinstance(context.module, ResidualBlock) and context.method_name == "__call__":
            rates.append(context.module.drop_rate)
        return next_function(*args, **kwargs)

    with nn.intercept_methods(record):
        images = jnp.zeros((1, 32, 32, 3))
        jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    np.testing.assert_allclose(rates, 0.05 * np.arange(1, 9))


def test_the_head_starts_small():
    module = models.create(ModelConfig("resnet18", ConfigDict({"width": 8})), 1000)
    images = jnp.zeros((1, 32, 32, 3))
    params = jax.jit(
        lambda: module.clone(blocks=(1, 1)).init(jax.random.key(0), images)["params"]["head"]
    )()
    assert np.std(params["kernel"]) == pytest.approx(0.01, rel=0.03)
    assert not params["bias"].any()
