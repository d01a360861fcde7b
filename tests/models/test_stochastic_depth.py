"""Stochastic depth: expectation, whole examples, and the linear rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgrec.models.stochastic_depth import StochasticDepth, linear_decay


def _drop(rate, branch, key=0, train=True):
    layer = StochasticDepth(rate)
    return np.asarray(layer.apply({}, branch, train=train, rngs={"dropout": jax.random.key(key)}))


def test_each_example_is_kept_whole_or_dropped_whole():
    branch = jax.random.normal(jax.random.key(1), (64, 3, 3, 2))
    out = _drop(0.4, branch)
    kept = np.any(out != 0, axis=(1, 2, 3))
    assert 0 < kept.sum() < 64
    np.testing.assert_allclose(out[kept], branch[kept] / 0.6, rtol=1e-5)
    assert not out[~kept].any()


def test_the_expectation_is_the_branch():
    branch = jnp.full((20_000, 1), 3.0)
    out = _drop(0.3, branch)
    # Standard error of the mean: 3 sqrt(0.3 / 0.7 / 20,000) = 0.014.
    assert out.mean() == pytest.approx(3.0, abs=0.06)


def test_evaluation_and_rate_zero_change_nothing_and_need_no_rng():
    branch = jnp.ones((4, 2))
    assert np.array_equal(_drop(0.5, branch, train=False), branch)
    assert np.array_equal(StochasticDepth(0.5).apply({}, branch, train=False), branch)
    assert np.array_equal(StochasticDepth(0.0).apply({}, branch, train=True), branch)


def test_the_dtype_stays():
    branch = jnp.ones((4, 2), jnp.bfloat16)
    assert _drop(0.5, branch).dtype == branch.dtype


def test_rates_rise_linearly_to_the_last_block():
    rates = [linear_decay(0.5, block, 4) for block in range(4)]
    assert rates == [0.125, 0.25, 0.375, 0.5]
