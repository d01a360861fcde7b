"""ConvNeXts: arrays that projects lay out differently."""

import jax
import jax.numpy as jnp
import pytest

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.transfer import tables

SHAPE = (32, 32, 3)


@pytest.mark.parametrize(
    ("model", "naming", "name", "shape"),
    [
        ("convnext_nano", "timm", "stages.0.blocks.0.mlp.fc1.weight", (320, 80, 1, 1)),
        ("convnext_tiny", "timm", "stages.0.blocks.0.mlp.fc1.weight", (384, 96)),
        ("convnext_tiny", "timm", "stages.0.blocks.0.gamma", (96,)),
        ("convnext_tiny", "torchvision", "features.7.2.layer_scale", (768, 1, 1)),
        ("convnext_tiny", "torchvision", "features.6.1.weight", (768, 384, 2, 2)),
        ("convnext_tiny", "facebookresearch/ConvNeXt", "downsample_layers.3.0.bias", (384,)),
    ],
)
def test_shapes_of_published_arrays(model, naming, name, shape):
    module = models.create(ModelConfig(model), 10)
    params = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *SHAPE))))[
        "params"
    ]
    table = tables.named(module, SHAPE, naming)
    (entry,) = (entry for entry in table.entries if name in entry.theirs)
    _, *path = entry.ours[0].split("/")
    leaf = params
    for part in path:
        leaf = leaf[part]
    (found,) = entry.turn.out((jnp.zeros(leaf.shape),))
    assert found.shape == shape
