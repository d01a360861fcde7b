"""EfficientNets: what their names cannot tell of padding and epsilon is said."""

import pytest
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.transfer import tables

SHAPE = (32, 32, 3)


@pytest.mark.parametrize(
    ("name", "options", "naming", "made_with"),
    [
        ("efficientnet_b0", {}, "timm", {"norm_epsilon": 1e-3}),
        ("efficientnet_b0", {"padding": "half"}, "timm", {"norm_epsilon": 1e-5}),
        ("efficientnet_b4", {}, "torchvision", {"padding": "half", "norm_epsilon": 1e-5}),
        ("efficientnet_b5", {}, "torchvision", {"padding": "half", "norm_epsilon": 1e-3}),
        ("efficientnet_v2_s", {}, "torchvision", {"padding": "half", "norm_epsilon": 1e-3}),
        (
            "efficientnet_lite2",
            {"padding": "half"},
            "lukemelas/EfficientNet-PyTorch",
            {"padding": "same", "norm_epsilon": 1e-3},
        ),
    ],
)
def test_what_their_networks_were_made_with(name, options, naming, made_with):
    module = models.create(ModelConfig(name, ConfigDict(options)), 10)
    table = tables.named(module, SHAPE, naming)
    assert table.made_with == made_with
    assert bool(table.remarks) == (naming == "timm")
    for remark in table.remarks:
        assert remark.endswith(f"this model has padding={module.padding!r}")
