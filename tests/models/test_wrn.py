"""Wide ResNets: widths, the pre-activated block by hand, dropout between the convolutions."""

import jax
import jax.numpy as jnp
import numpy as np

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.models.convolution import conv
from imgrec.models.wrn import PreActivationBlock


def _block(features, strides=1, dropout=0.0):
    return PreActivationBlock(features, strides, dropout, 0.0, jnp.float32)


def _normalised(x):
    """What a batch norm at its initialisation does in evaluation, then the rectifier."""
    return np.maximum(x / np.sqrt(1 + 1e-5), 0)


def _convolved(x, kernel, strides=1):
    layer = conv(kernel.shape[-1], kernel.shape[0], strides=strides, dtype=x.dtype, name="conv")
    return np.asarray(layer.apply({"params": {"kernel": kernel}}, x))


def test_widths_are_16_32_and_64_times_the_factor():
    module = models.create(ModelConfig("wrn10_3"), 10)
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    maps = jax.eval_shape(lambda v: models.intermediates(module, v, images), variables)
    assert {name: value.shape[1:] for name, value in maps.items()} == {
        "stage1": (32, 32, 48),
        "stage2": (16, 16, 96),
        "stage3": (8, 8, 192),
        "pre_logits": (192,),
    }
    assert variables["params"]["stem"]["kernel"].shape == (3, 3, 3, 16)


def test_a_block_that_keeps_the_shape_adds_to_the_raw_input():
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 4)).astype(np.float32)
    out, variables = _block(4).init_with_output(jax.random.key(0), x, train=False)
    params = variables["params"]
    assert "projection" not in params
    y = _convolved(_normalised(x), params["conv1"]["kernel"])
    y = _convolved(_normalised(y), params["conv2"]["kernel"])
    np.testing.assert_allclose(out, x + y, rtol=1e-4, atol=1e-4)


def test_a_block_that_changes_the_shape_projects_the_activated_input():
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype(np.float32)
    out, variables = _block(8, strides=2).init_with_output(jax.random.key(0), x, train=False)
    params = variables["params"]
    activated = _normalised(x)
    y = _convolved(activated, params["conv1"]["kernel"], strides=2)
    y = _convolved(_normalised(y), params["conv2"]["kernel"])
    shortcut = _convolved(activated, params["projection"]["kernel"], strides=2)
    np.testing.assert_allclose(out, shortcut + y, rtol=1e-4, atol=1e-4)


def test_dropout_acts_between_the_convolutions_and_not_on_the_shortcut():
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 4)).astype(np.float32)
    block = _block(4, dropout=0.999999)
    variables = block.init(jax.random.key(0), x, train=False)
    out, _ = block.apply(
        variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(1)}
    )
    np.testing.assert_array_equal(out, x)
