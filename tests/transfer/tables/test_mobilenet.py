"""MobileNets: what their names cannot tell of padding and epsilon is said."""

import pytest
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.transfer import tables

SHAPE = (32, 32, 3)
TORCH = {"padding": "half", "norm_epsilon": 1e-5}
TENSORFLOW = {"padding": "same", "norm_epsilon": 1e-3}


@pytest.mark.parametrize(
    ("name", "options", "naming", "made_with"),
    [
        ("mobilenet_v2", {}, "timm", TORCH),
        ("mobilenet_v2", {}, "torchvision", TORCH),
        ("mobilenet_v2", {}, "transformers", TENSORFLOW),
        ("mobilenet_v3_large", {}, "timm", {"norm_epsilon": 1e-5}),
        ("mobilenet_v3_large", {"padding": "same"}, "timm", {"norm_epsilon": 1e-3}),
        (
            "mobilenet_v3_small",
            {},
            "torchvision",
            {"padding": "half", "norm_epsilon": 1e-3},
        ),
    ],
)
def test_what_their_networks_were_made_with(name, options, naming, made_with):
    module = models.create(ModelConfig(name, ConfigDict(options)), 10)
    assert tables.named(module, SHAPE, naming).made_with == made_with


def test_names_of_blocks_with_and_without_their_parts():
    """Written from the projects' own listings: blocks that expand nothing, or squeeze nothing."""
    v2, v3 = (models.create(ModelConfig(f"mobilenet_{n}"), 10) for n in ("v2", "v3_large"))
    theirs = {n: tables.named(v2, SHAPE, n).theirs for n in ("timm", "torchvision", "transformers")}
    assert {"blocks.0.0.conv_dw.weight", "blocks.0.0.conv_pw.weight"} < theirs["timm"]
    assert {"blocks.6.0.conv_pwl.weight", "blocks.6.0.bn3.bias"} < theirs["timm"]
    assert {"features.1.conv.1.weight", "features.1.conv.2.bias"} < theirs["torchvision"]
    assert {"features.17.conv.2.weight", "features.17.conv.3.bias"} < theirs["torchvision"]
    assert {
        "mobilenet_v2.conv_stem.reduce_1x1.convolution.weight",
        "mobilenet_v2.layer.15.expand_1x1.normalization.running_var",
    } < theirs["transformers"]
    theirs = {n: tables.named(v3, SHAPE, n).theirs for n in ("timm", "torchvision")}
    assert {"blocks.2.0.se.conv_reduce.bias", "blocks.6.0.conv.weight"} < theirs["timm"]
    assert "conv_head.bias" in theirs["timm"]
    assert {"features.4.block.2.fc1.bias", "features.4.block.3.0.weight"} < theirs["torchvision"]
    assert {"features.3.block.2.0.weight", "features.16.0.weight"} < theirs["torchvision"]
