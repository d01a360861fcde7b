"""Attention by every program: the same values and gradients, and cuDNN's kernels where asked."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.errors import UserError
from imgrec.models import attention
from imgrec.models.attention import attend


def heads(tokens, seed=0, dtype=jnp.float32):
    """Queries, keys and values [2, tokens, 3, 8]."""
    values = np.random.default_rng(seed).normal(size=(3, 2, tokens, 3, 8))
    return tuple(jnp.asarray(values, dtype))


@pytest.fixture
def cudnn(monkeypatch):
    """A cuDNN that is new enough to lower for, though nothing here could run it."""

    class Versions:
        cudnn_get_version = staticmethod(lambda: 91000)

    monkeypatch.setattr(fused_attention_stablehlo, "cuda_versions", Versions)


def kernels(function, *shapes):
    """The cuDNN kernels in a program that is lowered for CUDA."""
    lowered = jax.jit(function).trace(*shapes).lower(lowering_platforms=("cuda",))
    return set(re.findall(r"@__cudnn\$(\w+)\(", lowered.as_text()))


@pytest.mark.parametrize("tokens", [4, 5])
def test_xla_computes_what_is_written_out(tokens):
    def run(how):
        def loss(q, k, v):
            return jnp.sum(attend(q, k, v, how=how, keep_weights=False)[0] ** 2)

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(*heads(tokens))

    for found, wanted in zip(*map(jax.tree.leaves, (run("xla"), run("materialised"))), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_weights_are_there_only_where_somebody_asks():
    q, k, v = heads(5)
    _, weights = attend(q, k, v, how="xla")
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert attend(q, k, v, how="materialised", keep_weights=False)[1] is None


def test_a_bias_is_written_out_whatever_is_asked():
    q, k, v = heads(4)
    bias = jnp.asarray(np.random.default_rng(1).normal(size=(1, 3, 4, 4)), jnp.float32)
    with_bias = attend(q, k, v, how="xla", bias=bias, keep_weights=False)[0]
    assert not np.allclose(with_bias, attend(q, k, v, how="xla", keep_weights=False)[0])
    expected = attend(q, k, v, how="materialised", bias=bias)[0]
    np.testing.assert_array_equal(with_bias, expected)


def test_auto_is_cudnn_where_it_works(monkeypatch):
    assert attention.choose("auto", 64, jnp.bfloat16) == "materialised"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert attention.choose("auto", 64, jnp.bfloat16) == "cudnn"
    assert attention.choose("auto", 64, jnp.float32) == "materialised"
    assert attention.choose("auto", 12, jnp.bfloat16) == "materialised"
    assert attention.choose("xla", 64, jnp.bfloat16) == "xla"


@pytest.mark.parametrize("tokens", [196, 197])
def test_cudnn_lowers_for_cuda_forward_and_back(cudnn, tokens):
    shape = jax.ShapeDtypeStruct((2, tokens, 12, 64), jnp.bfloat16)

    def forward(q, k, v):
        out, _ = attend(q, k, v, how="cudnn", keep_weights=False)
        assert out.shape == shape.shape
        return jnp.sum(out.astype(jnp.float32))

    gradient = jax.grad(forward, argnums=(0, 1, 2))
    assert kernels(forward, shape, shape, shape) == {"fmhaSoftmax"}
    assert kernels(gradient, shape, shape, shape) == {"fmhaSoftmax", "fmhaSoftmaxBackward"}


def test_a_vit_trains_with_cudnn_and_shows_its_attention_without(cudnn):
    options = ConfigDict({"attention": "cudnn"})
    module = models.create(ModelConfig("vit_ti8", options), 10, dtype="bfloat16")
    module = module.clone(depth=1)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x), images)

    def loss(variables, images):
        return jnp.sum(module.apply(variables, images, train=True))

    assert kernels(jax.grad(loss), variables, images) == {"fmhaSoftmax", "fmhaSoftmaxBackward"}

    def shown(variables, images):
        return models.intermediates(module, variables, images)["block0/attention"]

    assert kernels(shown, variables, images) == set()
    assert jax.eval_shape(shown, variables, images).shape == (2, 3, 17, 17)


@pytest.mark.parametrize(
    ("options", "dtype", "words"),
    [
        ({}, "float32", "set --config.train.compute_dtype=bfloat16"),
        ({}, "bfloat16", "needs an NVIDIA GPU, and the devices here are of kind 'cpu'"),
    ],
)
def test_cudnn_is_refused_where_it_cannot_work(options, dtype, words):
    config = ModelConfig("vit_ti8", ConfigDict({"attention": "cudnn", **options}))
    with pytest.raises(UserError, match=re.escape(words)):
        attention.check(models.create(config, 10, dtype=dtype))


def test_cudnn_is_refused_for_heads_of_an_odd_width():
    module = models.create(ModelConfig("vit_ti8", ConfigDict({"attention": "cudnn"})), 10)
    with pytest.raises(UserError, match="this model's have 12"):
        attention.check(module.clone(width=36, dtype=jnp.dtype("bfloat16")))


def test_networks_with_an_attention_of_another_kind_are_not_meant():
    config = ModelConfig("resnet8", ConfigDict({"attention": "se"}))
    attention.check(models.create(config, 10))
