"""Pooling against numpy, one output pixel after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from imgrec.models.pooling import (
    adaptive_mean,
    blur_pool,
    halving_mean,
    max_pool_2x2,
    max_pool_3x3,
)


def _maps(*shape):
    return np.random.default_rng(0).normal(-5, 1, size=shape).astype(np.float32)


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("shape", [(2, 6, 7, 3), (1, 1, 2, 1)])
def test_the_border_of_max_pooling_is_never_the_maximum(strides, shape):
    x = _maps(*shape)  # negative, so that a border of zeros would win
    out = max_pool_3x3(jnp.asarray(x), strides=strides)
    rows, columns = (-(-size // strides) for size in shape[1:3])
    assert out.shape == (shape[0], rows, columns, shape[3])
    for i in range(rows):
        for j in range(columns):
            top, left = strides * i, strides * j
            window = x[:, max(0, top - 1) : top + 2, max(0, left - 1) : left + 2]
            np.testing.assert_array_equal(out[:, i, j], window.max((1, 2)))


@pytest.mark.parametrize("shape", [(2, 6, 8, 3), (2, 5, 7, 2), (1, 2, 3, 1)])
def test_pooling_of_squares_and_its_gradient_are_xlas(shape):
    def expected(x):
        return nn.max_pool(x, (2, 2), (2, 2))

    # Few levels, so that squares have several largest pixels.
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, shape), jnp.float32)
    y, pull = jax.vjp(expected, x)
    found, pull_found = jax.vjp(max_pool_2x2, x)
    gradient = jnp.arange(1.0, y.size + 1).reshape(y.shape)
    np.testing.assert_array_equal(found, y)
    np.testing.assert_array_equal(pull_found(gradient)[0], pull(gradient)[0])


@pytest.mark.parametrize("where", range(4))
def test_a_square_with_a_nan_is_one(where):
    x = jnp.arange(4.0).at[where].set(jnp.nan).reshape(1, 2, 2, 1)
    assert jnp.isnan(max_pool_2x2(x)).all()


def test_squares_at_an_odd_edge_are_averaged_over_the_pixels_they_have():
    x = _maps(2, 5, 4, 3)
    out = halving_mean(jnp.asarray(x))
    assert out.shape == (2, 3, 2, 3)
    for i in range(3):
        for j in range(2):
            window = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            np.testing.assert_allclose(out[:, i, j], window.mean((1, 2)), rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 6, 7, 3), (1, 5, 2, 1)])
def test_blur_pooling_smooths_and_then_takes_every_other_pixel(shape):
    x = _maps(*shape)
    mirrored = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
    windows = np.lib.stride_tricks.sliding_window_view(mirrored, (3, 3), axis=(1, 2))
    expected = np.einsum("bhwcij,ij->bhwc", windows, weights)[:, ::2, ::2]
    np.testing.assert_allclose(blur_pool(jnp.asarray(x)), expected, rtol=1e-5)


def test_the_finest_checkerboard_vanishes_instead_of_aliasing():
    board = (np.indices((8, 8)).sum(0) % 2).astype(np.float32)[None, :, :, None]
    np.testing.assert_allclose(blur_pool(jnp.asarray(board)), 0.5, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(14, 7), (10, 9), (1, 3), (7, 7)])
def test_adaptive_mean_gives_each_output_pixel_its_share(height, width):
    x = _maps(2, height, width, 3)
    out = adaptive_mean(jnp.asarray(x), 7)
    assert out.shape == (2, 7, 7, 3)
    for i in range(7):
        for j in range(7):
            rows = slice(i * height // 7, -(-(i + 1) * height // 7))
            columns = slice(j * width // 7, -(-(j + 1) * width // 7))
            expected = x[:, rows, columns].mean((1, 2))
            np.testing.assert_allclose(out[:, i, j], expected, rtol=1e-5)


def test_a_map_of_the_right_size_costs_nothing():
    program = jax.make_jaxpr(lambda x: adaptive_mean(x, 7))(jnp.zeros((1, 7, 7, 2)))
    assert not program.eqns
