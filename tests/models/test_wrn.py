"""Wide ResNets: widths, the pre-activated block by hand, dropout between the convolutions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.models.wrn import PreActivationBlock


def _block(features, strides=1, dropout=0.0):
    return PreActivationBlock(features, strides, dropout, 0.0, jnp.float32)


def _computed(block, x, fill):
    """What a block returns in evaluation, and its variables."""
    variables = fill(block, x, train=False)
    return jax.jit(lambda: block.apply(variables, x, train=False))(), variables


def _activated(x, variables, name):
    """A batch norm in evaluation, then the rectifier."""
    params, moving = variables["params"][name], variables["batch_stats"][name]
    x = (x - moving["mean"]) / np.sqrt(moving["var"] + 1e-5)
    return np.maximum(x * params["scale"] + params["bias"], 0)


def _convolved(x, kernel, strides=1):
    """A sum of correlations, one for each pair of channels."""
    margin = kernel.shape[0] // 2
    x = np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return np.einsum("bhwcij,ijcf->bhwf", windows[:, ::strides, ::strides], kernel)


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


def test_a_block_that_keeps_the_shape_adds_to_the_raw_input(fill):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 5, 4)), jnp.float32)
    out, variables = _computed(_block(4), x, fill)
    params = variables["params"]
    assert "projection" not in params
    y = _convolved(_activated(x, variables, "norm1"), params["conv1"]["kernel"])
    y = _convolved(_activated(y, variables, "norm2"), params["conv2"]["kernel"])
    np.testing.assert_allclose(out, x + y, rtol=1e-4, atol=1e-4)


def test_a_block_that_changes_the_shape_projects_the_activated_input(fill):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6, 4)), jnp.float32)
    out, variables = _computed(_block(8, strides=2), x, fill)
    params = variables["params"]
    activated = _activated(x, variables, "norm1")
    y = _convolved(activated, params["conv1"]["kernel"], strides=2)
    y = _convolved(_activated(y, variables, "norm2"), params["conv2"]["kernel"])
    shortcut = _convolved(activated, params["projection"]["kernel"], strides=2)
    np.testing.assert_allclose(out, shortcut + y, rtol=1e-4, atol=1e-4)


def test_dropout_acts_between_the_convolutions_and_not_on_the_shortcut(fill):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 5, 4)), jnp.float32)
    block = _block(4, dropout=0.999999)
    train = functools.partial(block.apply, train=True, mutable=["batch_stats"])
    variables = fill(block, x, train=False)
    out, _ = jax.jit(lambda: train(variables, x, rngs={"dropout": jax.random.key(1)}))()
    np.testing.assert_array_equal(out, x)
