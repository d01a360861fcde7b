"""ConvNeXt: a block and a halving against numpy, defaults by variant, the stem's patches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.signal import correlate2d
from scipy.special import erf

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.errors import UserError
from imgrec.models.convnext import ConvNeXtBlock, Downsample


def _images(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def _layer_norm(x, params):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * params["scale"] + params["bias"]


def _dense(x, params):
    return x @ params["kernel"] + params["bias"]


def test_a_block_against_numpy(fill):
    x = _images(2, 9, 6, 4)
    block = ConvNeXtBlock(layer_scale=1e-6, gelu="erf", drop_rate=0.0, dtype=jnp.float32)
    variables = fill(block, x, train=False)
    out = jax.jit(functools.partial(block.apply, train=False))(variables, x)
    params = jax.tree.map(np.float64, variables["params"])
    x = np.float64(x)
    kernel = params["depthwise"]["kernel"]
    assert kernel.shape == (7, 7, 1, 4)
    y = np.empty_like(x)
    for b in range(2):
        for c in range(4):
            plane = np.pad(x[b, :, :, c], 3)
            y[b, :, :, c] = correlate2d(plane, kernel[:, :, 0, c], mode="valid")
    y = _layer_norm(y + params["depthwise"]["bias"], params["norm"])
    y = _dense(y, params["mlp"]["hidden"])
    assert y.shape[-1] == 16
    y = _dense(0.5 * y * (1 + erf(y / np.sqrt(2))), params["mlp"]["out"])
    expected = x + params["gamma"] * y
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def test_a_halving_against_numpy_leaves_a_last_odd_row_out(fill):
    x = _images(2, 5, 4, 3)
    layer = Downsample(6, dtype=jnp.float32)
    variables = fill(layer, x)
    out = jax.jit(layer.apply)(variables, x)
    params = jax.tree.map(np.float64, variables["params"])
    y = _layer_norm(np.float64(x), params["norm"])
    expected = np.zeros((2, 2, 2, 6)) + params["conv"]["bias"]
    for i in (0, 1):
        for j in (0, 1):
            expected += y[:, i:4:2, j:4:2] @ params["conv"]["kernel"][i, j]
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def test_stochastic_depth_is_the_papers():
    names = ("convnext_atto", "convnext_tiny", "convnext_small", "convnext_base")
    rates = [models.describe(name).options["stochastic_depth"] for name in names]
    assert rates == [0.0, 0.1, 0.4, 0.5]


def _shapes(image_shape, **options):
    module = models.create(ModelConfig("convnext_atto", ConfigDict(options)), 10)
    images = jnp.zeros((1, *image_shape))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    named = jax.eval_shape(lambda v: models.intermediates(module, v, images), variables)
    return {name: value.shape for name, value in named.items()}, variables["params"]


def test_maps_and_names():
    maps, params = _shapes((64, 96, 3))
    assert maps == {
        "stage1": (1, 16, 24, 40),
        "stage2": (1, 8, 12, 80),
        "stage3": (1, 4, 6, 160),
        "stage4": (1, 2, 3, 320),
        "pre_logits": (1, 320),
    }
    assert set(params["stage2_downsample"]) == {"norm", "conv"}
    assert set(params["stage3_block5"]) == {"depthwise", "norm", "mlp", "gamma"}
    assert params["embedding"]["kernel"].shape == (4, 4, 3, 40)


def test_smaller_patches_for_small_images_and_no_layer_scale():
    maps, params = _shapes((8, 8, 1), patch_size=1, layer_scale=0.0)
    assert maps["stage4"] == (1, 1, 1, 320)
    assert set(params["stage1_block0"]) == {"depthwise", "norm", "mlp"}


def test_images_below_one_pixel_are_refused_with_both_ways_out():
    config = ModelConfig("convnext_atto")
    with pytest.raises(UserError, match=r"28x28 .*divides them by 32.*image_size=32.*patch_size=3"):
        models.check(config, 10, (28, 28, 1))
    models.check(ModelConfig("convnext_atto", ConfigDict({"patch_size": 3})), 10, (28, 28, 1))
