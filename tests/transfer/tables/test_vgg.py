"""VGG: its first dense layer, whose inputs others count in another order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.transfer import mapping, tables

SHAPE = (32, 32, 3)


@pytest.mark.parametrize("naming", ["timm", "torchvision"])
def test_each_channel_and_pixel_of_the_last_maps_keeps_its_weights(naming):
    options = ConfigDict({"width": 1, "hidden": 3})
    module = models.create(ModelConfig("vgg11_bn", options), 2)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *SHAPE))))
    zeros = dict(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(7 * 7 * 8, 3)).astype(np.float32)
    params = {**zeros.pop("params"), "fc1": {"kernel": kernel, "bias": np.ones(3, np.float32)}}
    exported = mapping.export(params, zeros, tables.named(module, SHAPE, naming))

    maps = rng.normal(size=(7, 7, 8)).astype(np.float32)
    by_channel = maps.transpose(2, 0, 1)
    if naming == "timm":
        found = np.tensordot(exported["pre_logits.fc1.weight"], by_channel, axes=3)
    else:
        found = exported["classifier.0.weight"] @ by_channel.ravel()
    np.testing.assert_allclose(found, maps.ravel() @ kernel, rtol=1e-4, atol=1e-5)
