"""The small CNN: its maps, its width option, its dropout."""

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig


def _shapes(image_shape, **options):
    module = models.create(ModelConfig("small_cnn", ConfigDict(options)), 10)
    images = jnp.zeros((1, *image_shape))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    maps = jax.eval_shape(lambda v: models.intermediates(module, v, images), variables)
    return variables, {name: value.shape[1:] for name, value in maps.items()}


def test_maps_of_28x28_images():
    variables, maps = _shapes((28, 28, 1))
    assert maps == {
        "stage1": (14, 14, 32),
        "stage2": (7, 7, 64),
        "stage3": (3, 3, 128),
        "pre_logits": (128,),
    }
    kernels = 25 * 16 + 9 * (16 * 32 + 32 * 64 + 64 * 64 + 64 * 128)
    norms = 2 * (16 + 32 + 64 + 64 + 128)
    assert models.count_parameters(variables) == kernels + norms + 128 * 10 + 10 == 135_930


@pytest.mark.parametrize("width", [1, 8])
def test_width_scales_every_layer(width):
    _, maps = _shapes((8, 8, 3), width=width)
    assert maps == {
        "stage1": (4, 4, 2 * width),
        "stage2": (2, 2, 4 * width),
        "stage3": (1, 1, 8 * width),
        "pre_logits": (8 * width,),
    }
