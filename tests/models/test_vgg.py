"""VGG: its layers, its dense part at any image size, its initialisation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig


def _vgg(name="vgg11_bn", **options):
    return models.create(ModelConfig(name, ConfigDict(options)), 10)


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_the_name_counts_the_weighted_layers(depth):
    module = _vgg(f"vgg{depth}_bn")
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
    assert sum(path[-1].key == "kernel" for path, _ in leaves) == depth


@pytest.mark.parametrize(("size", "last"), [(224, 7), (256, 8), (32, 1)])
def test_parameters_do_not_depend_on_the_size_of_the_images(size, last):
    module = _vgg()
    images = jnp.zeros((1, size, size, 3))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    params = variables["params"]
    assert params["fc1"]["kernel"].shape == (7 * 7 * 512, 4096)
    assert params["stage5_layer1"]["conv"]["kernel"].shape == (3, 3, 512, 512)
    maps = jax.eval_shape(lambda v: models.intermediates(module, v, images), variables)
    assert maps["stage5"].shape == (1, last, last, 512)
    assert maps["pre_logits"].shape == (1, 4096)


def test_dropout_is_where_most_parameters_are(fill):
    module = _vgg(width=2, hidden=32).clone(layers=(1,))
    images = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 3)), jnp.float32)
    variables = fill(module, images, train=False)
    train = functools.partial(module.apply, train=True, mutable=["batch_stats", "intermediates"])
    run = jax.jit(lambda seed: train(variables, images, rngs={"dropout": jax.random.key(seed)}))
    (first, one), (second, other) = run(1), run(2)
    assert not np.allclose(first, second)
    # The convolutions are the same; the second dense layer has lost other inputs.
    maps, hidden = "stage1", "pre_logits"
    np.testing.assert_array_equal(one["intermediates"][maps], other["intermediates"][maps])
    assert not np.allclose(one["intermediates"][hidden][0], other["intermediates"][hidden][0])


def test_initialisation():
    module = _vgg(width=16, hidden=64).clone(layers=(2,))
    images = jnp.zeros((1, 8, 8, 3))
    params = jax.jit(lambda: module.init(jax.random.key(0), images, train=False))()["params"]
    assert np.std(params["fc1"]["kernel"]) == pytest.approx(0.01, rel=0.03)
    assert not params["fc1"]["bias"].any()
    kernel = params["stage1_layer1"]["conv"]["kernel"]
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / (9 * 16)), rel=0.06)
    assert not params["stage1_layer0"]["conv"]["bias"].any()
