"""ViT: attention and a whole block against numpy, positions against their formula."""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.special import softmax

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.models.vit import EncoderBlock, SelfAttention, sincos_positions


def _thin(**options):
    """ViT with patches of 4 and two narrow blocks."""
    module = models.create(ModelConfig("vit_ti4", ConfigDict(options)), 10)
    return module.clone(width=16, depth=2, num_heads=4)


def _images(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def _dense(x, params):
    return x @ params["kernel"] + params["bias"]


def _layer_norm(x, params):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * params["scale"] + params["bias"]


def _attention(x, params, num_heads):
    """One head after the other, as appendix A writes it."""
    width = x.shape[-1] // num_heads
    query, key, value = (_dense(x, params[name]) for name in ("query", "key", "value"))
    maps, heads = [], []
    for h in range(num_heads):
        part = np.s_[..., h * width : (h + 1) * width]
        scores = query[part] @ key[part].swapaxes(-1, -2) / np.sqrt(width)
        maps.append(softmax(scores, axis=-1))
        heads.append(maps[-1] @ value[part])
    return _dense(np.concatenate(heads, -1), params["out"]), np.stack(maps, 1)


def test_attention_against_numpy(fill):
    x = _images(2, 5, 12)
    layer = SelfAttention(num_heads=3, dtype=jnp.float32)
    variables = fill(layer, x)
    out, attention = jax.jit(layer.apply)(variables, x)
    params = jax.tree.map(np.float64, variables["params"])
    expected, expected_attention = _attention(np.float64(x), params, 3)
    assert attention.shape == (2, 3, 5, 5)
    np.testing.assert_allclose(attention, expected_attention, atol=1e-5)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_a_block_against_numpy(fill):
    x = _images(2, 5, 12)
    block = EncoderBlock(num_heads=3, dropout=0.0, drop_rate=0.0, dtype=jnp.float32)
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


def test_sincos_positions_against_their_formula():
    rows, columns, width = 3, 5, 16
    positions = sincos_positions(rows, columns, width)
    assert positions.shape == (15, 16)
    for row in range(rows):
        for column in range(columns):
            for i in range(4):
                w = 1 / 10_000 ** (i / 3)
                token = np.asarray(positions[row * columns + column])
                expected = [
                    np.sin(column * w),
                    np.cos(column * w),
                    np.sin(row * w),
                    np.cos(row * w),
                ]
                np.testing.assert_allclose(token[i::4], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("pool", "positions", "shape"),
    [
        ("cls", "learned", (1, 7, 16)),
        ("mean", "learned", (1, 6, 16)),
        ("cls", "sincos", None),
        ("mean", "sincos", None),
    ],
)
def test_parameters_of_pools_and_positions(pool, positions, shape):
    module = _thin(pool=pool, positions=positions)
    images = jnp.zeros((1, 8, 12, 3))
    params = jax.eval_shape(lambda: module.init(jax.random.key(0), images))["params"]
    assert ("cls" in params) == (pool == "cls")
    assert ("positions" in params) == (positions == "learned")
    if shape:
        assert params["positions"].shape == shape


def test_initialisation():
    module = _thin()
    images = jnp.zeros((1, 64, 64, 3))
    params = jax.jit(lambda: module.init(jax.random.key(0), images))()["params"]
    assert not params["head"]["kernel"].any()
    assert not params["cls"].any()
    assert np.std(params["positions"]) == pytest.approx(0.02, rel=0.05)
    hidden = params["block0"]["mlp"]["hidden"]
    bound = np.sqrt(6 / (16 + 64))
    assert 0.95 * bound < np.abs(hidden["kernel"]).max() <= bound
    assert 0 < np.abs(hidden["bias"]).max() < 1e-5
    query = np.abs(params["block0"]["self_attention"]["query"]["kernel"]).max()
    assert 0.9 * np.sqrt(6 / 32) < query <= np.sqrt(6 / 32)


def test_a_patch_is_seen_by_its_own_token_in_reading_order(fill):
    # Without blocks, a token is its patch's embedding; so each changed patch changes one.
    module = _thin(pool="mean", positions="sincos").clone(depth=0)
    images = jnp.zeros((1, 8, 12, 1))
    variables = fill(module, images)
    encoded = jax.jit(lambda x: models.intermediates(module, variables, x)["encoded"][0])
    before = encoded(images)
    for token, (row, column) in enumerate([(r, c) for r in range(2) for c in range(3)]):
        after = encoded(images.at[0, 4 * row + 1, 4 * column + 2].set(1.0))
        changed = np.any(np.asarray(before != after), axis=-1)
        assert np.flatnonzero(changed).tolist() == [token]


def test_without_positions_the_order_of_patches_would_not_matter(fill):
    module = _thin()
    images = _images(1, 8, 8, 3)
    swapped = jnp.concatenate([images[:, 4:], images[:, :4]], axis=1)
    variables = fill(module, images)
    logits = jax.jit(lambda v, x: module.apply(v, x, train=False))
    assert not np.allclose(logits(variables, images), logits(variables, swapped), atol=1e-4)

    params = {**variables["params"], "positions": jnp.zeros((1, 5, 16))}
    blind = {"params": params}
    np.testing.assert_allclose(logits(blind, images), logits(blind, swapped), atol=1e-4)


def test_intermediates_of_every_block(fill):
    module = _thin()
    images = _images(2, 8, 12, 3)
    variables = fill(module, images)
    named = jax.jit(lambda: models.intermediates(module, variables, images))()
    assert {name: value.shape for name, value in named.items()} == {
        "block0/attention": (2, 4, 7, 7),
        "block0/output": (2, 7, 16),
        "block1/attention": (2, 4, 7, 7),
        "block1/output": (2, 7, 16),
        "encoded": (2, 7, 16),
        "pre_logits": (2, 16),
    }
    np.testing.assert_allclose(named["block1/attention"].sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(named["encoded"][:, 0], named["pre_logits"])


def test_mean_pooling_is_the_mean_of_the_encoded_tokens(fill):
    module = _thin(pool="mean")
    images = _images(2, 8, 8, 3)
    variables = fill(module, images)
    named = jax.jit(lambda: models.intermediates(module, variables, images))()
    np.testing.assert_allclose(named["pre_logits"], named["encoded"].mean(1), atol=1e-6)


def test_names_of_the_parameters():
    module = _thin()
    params = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3))))
    names = set(flax.traverse_util.flatten_dict(params["params"], sep="/"))
    assert {
        "embedding/kernel",
        "cls",
        "positions",
        "block1/norm1/scale",
        "block1/self_attention/query/kernel",
        "block1/self_attention/out/bias",
        "block1/mlp/hidden/kernel",
        "norm/scale",
        "head/kernel",
    } <= names
