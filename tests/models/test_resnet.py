"""CIFAR ResNets: the shortcuts by hand, the plain net, the options."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.models.resnet import BasicBlock, shortcut_a


def _resnet(name="resnet8", **options):
    return models.create(ModelConfig(name, ConfigDict(options)), 10)


def _block(shortcut, features=4, strides=1, drop_rate=0.0, zero_init_residual=False):
    return BasicBlock(features, strides, shortcut, drop_rate, zero_init_residual, jnp.float32)


def _positive(*shape):
    """Images as a rectifier leaves them."""
    return jnp.asarray(np.random.default_rng(0).exponential(size=shape), jnp.float32)


def _shapes(module, image_shape=(32, 32, 3)):
    images = jnp.zeros((1, *image_shape))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    return {
        "/".join(key.key for key in path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
    }


def test_shortcut_a_by_hand():
    x = np.add(np.arange(9).reshape(1, 3, 3, 1), [100, 200])
    out = shortcut_a(jnp.asarray(x, jnp.float32), 4, 2)
    expected = [
        [[100, 200, 0, 0], [102, 202, 0, 0]],
        [[106, 206, 0, 0], [108, 208, 0, 0]],
    ]
    np.testing.assert_array_equal(out[0], expected)


def test_shortcut_b_has_parameters_where_the_shape_changes_and_nowhere_else():
    a, b = _shapes(_resnet("resnet14")), _shapes(_resnet("resnet14", shortcut="B"))
    extra = {name: shape for name, shape in b.items() if name not in a}
    assert extra == {
        "stage2_block0/projection/conv/kernel": (1, 1, 16, 32),
        "stage2_block0/projection/norm/scale": (32,),
        "stage2_block0/projection/norm/bias": (32,),
        "stage3_block0/projection/conv/kernel": (1, 1, 32, 64),
        "stage3_block0/projection/norm/scale": (64,),
        "stage3_block0/projection/norm/bias": (64,),
    }


def test_names_of_the_parameters():
    names = _shapes(_resnet())
    assert names["stem/conv/kernel"] == (3, 3, 3, 16)
    assert names["stage1_block0/conv1/kernel"] == (3, 3, 16, 16)
    assert names["stage3_block0/norm2/scale"] == (64,)
    assert names["head/kernel"] == (64, 10)


def test_plain_net_is_the_resnet_minus_its_shortcuts(fill):
    assert _shapes(_resnet("plain14")) == _shapes(_resnet("resnet14"))

    x = _positive(2, 6, 6, 2)
    plain, residual = _block("none", strides=2), _block("A", strides=2)
    variables = fill(plain, x, train=False)
    # Far above zero, the last rectifier passes everything, and the sum can be read off.
    variables["params"]["norm2"]["bias"] += 50.0
    out, plain_out = (
        jax.jit(functools.partial(block.apply, train=False))(variables, x)
        for block in (residual, plain)
    )
    np.testing.assert_allclose(out - plain_out, shortcut_a(x, 4, 2), atol=2e-5)


def test_zero_init_residual_makes_every_block_the_identity_at_first():
    x = _positive(2, 6, 6, 4)
    block = _block("A", zero_init_residual=True)
    out, _ = jax.jit(lambda: block.init_with_output(jax.random.key(1), x, train=False))()
    np.testing.assert_array_equal(out, x)


def test_a_dropped_branch_leaves_the_shortcut(fill):
    x = _positive(16, 6, 6, 4)
    block = _block("A", drop_rate=0.5)
    train = functools.partial(block.apply, train=True, mutable=["batch_stats"])
    variables = fill(block, x, train=False)
    out, _ = jax.jit(lambda: train(variables, x, rngs={"dropout": jax.random.key(2)}))()
    unchanged = np.all(np.asarray(out == x), axis=(1, 2, 3))
    assert 0 < unchanged.sum() < 16


def test_maps_halve_twice_and_odd_sizes_round_up():
    module = _resnet()
    images = jnp.zeros((2, 9, 11, 1))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    maps = jax.eval_shape(lambda v: models.intermediates(module, v, images), variables)
    assert {name: value.shape for name, value in maps.items()} == {
        "stage1": (2, 9, 11, 16),
        "stage2": (2, 5, 6, 32),
        "stage3": (2, 3, 3, 64),
        "pre_logits": (2, 64),
    }
