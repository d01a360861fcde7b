"""Padding and normalisation against scipy and the definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d

from imgrec.models.convolution import ConvNorm, batch_norm, conv, he_normal_fan_out


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize(("kernel_size", "strides"), [(3, 1), (3, 2), (5, 2), (1, 2)])
def test_conv_is_a_padded_correlation_that_keeps_every_strides_th_pixel(size, kernel_size, strides):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(size, size)).astype(np.float32)
    layer = conv(1, kernel_size, strides=strides, dtype=np.float32, name="conv")
    out, variables = layer.init_with_output(jax.random.key(0), image[None, :, :, None])
    assert set(variables["params"]) == {"kernel"}
    kernel = np.asarray(variables["params"]["kernel"])[:, :, 0, 0]
    margin = (kernel_size - 1) // 2
    expected = correlate2d(np.pad(image, margin), kernel, mode="valid")[::strides, ::strides]
    assert expected.shape == (-(-size // strides),) * 2
    np.testing.assert_allclose(out[0, :, :, 0], expected, atol=1e-5)


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_padding_same_is_tensorflows(size, kernel_size):
    # n pixels become ceil(n / 2); the zeros that this takes go half before and half after, and
    # an odd one after.
    image = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    layer = conv(1, kernel_size, strides=2, padding="same", dtype=np.float32, name="conv")
    out, variables = layer.init_with_output(jax.random.key(0), image[None, :, :, None])
    kernel = np.asarray(variables["params"]["kernel"])[:, :, 0, 0]
    total = (-(-size // 2) - 1) * 2 + kernel_size - size
    padded = np.pad(image, (total // 2, total - total // 2))
    expected = correlate2d(padded, kernel, mode="valid")[::2, ::2]
    np.testing.assert_allclose(out[0, :, :, 0], expected, atol=1e-5)


@pytest.mark.parametrize("groups", [2, 64])
def test_groups_see_their_own_channels_and_start_by_their_own_fan_out(groups):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 5, 64)), jnp.float32)
    layer = conv(128, 3, groups=groups, dtype=np.float32, name="conv")
    variables = jax.jit(lambda: layer.init(jax.random.key(0), x))()
    kernel = variables["params"]["kernel"]
    assert kernel.shape == (3, 3, 64 // groups, 128)
    assert np.std(kernel) == pytest.approx(np.sqrt(2 * groups / (9 * 128)), rel=0.1)
    apply = jax.jit(layer.apply)
    changed = apply(variables, x) != apply(variables, x.at[..., 0].add(1.0))
    reached = np.flatnonzero(np.any(changed, axis=(0, 1, 2)))
    assert reached.tolist() == list(range(128 // groups))


def test_kernels_start_normal_with_variance_two_over_fan_out():
    kernel = he_normal_fan_out(jax.random.key(0), (3, 3, 16, 64))
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.03)
    # Not truncated: about 25 of these 9,216 lie beyond three standard deviations.
    assert 10 < np.sum(np.abs(kernel) > 3 * np.sqrt(2 / (9 * 64))) < 50


def test_batch_norm_in_training_normalises_by_the_batch_and_moves_by_a_tenth():
    x = np.random.default_rng(0).normal(3, 2, size=(6, 4, 4, 5)).astype(np.float32)
    layer = batch_norm(train=True, dtype=np.float32, name="norm")
    variables = layer.init(jax.random.key(0), x)
    out, updates = layer.apply(variables, x, mutable=["batch_stats"])
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(out, (x - mean) / np.sqrt(var + 1e-5), atol=1e-4)
    np.testing.assert_allclose(updates["batch_stats"]["mean"], 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(updates["batch_stats"]["var"], 0.9 + 0.1 * var, rtol=1e-4)


def test_batch_norm_in_evaluation_normalises_by_the_moving_statistics():
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 2)).astype(np.float32)
    variables = {
        "params": {"scale": np.float32([2, 3]), "bias": np.float32([0.5, -1])},
        "batch_stats": {"mean": np.float32([1, -1]), "var": np.float32([4, 0.25])},
    }
    layer = batch_norm(train=False, dtype=np.float32, name="norm")
    out = layer.apply(variables, x)
    expected = (x - [1, -1]) / np.sqrt(np.add([4, 0.25], 1e-5)) * [2, 3] + [0.5, -1]
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def test_statistics_stay_float32_under_bfloat16():
    # In bfloat16 a mean of 512 + 1 would be 512.
    x = np.full((4, 4, 4, 2), 513, np.float32)
    layer = batch_norm(train=True, dtype="bfloat16", name="norm")
    out, updates = layer.init_with_output(jax.random.key(0), x)
    assert out.dtype == "bfloat16"
    _, updates = layer.apply(updates, x, mutable=["batch_stats"])
    assert updates["batch_stats"]["mean"].dtype == np.float32


def test_momentum_and_epsilon_of_a_batch_norm():
    x = np.random.default_rng(0).normal(3, 2, size=(6, 4, 4, 5)).astype(np.float32)
    layer = batch_norm(train=True, momentum=0.99, epsilon=0.5, dtype=np.float32, name="norm")
    out, updates = layer.apply(layer.init(jax.random.key(0), x), x, mutable=["batch_stats"])
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(out, (x - mean) / np.sqrt(var + 0.5), atol=1e-4)
    np.testing.assert_allclose(updates["batch_stats"]["mean"], 0.01 * mean, rtol=1e-4)


def test_conv_norm_has_both_layers():
    x = jnp.ones((2, 8, 8, 3))
    layer = ConvNorm(4, strides=2)
    out, variables = jax.eval_shape(
        lambda: layer.init_with_output(jax.random.key(0), x, train=False)
    )
    assert out.shape == (2, 4, 4, 4)
    assert set(variables["params"]) == {"conv", "norm"}
