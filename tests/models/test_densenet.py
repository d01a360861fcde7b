"""DenseNet: how its channels grow, and that nothing is lost on the way."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig


def _densenet(name="densenet121", **options):
    return models.create(ModelConfig(name, ConfigDict(options)), 10)


def _thin(**options):
    return _densenet(**options).clone(layers=(2, 1), growth_rate=3, stem_features=4)


def _images(size):
    return jnp.asarray(np.random.default_rng(0).normal(size=(4, size, size, 3)), jnp.float32)


def test_channels_grow_by_the_growth_rate_and_are_halved_between_stages():
    module = _densenet("densenet169")
    images = jnp.zeros((1, 70, 70, 3))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    maps = jax.eval_shape(lambda v: models.intermediates(module, v, images), variables)
    assert {name: value.shape[1:] for name, value in maps.items()} == {
        "stage1": (18, 18, 64 + 6 * 32),
        "stage2": (9, 9, 128 + 12 * 32),
        "stage3": (4, 4, 256 + 32 * 32),  # of nine rows, the transition leaves one out
        "stage4": (2, 2, 640 + 32 * 32),
        "pre_logits": (1664,),
    }
    params = variables["params"]
    assert params["stage1_layer5"]["conv1"]["kernel"].shape == (1, 1, 64 + 5 * 32, 128)
    assert params["stage1_layer5"]["conv2"]["kernel"].shape == (3, 3, 128, 32)
    assert params["transition3"]["conv"]["kernel"].shape == (1, 1, 1280, 640)


def test_the_names_count_the_weighted_layers():
    for name in models.list_models("densenet*"):
        module = _densenet(name)
        assert f"densenet{1 + 3 + 2 * sum(module.layers) + 1}" == name


def test_a_stage_hands_on_the_maps_it_was_given(fill):
    # A layer whose last kernel is zero adds zeros, and the others' maps stay as they were.
    module, images = _thin(), _images(16)
    variables = fill(module, images, train=False)
    named = jax.jit(lambda v: models.intermediates(module, v, images)["stage1"])
    whole = named(variables)
    kernel = variables["params"]["stage1_layer1"]["conv2"]["kernel"]
    variables["params"]["stage1_layer1"]["conv2"]["kernel"] = jnp.zeros_like(kernel)
    cut = named(variables)
    np.testing.assert_array_equal(whole[..., :7], cut[..., :7])
    assert np.any(whole[..., 7:]) and not np.any(cut[..., 7:])


def test_dropout_drops_new_maps_and_not_those_handed_on(fill):
    module, images = _thin(dropout=0.999999), _images(16)
    variables = fill(module, images, train=False)
    train = functools.partial(module.apply, train=True, mutable=["batch_stats", "intermediates"])
    run = jax.jit(lambda: train(variables, images, rngs={"dropout": jax.random.key(1)}))
    maps = run()[1]["intermediates"]["stage1"][0]
    assert np.any(maps[..., :4]) and not np.any(maps[..., 4:])
