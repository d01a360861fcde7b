"""Every table of every model: it names each variable once, and goes both ways exactly."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.errors import UserError
from imgrec.transfer import mapping, tables

SHAPE = (16, 24, 3)
LUKEMELAS, HUGGINGFACE = "lukemelas/EfficientNet-PyTorch", "transformers"
MODELS = [
    ("resnet8", {}),
    ("resnet14", {"shortcut": "B"}),
    ("plain8", {}),
    ("wrn10_1", {}),
    ("wrn16_2", {}),
    ("resnet18", {"width": 8}),
    ("resnet50", {"width": 8, "stem": "deep", "shortcut": "mean", "attention": "se"}),
    ("resnet34", {"width": 8, "stem": "small_images"}),
    ("resnext50_32x4d", {"width": 8, "shortcut": "mean"}),
    ("preact_resnet18", {"width": 8}),
    ("preact_resnet50", {"width": 8}),
    ("densenet121", {}),
    ("vgg11_bn", {"width": 4, "hidden": 8}),
    ("vgg19_bn", {"width": 4, "hidden": 8}),
    ("mobilenet_v2", {"width_factor": 0.25}),
    ("mobilenet_v2", {"width_factor": 0.25, "squeeze_excitation": True}),
    ("mobilenet_v3_large", {"width_factor": 0.25}),
    ("mobilenet_v3_small", {"width_factor": 0.25, "squeeze_excitation": False}),
    ("efficientnet_b0", {}),
    ("efficientnet_b0", {"squeeze_excitation": False}),
    ("efficientnet_lite0", {}),
    ("efficientnet_v2_s", {}),
    ("convnext_atto", {}),
    ("convnext_tiny", {"layer_scale": 0.0, "patch_size": 2}),
    ("mixer_s8", {}),
    ("swin_t", {"window_size": 2, "patch_size": 2}),
    ("deit_ti4_distilled", {}),
    ("vit_ti4", {"registers": 2}),
    ("vit_ti4", {"registers": 2, "pool": "mean"}),
    ("vit_ti4", {"qk_norm": True, "layer_scale": 0.1}),
    ("vit_ti4", {}),
    ("vit_ti8", {"pool": "mean"}),
    ("vit_ti4", {"positions": "sincos"}),
    ("vit_ti4", {"pool": "mean", "positions": "sincos"}),
]


def variables_of(module):
    images = jnp.zeros((1, *SHAPE))
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), images))
    rng = np.random.default_rng(0)
    filled = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), shapes)
    filled = flax.core.unfreeze(filled)
    return filled.pop("params"), filled


@pytest.mark.parametrize(("name", "options"), MODELS, ids=str)
def test_every_variable_once_and_there_and_back_exactly(name, options):
    module = models.create(ModelConfig(name, ConfigDict(options)), 10)
    params, model_state = variables_of(module)
    flat = flax.traverse_util.flatten_dict({"params": params, **model_state}, sep="/")
    for table in tables.known(module, SHAPE):
        ours = [name for entry in table.entries for name in entry.ours]
        assert sorted(ours) == sorted(flat)
        assert len(table.theirs) == sum(len(entry.theirs) for entry in table.entries)
        assert all(hasattr(module, option) for option in table.made_with)

        foreign = mapping.export(params, model_state, table)
        assert mapping.choose(foreign, tables.known(module, SHAPE)).naming == table.naming
        found = mapping.convert(foreign, table, params, model_state)
        unplaced = table.naming == "big_vision" or "registers" in params
        if "cls" in params and "positions" in params and unplaced:
            # The class token has no position there, so ours goes into the token itself.
            params_there = {**params, "cls": params["cls"] + params["positions"][:, :1]}
            grid = params["positions"].copy()
            grid[:, 0] = 0
            expected = {**params_there, "positions": grid}, model_state
        else:
            expected = params, model_state
        jax.tree.map(np.testing.assert_array_equal, found[:2], expected)
        assert found[2].replaced == ()


def test_every_naming_of_a_vision_transformer():
    module = models.create(ModelConfig("vit_ti4"), 10)
    assert [table.naming for table in tables.known(module, SHAPE)] == [
        "timm",
        "torchvision",
        "transformers",
        "big_vision",
        "google-research/vision_transformer",
    ]
    assert tables.named(module, SHAPE, "timm").made_with == {"gelu": "erf"}
    with pytest.raises(UserError, match=r"naming of Vision.* 'tim'\. Did you mean 'timm'"):
        tables.named(module, SHAPE, "tim")


def test_a_model_without_tables_says_which_have_some():
    with pytest.raises(UserError, match="for a LeNet5, only for CifarResNet, "):
        tables.known(models.create(ModelConfig("lenet5"), 10), SHAPE)


@pytest.mark.parametrize(
    ("name", "options", "namings"),
    [
        ("resnet50", {}, ["timm", "transformers"]),
        ("resnet50", {"stem": "deep"}, ["timm"]),
        ("resnet50", {"attention": "se"}, ["timm"]),
        ("resnext50_32x4d", {}, ["timm"]),
        ("mobilenet_v2", {}, ["timm", "torchvision", "transformers"]),
        ("mobilenet_v2", {"squeeze_excitation": True}, ["timm"]),
        ("efficientnet_b0", {}, ["timm", "torchvision", LUKEMELAS]),
        ("efficientnet_lite0", {}, ["timm", LUKEMELAS]),
        ("efficientnet_v2_s", {}, ["timm", "torchvision"]),
        ("convnext_tiny", {}, ["timm", "facebookresearch/ConvNeXt", "torchvision", HUGGINGFACE]),
        ("convnext_tiny", {"layer_scale": 0.0}, ["timm", "facebookresearch/ConvNeXt", HUGGINGFACE]),
        ("mixer_s8", {}, ["timm", "big_vision"]),
        ("swin_t", {}, ["timm", "microsoft/Swin-Transformer", "torchvision", HUGGINGFACE]),
        ("deit_ti4_distilled", {}, ["timm", HUGGINGFACE]),
        ("vit_ti4", {"registers": 1}, ["timm"]),
        ("vit_ti4", {"qk_norm": True}, ["timm"]),
        ("vit_ti4", {"layer_scale": 0.1}, ["timm"]),
    ],
    ids=str,
)
def test_a_naming_has_only_the_networks_of_its_project(name, options, namings):
    module = models.create(ModelConfig(name, ConfigDict(options)), 10)
    assert [table.naming for table in tables.known(module, SHAPE)] == namings


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet50", {"attention": "cbam"}),
        ("preact_resnet18", {"attention": "cbam"}),
        ("wrn10_1", {"attention": "cbam"}),
        ("resnet8", {"attention": "cbam"}),
        ("vit_ti4", {"self_attention": False}),
        ("swin_t", {"self_attention": False}),
        ("deit_ti4_distilled", {"pool": "mean"}),
        ("deit_ti4_distilled", {"registers": 1}),
    ],
    ids=str,
)
def test_options_that_no_other_project_has(name, options):
    module = models.create(ModelConfig(name, ConfigDict(options)), 10)
    with pytest.raises(UserError, match=r"is known for a \w+ with these options.* folder of a run"):
        tables.known(module, SHAPE)


def test_torchvision_has_the_plain_resnets_alone():
    plain = models.create(ModelConfig("resnet50"), 10)
    assert tables.named(plain, SHAPE, "torchvision").naming == "timm"
    deep = models.create(ModelConfig("resnet50", ConfigDict({"stem": "deep"})), 10)
    with pytest.raises(UserError, match="naming of ResNet"):
        tables.named(deep, SHAPE, "torchvision")
