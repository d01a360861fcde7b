"""Swin: shifted windows against attention computed place by place, merging, switches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.special import softmax

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.errors import UserError
from imgrec.models.swin import PatchMerging, WindowAttention, offsets


def _images(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def _thin(**options):
    module = models.create(ModelConfig("swin_t", ConfigDict(options)), 10)
    return module.clone(width=32, depths=(2, 2), window_size=3, patch_size=2)


def _dense(x, params):
    return x @ params["kernel"] + params["bias"]


def _reference(x, params, side, shifts):
    """Attention of each place with all those that a regular grid, moved by `shifts`, puts with
    it, one head of all channels; windows at the map's ends are cut off, not wrapped around.
    """
    height, width, channels = x.shape
    attend = params["attend"]
    query, key, value = (_dense(x, attend[name]) for name in ("query", "key", "value"))
    out = np.empty_like(x)
    for row in range(height):
        for column in range(width):
            window = (row - shifts[0]) // side, (column - shifts[1]) // side
            together = [
                (r, c)
                for r in range(height)
                for c in range(width)
                if ((r - shifts[0]) // side, (c - shifts[1]) // side) == window
            ]
            scores, values = [], []
            for r, c in together:
                number = (row - r + side - 1) * (2 * side - 1) + column - c + side - 1
                score = query[row, column] @ key[r, c] / np.sqrt(channels)
                scores.append(score + params["positions"][number, 0])
                values.append(value[r, c])
            out[row, column] = softmax(scores) @ np.array(values)
    return _dense(out, attend["out"])


@pytest.mark.parametrize(
    ("size", "shifted", "shifts"),
    [
        ((8, 12), False, (0, 0)),
        ((8, 12), True, (2, 2)),
        ((4, 8), True, (0, 2)),  # one window high: nowhere to shift
        ((4, 4), True, (0, 0)),
    ],
)
def test_shifted_windows_against_attention_place_by_place(fill, size, shifted, shifts):
    x = _images(2, *size, 32)
    layer = WindowAttention(4, shifted, dtype=jnp.float32)
    variables = fill(layer, x)
    out, attention = jax.jit(layer.apply)(variables, x)
    assert attention.shape == (2, size[0] * size[1] // 16, 1, 16, 16)
    np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-5)
    params = jax.tree.map(np.float64, variables["params"])
    for image, result in zip(np.float64(x), out, strict=True):
        np.testing.assert_allclose(result, _reference(image, params, 4, shifts), atol=2e-5)


def test_a_map_that_windows_do_not_tile_is_padded_below_and_to_the_right(fill):
    x = _images(2, 5, 6, 32)
    layer = WindowAttention(4, True, dtype=jnp.float32)
    variables = fill(layer, x)
    out, _ = jax.jit(layer.apply)(variables, x)
    padded = jnp.pad(x, ((0, 0), (0, 3), (0, 2), (0, 0)))
    expected, _ = jax.jit(layer.apply)(variables, padded)
    assert out.shape == x.shape
    np.testing.assert_allclose(out, expected[:, :5, :6], atol=1e-6)


def test_offsets_of_a_window_of_two():
    # Places (0, 0), (0, 1), (1, 0), (1, 1); offset (0, 0) is number 4 of 9.
    assert offsets(2).tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]


def test_merging_against_numpy_with_zeros_for_an_odd_row(fill):
    x = _images(2, 5, 4, 3)
    layer = PatchMerging(dtype=jnp.float32)
    variables = fill(layer, x)
    out = jax.jit(layer.apply)(variables, x)
    params = jax.tree.map(np.float64, variables["params"])
    x = np.pad(np.float64(x), ((0, 0), (0, 1), (0, 0), (0, 0)))
    assert out.shape == (2, 3, 2, 6)
    for row in range(3):
        for column in range(2):
            square = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            y = square.swapaxes(1, 2).reshape(2, -1)
            y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
            y = y * params["norm"]["scale"] + params["norm"]["bias"]
            expected = y @ params["reduction"]["kernel"]
            np.testing.assert_allclose(out[:, row, column], expected, atol=1e-5)


def test_maps_and_attention_on_request(fill):
    module = _thin()
    images = _images(2, 24, 16, 3)
    variables = fill(module, images)
    named = jax.eval_shape(lambda: models.intermediates(module, variables, images))
    shapes = {name: value.shape for name, value in named.items()}
    assert shapes["stage1"] == (2, 12, 8, 32)
    assert shapes["stage2"] == (2, 6, 4, 64)
    assert shapes["pre_logits"] == (2, 64)
    # 12 x 8 places are 4 x 3 windows of 3 x 3, the last column of them padded.
    assert shapes["stage1_block1/attention"] == (2, 12, 1, 9, 9)
    assert shapes["stage2_block0/attention"] == (2, 4, 2, 9, 9)


def _reach(fill, **options):
    """Places of the first stage's map that a change of one pixel reaches."""
    module = _thin(**options)
    images = jnp.zeros((1, 12, 12, 3))
    variables = fill(module, images)
    stage = jax.jit(lambda x: models.intermediates(module, variables, x)["stage1"][0])
    changed = np.any(stage(images) != stage(images.at[0, 0, 0].set(3.0)), axis=-1)
    return np.argwhere(changed).max(0).tolist()


def test_shifts_carry_beyond_a_window_and_switches_take_that_away(fill):
    assert _reach(fill) == [3, 3]  # the second block's windows join rows 1, 2 and 3
    assert _reach(fill, shift=False) == [2, 2]
    assert _reach(fill, self_attention=False) == [0, 0]


def test_defaults_are_the_papers():
    rates = [models.describe(name).options["stochastic_depth"] for name in ("swin_t", "swin_s")]
    assert rates == [0.2, 0.3]
    assert models.create(ModelConfig("swin_t"), 10).gelu == "erf"


def test_images_smaller_than_a_patch_are_refused():
    with pytest.raises(UserError, match=r"3x8 .*smaller than the patches.*patch_size=3"):
        models.check(ModelConfig("swin_t"), 10, (3, 8, 3))
    models.check(ModelConfig("swin_t"), 10, (4, 4, 3))
