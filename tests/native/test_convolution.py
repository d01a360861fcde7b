"""The C++ convolution and its gradients against XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from imgrec.models import cost, lowering
from imgrec.native import build, convolution

LAYOUT = ("NHWC", "HWIO", "NHWC")

# batch, height, width, channels, features, kernel, strides, pads: what each is for.
CASES = {
    "3x3": (3, 8, 8, 16, 16, (3, 3), (1, 1), ((1, 1), (1, 1))),
    "first layer": (3, 9, 7, 3, 16, (3, 3), (1, 1), ((1, 1), (1, 1))),
    "more than one block of features": (2, 6, 6, 5, 40, (3, 3), (1, 1), ((1, 1), (1, 1))),
    "few features": (2, 12, 12, 1, 6, (5, 5), (1, 1), ((0, 0), (0, 0))),
    "wider than a block of pixels": (1, 3, 70, 4, 18, (1, 3), (1, 1), ((0, 0), (1, 1))),
    "strided": (2, 8, 8, 4, 8, (3, 3), (2, 2), ((1, 1), (1, 1))),
    "strided, odd size": (2, 9, 7, 4, 8, (3, 3), (2, 2), ((1, 1), (1, 1))),
    "strided, what is left over is never read": (2, 8, 8, 4, 8, (3, 3), (2, 2), ((0, 0), (0, 0))),
    "TensorFlow's padding": (2, 8, 8, 4, 8, (3, 3), (2, 2), ((0, 1), (0, 1))),
    "stride above the kernel": (2, 9, 9, 4, 8, (2, 2), (3, 3), ((0, 0), (0, 0))),
    "strides that differ": (2, 9, 8, 3, 5, (3, 2), (2, 1), ((1, 1), (0, 1))),
    "pixelwise, strided": (2, 8, 8, 6, 20, (1, 1), (2, 2), ((0, 0), (0, 0))),
    "stem of ImageNet": (1, 24, 24, 3, 10, (7, 7), (2, 2), ((3, 3), (3, 3))),
    "margin wider than the kernel": (1, 4, 4, 2, 3, (2, 2), (1, 1), ((3, 2), (2, 3))),
    "tiles of weights without rest": (2, 5, 19, 32, 32, (3, 3), (1, 1), ((1, 1), (1, 1))),
    "a product": (2, 1, 35, 32, 48, (1, 1), (1, 1), ((0, 0), (0, 0))),
    "one pixel out": (4, 3, 3, 2, 3, (3, 3), (1, 1), ((0, 0), (0, 0))),
    "one example": (1, 5, 5, 1, 1, (3, 3), (1, 1), ((1, 1), (1, 1))),
    "a batch of many parts": (37, 4, 4, 2, 3, (3, 3), (1, 1), ((1, 1), (1, 1))),
}


@pytest.fixture(autouse=True, scope="module")
def kernels():
    with convolution.used():
        yield


def drawn(case, dtype=np.float32):
    batch, height, width, channels, features, kernel, *_ = CASES[case]
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(batch, height, width, channels))
    return jnp.asarray(maps, dtype), jnp.asarray(
        rng.normal(size=(*kernel, channels, features)), dtype
    )


def both(case):
    *_, strides, pads = CASES[case]

    def expected(maps, kernel):
        return lax.conv_general_dilated(maps, kernel, strides, pads, dimension_numbers=LAYOUT)

    return lambda maps, kernel: convolution.convolve(maps, kernel, strides, pads), expected


@pytest.mark.parametrize("case", CASES)
def test_the_convolution_and_both_gradients_are_xlas(case):
    ours, expected = both(case)
    operands = drawn(case)
    y, pull = jax.vjp(expected, *operands)
    found, pull_ours = jax.vjp(ours, *operands)
    gradient = jnp.asarray(np.random.default_rng(1).normal(size=y.shape), jnp.float32)
    pairs = zip((found, *pull_ours(gradient)), (y, *pull(gradient)), strict=True)
    for got, wanted in pairs:
        # Sums of up to a few hundred products of normal numbers, each rounded.
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=3e-5)


# Where AMX is missing the float32 kernels compute these too.
@pytest.mark.parametrize("case", CASES)
def test_bfloat16_is_summed_in_float32_and_rounded_once(case):
    ours, expected = both(case)
    operands = drawn(case, jnp.bfloat16)
    y, pull = jax.vjp(expected, *(x.astype(jnp.float32) for x in operands))
    found, pull_ours = jax.vjp(ours, *operands)
    gradient = jnp.asarray(np.random.default_rng(1).normal(size=y.shape), jnp.bfloat16)
    results = (found, *pull_ours(gradient))
    for got, exact in zip(results, (y, *pull(gradient.astype(jnp.float32))), strict=True):
        assert got.dtype == jnp.bfloat16
        # A half of the last of eight bits, and what the order of summation moves across it.
        np.testing.assert_allclose(got.astype(np.float32), exact, rtol=2**-8, atol=3e-5)


def test_the_matrix_unit_is_used_for_bfloat16_where_there_is_one():
    ours, _ = both("3x3")
    program = str(jax.make_jaxpr(ours)(*drawn("3x3", jnp.bfloat16)))
    assert ("forward_bfloat16" in program) == build.multiplies_bfloat16()
    assert "bfloat16" not in str(jax.make_jaxpr(ours)(*drawn("3x3")))


def test_without_a_matrix_unit_bfloat16_is_widened(monkeypatch):
    monkeypatch.setattr(build, "multiplies_bfloat16", lambda: False)
    ours, expected = both("3x3")
    maps, kernel = drawn("3x3", jnp.bfloat16)
    assert "forward_bfloat16" not in str(jax.make_jaxpr(ours)(maps, kernel))
    exact = expected(maps.astype(jnp.float32), kernel.astype(jnp.float32))
    np.testing.assert_allclose(ours(maps, kernel).astype(np.float32), exact, rtol=2**-8, atol=3e-5)


def test_images_do_not_see_each_other():
    ours, _ = both("3x3")
    maps, kernel = drawn("3x3", jnp.bfloat16)
    spoilt = maps.at[1].set(jnp.inf)
    np.testing.assert_array_equal(
        ours(spoilt, kernel)[::2].astype(np.float32), ours(maps, kernel)[::2].astype(np.float32)
    )


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_the_same_numbers_every_time(dtype):
    ours, _ = both("a batch of many parts")
    operands = drawn("a batch of many parts", dtype)
    gradients = jax.jit(jax.grad(lambda *x: (ours(*x) ** 2).sum(), argnums=(0, 1)))
    first = gradients(*operands)
    for _ in range(5):
        assert all(map(np.array_equal, gradients(*operands), first))


def test_it_runs_inside_loops_and_rematerialised():
    ours, expected = both("3x3")
    maps, kernel = drawn("3x3")

    def loss(convolve):
        def body(x, _):
            return jax.checkpoint(lambda x: jnp.tanh(convolve(x, kernel)))(x), None

        return lambda x: lax.scan(body, x, length=3)[0].sum()

    np.testing.assert_allclose(
        jax.grad(loss(ours))(maps), jax.grad(loss(expected))(maps), rtol=1e-4, atol=1e-5
    )


def test_images_get_no_gradient_that_nobody_asked_for():
    ours, _ = both("first layer")
    maps, kernel = drawn("first layer")
    program = str(jax.make_jaxpr(jax.grad(lambda w: ours(maps, w).sum()))(kernel))
    assert "kernel_gradient" in program
    assert "input_gradient" not in program


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("case", ["3x3", "few features", "strides that differ"])
def test_its_operations_are_counted_as_xlas_convolution(case, dtype):
    ours, expected = both(case)

    def counted(convolve, argnums):
        def of(*operands):
            return jax.grad(lambda *x: convolve(*x).sum(), argnums)(*operands)

        return cost.operations(jax.make_jaxpr(of)(*drawn(case, dtype)).jaxpr)

    assert counted(ours, (1,)) == counted(expected, (1,)) > 0


def convolve_by_lowering(maps, kernel, **options):
    options = {
        "dimension_numbers": lax.conv_dimension_numbers(maps.shape, kernel.shape, LAYOUT)
    } | (options)
    return lowering.conv_general_dilated(maps, kernel, (1, 1), "SAME", **options)


@pytest.mark.parametrize(
    ("options", "dtype", "custom"),
    [
        ({}, np.float32, True),
        ({}, jnp.bfloat16, True),
        ({}, np.float16, False),
        ({"rhs_dilation": (2, 2)}, np.float32, False),
    ],
)
def test_layers_use_it_where_it_fits(options, dtype, custom):
    program = str(
        jax.make_jaxpr(lambda *x: convolve_by_lowering(*x, **options))(*drawn("3x3", dtype))
    )
    assert (convolution.TARGET in program) == custom


def test_layers_use_it_only_where_it_is_wanted():
    with convolution.used(False):
        program = str(jax.make_jaxpr(convolve_by_lowering)(*drawn("3x3")))
    assert convolution.TARGET not in program
    assert convolution.fits(jnp.float32)
