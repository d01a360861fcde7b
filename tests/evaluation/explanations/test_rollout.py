import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.evaluation.explanations import taps
from imgrec.evaluation.explanations.rollout import attention_tap, rollout
from imgrec.evaluation.explanations.taps import UnsupportedError


class Attention(nn.Module):
    """Says that it attended as it was told."""

    depth: int
    tokens: int
    pool: str
    distillation: bool = False
    patch_size: int = 4

    @nn.compact
    def __call__(self, x, train=False):
        shape = (self.depth, 2, self.tokens, self.tokens)
        weights = self.param("attention", nn.initializers.zeros, shape)
        for block in range(self.depth):
            value = jnp.broadcast_to(weights[block], (len(x), *shape[1:]))
            self.sow("intermediates", f"block{block}/attention", value)
        return jnp.zeros((len(x), 2))


def attended(depth, tokens, seed=0):
    scores = np.random.default_rng(seed).gumbel(size=(depth, 2, tokens, tokens)) * 2
    weights = np.exp(scores)
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def rolled(module, attention, subject_of):
    """The rollout of images of 8x12 pixels, hence 2x3 patches, at the centres of the patches."""
    subject = subject_of(module, (8, 12, 3), params={"attention": attention})
    tap = attention_tap(subject, taps.intermediates(subject))
    maps = rollout(subject, tap, subject.variables, jnp.zeros((2, 8, 12, 3), jnp.uint8))
    assert maps.shape == (2, 8, 12)
    np.testing.assert_array_equal(maps[0], maps[1])
    # A patch's centre lies between pixels 1 and 2 of its 4, where the map is linear.
    quarters = np.asarray(maps[0], np.float64).reshape(2, 4, 3, 4)[:, 1:3, :, 1:3]
    return quarters, tap


def spread(patches):
    """What a map of 2x3 patches is at the four pixels around each patch's centre."""
    tap_rows = np.array([[1, 0], [0.875, 0.125], [0.125, 0.875], [0, 1]])
    columns = np.array(
        [[1, 0, 0], [0.875, 0.125, 0], [0.125, 0.875, 0], [0, 0.875, 0.125], [0, 0.125, 0.875]]
    )
    columns = np.concatenate([columns, [[0, 0, 1]]])
    return np.einsum("ri,cj,ij->rc", tap_rows, columns, patches).reshape(2, 2, 3, 2)


def by_hand(attention):
    flow = np.eye(attention.shape[-1])
    for block in attention.astype(np.float64).mean(axis=1):
        flow = (0.5 * block + 0.5 * np.eye(len(block))) @ flow
    return flow


@pytest.mark.parametrize("depth", [1, 2, 11])  # block10 comes after block9
def test_a_class_token_is_followed_back_through_all_blocks(depth, subject_of):
    attention = attended(depth, 7)
    found, tap = rolled(Attention(depth, 7, "cls"), attention, subject_of)
    expected = by_hand(attention)[0, 1:].reshape(2, 3)
    assert (tap.grid, tap.extra) == ((2, 3), 1)
    np.testing.assert_allclose(found, spread(expected), rtol=1e-4)


def test_a_mean_follows_all_patches(subject_of):
    attention = attended(3, 8)  # two registers before the patches
    found, tap = rolled(Attention(3, 8, "mean"), attention, subject_of)
    expected = by_hand(attention)[2:, 2:].mean(axis=0).reshape(2, 3)
    assert tap.extra == 2
    np.testing.assert_allclose(found, spread(expected), rtol=1e-4)


@pytest.mark.parametrize(("pool", "tokens"), [("cls", 8), ("mean", 7)])
def test_of_two_heads_both_are_followed(pool, tokens, subject_of):
    attention = attended(2, tokens)
    found, tap = rolled(Attention(2, tokens, pool, distillation=True), attention, subject_of)
    flow = by_hand(attention)[:, tap.extra :]
    read = flow[:2].mean(axis=0)
    if pool == "mean":
        read = (flow[1:].mean(axis=0) + flow[0]) / 2
    np.testing.assert_allclose(found, spread(read.reshape(2, 3)), rtol=1e-4)


def test_a_token_that_attends_to_itself_alone_came_from_nowhere_else(subject_of):
    attention = np.broadcast_to(np.eye(7, dtype=np.float32), (4, 2, 7, 7))
    found, _ = rolled(Attention(4, 7, "cls"), attention, subject_of)
    assert not found.any()


def test_networks_without_attention_over_the_image_are_told_apart(subject_of):
    def created(name, **fields):
        return models.create(ModelConfig(name, ConfigDict()), 5).clone(**fields)

    swin = subject_of(created("swin_t", depths=(1, 1), width=32), (16, 16, 3))
    with pytest.raises(UnsupportedError, match="attends within windows"):
        attention_tap(swin, taps.intermediates(swin))
    mixer = subject_of(created("mixer_s8", width=16, depth=1), (16, 16, 3))
    with pytest.raises(UnsupportedError, match="no attention among places"):
        attention_tap(mixer, taps.intermediates(mixer))
