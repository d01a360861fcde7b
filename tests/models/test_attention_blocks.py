"""Squeeze-excitation and CBAM against numpy; off, they leave a network as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.special import expit

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.models.attention_blocks import CBAM, SqueezeExcitation

RESIDUAL = ("resnet8", "plain8", "wrn10_1", "resnet18", "resnext50_32x4d", "preact_resnet18")


def _maps(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def _mlp(x, params):
    hidden = np.maximum(x @ params["hidden"]["kernel"] + params["hidden"]["bias"], 0)
    return hidden @ params["out"]["kernel"] + params["out"]["bias"]


def _parameters(name, **options):
    module = models.create(ModelConfig(name, ConfigDict(options)), 10)
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    return variables


def _names(variables):
    paths = jax.tree_util.tree_leaves_with_path(variables)
    return {"/".join(key.key for key in path): leaf.shape for path, leaf in paths}


def test_squeeze_excitation_against_numpy(fill):
    x = _maps(2, 5, 6, 80)
    layer = SqueezeExcitation(dtype=jnp.float32)
    variables = fill(layer, x)
    params = jax.tree.map(np.asarray, variables["params"])
    assert params["hidden"]["kernel"].shape == (80, 5)
    weights = expit(_mlp(np.mean(x, (1, 2)), params))
    out = jax.jit(layer.apply)(variables, x)
    np.testing.assert_allclose(out, x * weights[:, None, None], rtol=1e-4, atol=1e-5)


def test_cbam_against_numpy(fill):
    x = _maps(2, 5, 6, 8)
    layer = CBAM(dtype=jnp.float32)
    variables = fill(layer, x, train=False)
    params, moving = (jax.tree.map(np.asarray, variables[c]) for c in ("params", "batch_stats"))
    assert params["hidden"]["kernel"].shape == (8, 4)  # and not 8 / 16
    expected = np.asarray(x)
    channels = expit(_mlp(expected.mean((1, 2)), params) + _mlp(expected.max((1, 2)), params))
    expected = expected * channels[:, None, None]
    pooled = np.stack([expected.mean(-1), expected.max(-1)], -1)
    padded = np.pad(pooled, ((0, 0), (3, 3), (3, 3), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), axis=(1, 2))
    y = np.einsum("bhwcij,ijcf->bhwf", windows, params["conv"]["kernel"])
    y = (y - moving["norm"]["mean"]) / np.sqrt(moving["norm"]["var"] + 1e-5)
    positions = expit(y * params["norm"]["scale"] + params["norm"]["bias"])
    out, sown = jax.jit(lambda: layer.apply(variables, x, train=False, mutable=["intermediates"]))()
    np.testing.assert_allclose(out, expected * positions, rtol=1e-4, atol=1e-5)
    maps = sown["intermediates"]
    np.testing.assert_allclose(maps["channels"][0], channels, rtol=1e-4)
    np.testing.assert_allclose(maps["positions"][0], positions[..., 0], rtol=1e-4)


@pytest.mark.parametrize("name", RESIDUAL)
def test_attention_only_adds_variables_to_every_residual_network(name):
    off = _names(_parameters(name))
    assert off == _names(_parameters(name, attention="none"))
    assert not any("attention" in path for path in off)
    for kind in ("se", "cbam"):
        on = _names(_parameters(name, attention=kind))
        assert {path: shape for path, shape in on.items() if "/attention/" not in path} == off
        blocks = {path.split("/")[1] for path in off if "_block" in path}
        attending = {path.split("/")[1] for path in on if "/attention/" in path}
        assert attending == blocks
        assert any(path.endswith("attention/conv/kernel") for path in on) == (kind == "cbam")


@pytest.mark.parametrize(
    ("attention", "parameters"),
    # Of the released SE-ResNet-50; table 4 of CBAM's paper prints 28.09M.
    [("se", 28_088_024), ("cbam", 28_089_624)],
)
def test_parameters_of_resnet50_with_attention(attention, parameters):
    module = models.create(ModelConfig("resnet50", ConfigDict({"attention": attention})), 1000)
    images = jnp.zeros((1, 64, 64, 3))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    assert models.count_parameters(variables) == parameters


@pytest.mark.parametrize("name", ["resnet8", "plain8", "wrn10_1"])
def test_attention_changes_the_answer_of_the_small_networks(name, fill):
    logits = []
    for kind in ("none", "se", "cbam"):
        module = models.create(ModelConfig(name, ConfigDict({"attention": kind})), 3)
        images = _maps(2, 8, 8, 3)
        variables = fill(module, images, train=False)
        # The same weights where all three have them.
        shared = jax.tree.map_with_path(
            lambda path, leaf: leaf if "attention" in str(path) else jnp.full_like(leaf, 0.1),
            variables,
        )
        apply = jax.jit(lambda v, m=module, x=images: m.apply(v, x, train=False))
        logits.append(np.asarray(apply(shared)))
    assert not np.allclose(logits[0], logits[1], rtol=1e-3)
    assert not np.allclose(logits[1], logits[2], rtol=1e-3)


def test_attention_is_handed_out_by_block():
    module = models.create(ModelConfig("resnet8", ConfigDict({"attention": "cbam"})), 3)
    images = jnp.zeros((2, 8, 8, 3))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    named = jax.eval_shape(lambda v: models.intermediates(module, v, images), variables)
    assert named["stage2_block0/attention/channels"].shape == (2, 32)
    assert named["stage2_block0/attention/positions"].shape == (2, 4, 4)
