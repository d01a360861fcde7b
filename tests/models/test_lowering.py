"""The CPU's forms of a convolution against XLA's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from imgrec.models import lowering

LAYOUT = ("NHWC", "HWIO", "NHWC")

KINDS = {  # (kernel, input channels, groups)
    "depthwise 3x3": ((3, 3, 1, 6), 6, 6),
    "depthwise 5x3": ((5, 3, 1, 6), 6, 6),
    "pointwise": ((1, 1, 6, 4), 6, 1),
    "grouped": ((3, 3, 3, 4), 6, 2),
    "of a whole map": ((9, 8, 6, 5), 6, 1),
    "two outputs a channel": ((3, 3, 1, 12), 6, 6),
}


def drawn(kind, size=(9, 8), dtype=np.float32):
    kernel, channels, groups = KINDS[kind]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, channels)).astype(dtype)
    return x, rng.normal(size=kernel).astype(dtype), groups


def ours(strides, padding, groups):
    return functools.partial(
        lowering.conv_general_dilated,
        window_strides=strides,
        padding=padding,
        lhs_dilation=(1, 1),
        rhs_dilation=(1, 1),
        dimension_numbers=lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)),
        feature_group_count=groups,
        precision=None,
    )


def xla(strides, padding, groups):
    return functools.partial(
        lax.conv_general_dilated,
        window_strides=strides,
        padding=padding,
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (1, 2)])
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((0, 0), (0, 0)), ((2, 1), (0, 3))])
def test_values_and_gradients_are_the_convolutions(kind, strides, padding):
    x, kernel, groups = drawn(kind)

    def loss(f, x, kernel):
        y = f(strides, padding, groups)(x, kernel)
        return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)), y

    found, expected = (
        jax.jit(jax.grad(functools.partial(loss, f), argnums=(0, 1), has_aux=True))(x, kernel)
        for f in (ours, xla)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, expected)


@pytest.mark.parametrize("kind", ["depthwise 3x3", "pointwise"])
def test_bfloat16_stays_and_sums_are_as_good_as_the_convolutions(kind):
    x, kernel, groups = drawn(kind, dtype=jnp.bfloat16)
    y = jax.jit(ours((1, 1), "SAME", groups))(x, kernel)
    assert y.dtype == jnp.bfloat16
    exact = xla((1, 1), "SAME", groups)(x.astype(np.float32), kernel.astype(np.float32))
    np.testing.assert_allclose(y.astype(np.float32), exact, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("kind", "own_form"),
    [("depthwise 3x3", True), ("pointwise", True), ("grouped", False)],
)
def test_cpus_get_their_own_form_and_gpus_a_convolution(kind, own_form):
    x, kernel, groups = drawn(kind)
    traced = jax.jit(ours((1, 1), "SAME", groups)).trace(x, kernel)
    cpu, gpu = (traced.lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "cuda"))
    assert ("stablehlo.convolution" in cpu) != own_form
    assert "stablehlo.convolution" in gpu


def test_maps_without_pixels_stay_without():
    x, kernel, groups = drawn("pointwise", size=(0, 3))
    assert jax.jit(ours((1, 1), "VALID", groups))(x, kernel).shape == (2, 0, 3, 4)


def test_dilations_are_left_to_xla():
    x, kernel, groups = drawn("depthwise 3x3")
    y = lowering.conv_general_dilated(
        jnp.asarray(x),
        jnp.asarray(kernel),
        (1, 1),
        "SAME",
        rhs_dilation=(2, 2),
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
    )
    expected = xla((1, 1), "SAME", groups)(x, kernel, rhs_dilation=(2, 2))
    np.testing.assert_array_equal(y, expected)
