"""MLP-Mixer: the names and the function of the authors' networks, which are in Flax."""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.transfer import mapping, tables

SHAPE = (16, 24, 3)


class MlpBlock(nn.Module):
    """Its two layers have the names that Flax gives."""

    hidden: int

    @nn.compact
    def __call__(self, x):
        y = nn.gelu(nn.Dense(self.hidden)(x))
        return nn.Dense(x.shape[-1])(y)


class MixerBlock(nn.Module):
    """Equation 1 of the paper."""

    token_hidden: int
    channel_hidden: int

    @nn.compact
    def __call__(self, x):
        mixed = MlpBlock(self.token_hidden, name="token_mixing")(nn.LayerNorm()(x).mT)
        x = x + mixed.mT
        return x + MlpBlock(self.channel_hidden, name="channel_mixing")(nn.LayerNorm()(x))


class Mixer(nn.Module):
    """Mixer-S/8 for 10 classes, with the names of big_vision."""

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(512, (8, 8), strides=(8, 8), name="stem")(images)
        x = x.reshape(len(x), -1, 512)
        for _ in range(8):
            x = MixerBlock(256, 2048)(x)
        x = nn.LayerNorm(name="pre_head_layer_norm")(x)
        return nn.Dense(10, name="head")(x.mean(axis=1))


@pytest.fixture(scope="module")
def theirs():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, *SHAPE)), jnp.float32)
    params = Mixer().init(jax.random.key(0), images)["params"]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: np.asarray(x + 0.1 * rng.normal(size=x.shape), "f"), params)
    return images, params, Mixer().apply({"params": params}, images)


@pytest.mark.parametrize(("gelu", "same"), [("tanh", True), ("erf", False)])
def test_the_same_logits_with_the_authors_gelu(theirs, gelu, same):
    images, params, expected = theirs
    foreign = flax.traverse_util.flatten_dict(params, sep="/")
    module = models.create(ModelConfig("mixer_s8", ConfigDict({"gelu": gelu})), 10)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), images))["params"]
    table = mapping.choose(foreign, tables.known(module, SHAPE))
    assert (table.naming, table.made_with) == ("big_vision", {"gelu": "tanh"})
    ours, _, accounting = mapping.convert(foreign, table, shapes, {})
    assert not accounting.replaced and not accounting.ignored
    found = jax.jit(module.apply)({"params": ours}, images)
    assert np.ptp(expected, axis=0).max() > 0.3
    assert np.allclose(found, expected, atol=1e-4) == same
