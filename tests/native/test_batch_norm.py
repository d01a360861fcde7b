"""The C++ batch normalisation and its gradient against the formula and Flax's layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from imgrec.models import convolution as layers
from imgrec.native import batch_norm, convolution

EPSILON = 1e-3
# Channels below, at and between multiples of the processor's vectors; rows in one part and more.
SHAPES = [(2, 3, 3, 5), (4, 8, 8, 16), (7, 11, 24), (130, 5, 64), (3, 2, 2, 131), (6, 1)]


@pytest.fixture(autouse=True, scope="module")
def kernels():
    with convolution.used():
        yield


def drawn(shape, dtype):
    rng = np.random.default_rng(0)
    maps = jnp.asarray(rng.normal(size=shape) * 2 + 3, dtype)
    scale, bias = (jnp.asarray(rng.normal(size=shape[-1]), jnp.float32) for _ in range(2))
    return maps, scale, bias


def by_formula(maps, scale, bias):
    maps = maps.astype(jnp.float32)
    axes = tuple(range(maps.ndim - 1))
    mean, variance = maps.mean(axes), maps.var(axes)
    return (maps - mean) / jnp.sqrt(variance + EPSILON) * scale + bias, mean, variance


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_results_and_gradients_are_the_formulas(shape, dtype):
    operands = drawn(shape, dtype)
    wide = (operands[0].astype(jnp.float32), *operands[1:])
    expected, pull = jax.vjp(by_formula, *wide)
    found, pull_ours = jax.vjp(lambda *x: batch_norm.batch_norm(*x, EPSILON), *operands)
    assert [x.dtype for x in found] == [dtype, jnp.float32, jnp.float32]
    rng = np.random.default_rng(1)
    # Of the statistics too, though training has no use for them.
    pulled = [jnp.asarray(rng.normal(size=x.shape), x.dtype) for x in found]
    exact = pull(tuple(x.astype(jnp.float32) for x in pulled))
    gradients = pull_ours(tuple(pulled))
    assert gradients[0].dtype == dtype
    half = 2**-8 if dtype == jnp.bfloat16 else 1e-5  # of the last bit
    for got, wanted in zip((*found, *gradients), (*expected, *exact), strict=True):
        np.testing.assert_allclose(got.astype(np.float32), wanted, rtol=half, atol=2e-5 * 5)


def test_a_mean_far_from_zero_costs_the_variance_no_digits():
    maps = jnp.asarray(np.random.default_rng(0).normal(size=(4096, 16)) + 1000, jnp.float32)
    _, _, variance = batch_norm.batch_norm(maps, jnp.ones(16), jnp.zeros(16), EPSILON)
    np.testing.assert_allclose(variance, np.var(np.asarray(maps, np.float64), 0), rtol=1e-4)


def test_what_is_no_number_stays_so_in_its_channel():
    maps, scale, bias = drawn((4, 8, 8, 16), jnp.bfloat16)
    y, *_ = batch_norm.batch_norm(maps.at[1, 2, 3, 4].set(jnp.nan), scale, bias, EPSILON)
    spoilt = np.isnan(y.astype(np.float32)).reshape(-1, 16).all(0)
    np.testing.assert_array_equal(spoilt, np.arange(16) == 4)
    assert np.isnan(y.astype(np.float32)).sum() == 4 * 8 * 8


def test_the_same_numbers_every_time():
    operands = drawn((64, 8, 8, 16), jnp.bfloat16)
    first = batch_norm.batch_norm(*operands, EPSILON)
    for _ in range(5):
        assert all(map(np.array_equal, batch_norm.batch_norm(*operands, EPSILON), first))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_layer_learns_and_remembers_what_flaxs_does(dtype):
    maps, *_ = drawn((4, 8, 8, 16), dtype)
    ours = layers.batch_norm(train=True, dtype=dtype, name="norm")
    theirs = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5, dtype=dtype)
    variables = theirs.init(jax.random.key(0), maps)
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(0), maps)) == jax.tree.map(
        jnp.shape, variables
    )

    def loss(layer):
        def of(params):
            y, changed = layer.apply({**variables, "params": params}, maps, mutable=["batch_stats"])
            return (y.astype(jnp.float32) ** 3).mean(), changed

        return jax.value_and_grad(of, has_aux=True)(variables["params"])

    assert batch_norm.TARGET in str(jax.make_jaxpr(lambda: loss(ours))())
    tolerance = 1e-2 if dtype == jnp.bfloat16 else 1e-4
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        loss(ours),
        loss(theirs),
    )


def test_evaluation_and_other_machines_have_flaxs_layer():
    maps, *_ = drawn((4, 8, 8, 16), jnp.float32)
    layer = layers.batch_norm(train=True, dtype=jnp.float32, name="norm")
    variables = layer.init(jax.random.key(0), maps)

    def program(train):
        layer = layers.batch_norm(train=train, dtype=jnp.float32, name="norm")
        return str(
            jax.make_jaxpr(lambda x: layer.apply(variables, x, mutable=["batch_stats"]))(maps)
        )

    assert batch_norm.TARGET in program(True)
    assert batch_norm.TARGET not in program(False)
    with convolution.used(False):
        assert batch_norm.TARGET not in program(True)
