"""The transformers' parts against numpy: attention, MLP, a whole block, and their options."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, softmax

from imgrec.models.transformer import MLP, EncoderBlock, SelfAttention


def _images(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def _dense(x, params):
    return x @ params["kernel"] + params["bias"]


def _layer_norm(x, params):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * params["scale"] + params["bias"]


def _attention(x, params, num_heads, bias=0.0):
    """One head after the other, as appendix A writes it; bias [batch, heads, queries, keys]."""
    bias = np.broadcast_to(bias, (len(x), num_heads, x.shape[1], x.shape[1]))
    width = x.shape[-1] // num_heads
    query, key, value = (_dense(x, params[name]) for name in ("query", "key", "value"))
    maps, heads = [], []
    for h in range(num_heads):
        part = np.s_[..., h * width : (h + 1) * width]
        q, k = query[part], key[part]
        if "norm_query" in params:
            q, k = _layer_norm(q, params["norm_query"]), _layer_norm(k, params["norm_key"])
        scores = q @ k.swapaxes(-1, -2) / np.sqrt(width)
        maps.append(softmax(scores + bias[:, h], axis=-1))
        heads.append(maps[-1] @ value[part])
    return _dense(np.concatenate(heads, -1), params["out"]), np.stack(maps, 1)


def test_attention_against_numpy(fill):
    x = _images(2, 5, 12)
    layer = SelfAttention(num_heads=3)
    variables = fill(layer, x)
    out, attention = jax.jit(layer.apply)(variables, x)
    params = jax.tree.map(np.float64, variables["params"])
    expected, expected_attention = _attention(np.float64(x), params, 3)
    assert attention.shape == (2, 3, 5, 5)
    np.testing.assert_allclose(attention, expected_attention, atol=1e-5)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_a_block_against_numpy(fill):
    x = _images(2, 5, 12)
    block = EncoderBlock(num_heads=3, dropout=0.0, drop_rate=0.0)
    variables = fill(block, x, train=False)
    out = jax.jit(functools.partial(block.apply, train=False))(variables, x)
    params = jax.tree.map(np.float64, variables["params"])
    x = np.float64(x)
    y, _ = _attention(_layer_norm(x, params["norm1"]), params["self_attention"], 3)
    x = x + y
    y = _dense(_layer_norm(x, params["norm2"]), params["mlp"]["hidden"])
    gelu = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
    expected = x + _dense(gelu, params["mlp"]["out"])
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def test_normalised_queries_and_keys_against_numpy(fill):
    x = _images(2, 5, 12)
    layer = SelfAttention(num_heads=3, qk_norm=True)
    variables = fill(layer, x)
    assert variables["params"]["norm_query"]["scale"].shape == (4,)
    out, attention = jax.jit(layer.apply)(variables, x)
    params = jax.tree.map(np.float64, variables["params"])
    expected, expected_attention = _attention(np.float64(x), params, 3)
    np.testing.assert_allclose(attention, expected_attention, atol=1e-5)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_normalised_scores_do_not_grow_with_the_tokens(fill):
    x = _images(1, 4, 8)
    layer = SelfAttention(num_heads=2, qk_norm=True)
    variables = fill(layer, x)
    params = variables["params"]
    for name in ("query", "key"):
        params[name]["bias"] *= 0
    _, attention = jax.jit(layer.apply)(variables, x)
    _, louder = jax.jit(layer.apply)(variables, 100 * x)
    np.testing.assert_allclose(attention, louder, atol=1e-4)


def test_a_bias_for_each_group_is_added_to_the_scores(fill):
    # Three images of two windows each.
    x = _images(6, 4, 8)
    bias = _images(2, 2, 4, 4)
    layer = SelfAttention(num_heads=2)
    variables = fill(layer, x)
    out, attention = jax.jit(layer.apply)(variables, x, bias)
    params = jax.tree.map(np.float64, variables["params"])
    expected, expected_attention = _attention(
        np.float64(x), params, 2, np.tile(np.float64(bias), (3, 1, 1, 1))
    )
    np.testing.assert_allclose(attention, expected_attention, atol=1e-5)
    np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 8), (2, 5, 8), (2, 3, 4, 8)])
def test_mlp_with_the_exact_gelu_over_any_positions(fill, shape):
    x = _images(*shape)
    layer = MLP(6, gelu="erf")
    variables = fill(layer, x, train=False)
    out = jax.jit(functools.partial(layer.apply, train=False))(variables, x)
    params = jax.tree.map(np.float64, variables["params"])
    y = _dense(np.float64(x), params["hidden"])
    expected = _dense(0.5 * y * (1 + erf(y / np.sqrt(2))), params["out"])
    assert out.shape == shape
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def test_layer_scale_multiplies_each_branch(fill):
    x = _images(2, 5, 12)
    plain = EncoderBlock(num_heads=3, dropout=0.0, drop_rate=0.0)
    scaled = EncoderBlock(num_heads=3, dropout=0.0, drop_rate=0.0, layer_scale=1e-4)
    variables = fill(scaled, x, train=False)
    params = variables["params"]
    assert params["gamma1"].shape == params["gamma2"].shape == (12,)
    params["gamma1"], params["gamma2"] = jnp.full(12, 2.0), jnp.full(12, -3.0)
    out = jax.jit(functools.partial(scaled.apply, train=False))(variables, x)
    # The same by scaling the last layers of a block without.
    for layer, factor in (("self_attention", 2.0), ("mlp", -3.0)):
        params[layer]["out"] = jax.tree.map(lambda p, f=factor: f * p, params[layer]["out"])
    rest = {name: value for name, value in params.items() if not name.startswith("gamma")}
    expected = jax.jit(functools.partial(plain.apply, train=False))({"params": rest}, x)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
