"""MLP-Mixer: a block against numpy, what mixes with what, one image size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import ScopeParamShapeError
from scipy.special import erf

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.errors import UserError
from imgrec.models.mlp_mixer import MixerBlock


def _images(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def _thin():
    module = models.create(ModelConfig("mixer_s4"), 10)
    return module.clone(width=16, depth=2, token_hidden=8, channel_hidden=24)


def _layer_norm(x, params):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * params["scale"] + params["bias"]


def _mlp(x, params):
    y = x @ params["hidden"]["kernel"] + params["hidden"]["bias"]
    y = 0.5 * y * (1 + erf(y / np.sqrt(2)))
    return y @ params["out"]["kernel"] + params["out"]["bias"]


def test_a_block_against_numpy(fill):
    x = _images(2, 5, 6)
    block = MixerBlock(3, 7, gelu="erf", dropout=0.0, drop_rate=0.0, dtype=jnp.float32)
    variables = fill(block, x, train=False)
    out = jax.jit(functools.partial(block.apply, train=False))(variables, x)
    params = jax.tree.map(np.float64, variables["params"])
    assert params["token_mixing"]["hidden"]["kernel"].shape == (5, 3)
    assert params["channel_mixing"]["hidden"]["kernel"].shape == (6, 7)
    x = np.float64(x)
    y = _layer_norm(x, params["norm1"])
    x = x + np.stack([_mlp(image.T, params["token_mixing"]).T for image in y])
    expected = x + _mlp(_layer_norm(x, params["norm2"]), params["channel_mixing"])
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def test_intermediates_of_every_block(fill):
    module = _thin()
    images = _images(2, 8, 12, 3)
    variables = fill(module, images)
    named = jax.jit(lambda: models.intermediates(module, variables, images))()
    assert {name: value.shape for name, value in named.items()} == {
        "block0/output": (2, 6, 16),
        "block1/output": (2, 6, 16),
        "encoded": (2, 6, 16),
        "pre_logits": (2, 16),
    }
    np.testing.assert_allclose(named["pre_logits"], named["encoded"].mean(1), atol=1e-6)


def test_initialisation_is_that_of_the_authors_code():
    module = _thin()
    params = jax.jit(lambda: module.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))()["params"]
    assert not params["head"]["kernel"].any()
    hidden = params["block0"]["token_mixing"]["hidden"]
    assert not hidden["bias"].any()
    assert np.std(hidden["kernel"]) == pytest.approx(np.sqrt(1 / 256), rel=0.06)


def test_parameters_belong_to_one_image_size(fill):
    module = _thin()
    variables = fill(module, jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(ScopeParamShapeError):
        jax.eval_shape(lambda: module.apply(variables, jnp.zeros((1, 16, 16, 3))))


def test_patches_that_do_not_tile_are_refused():
    with pytest.raises(UserError, match=r"16x16 .*28x28"):
        models.check(ModelConfig("mixer_s16"), 10, (28, 28, 1))
    with pytest.raises(UserError, match="at least 1 pixel"):
        models.create(ModelConfig("mixer_s0"), 10)
