"""The order of a network's layers is that in which it applies them."""

import pytest

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.models.depth import index_of

# Small ones of families with norms, tokens and parts of different kinds.
CASES = {
    "lenet5": [("c1", "s2"), ("c3", "s4"), ("c5",), ("f6",)],
    "resnet8": [("stem",), ("stage1_block0",), ("stage2_block0",), ("stage3_block0",), ("head",)],
    "vit_ti4": [
        ("cls", "positions", "embedding"),
        *((f"block{i}",) for i in range(12)),
        ("norm", "head"),
    ],
}


@pytest.mark.parametrize("name", CASES)
def test_layers(name):
    shape = models.describe(name).image_shape
    assert list(models.layers(models.create(ModelConfig(name), 10), shape)) == CASES[name]


@pytest.mark.parametrize("name", ["convnext_atto", "efficientnet_lite0", "swin_t"])
def test_every_part_has_one_layer_and_the_head_the_last(name):
    shape = models.describe(name).image_shape
    found = models.layers(models.create(ModelConfig(name), 10), shape)
    parts = [part for layer in found for part in layer]
    assert len(parts) == len(set(parts))
    assert "head" in found[-1]
    assert found[0][0] in ("embedding", "stem")
    assert index_of(found, "head/kernel") == len(found) - 1
    # Blocks come in the order of their numbers.
    blocks = [p for p in parts if p.startswith("stage1_block")]
    assert blocks == sorted(blocks)


def test_a_norm_before_the_blocks_goes_with_what_comes_before_it():
    found = models.layers(models.create(ModelConfig("swin_t"), 10), (224, 224, 3))
    assert found[0] == ("embedding", "embedding_norm")
    assert found[-1] == ("norm", "head")
