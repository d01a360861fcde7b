"""Names, options and impossible combinations: what is made, and what is said when it cannot be."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.errors import UserError


def _create(name, **options):
    return models.create(ModelConfig(name, ConfigDict(options)), 10)


def _check(name, image_shape, **options):
    models.check(ModelConfig(name, ConfigDict(options)), 10, image_shape)


@pytest.mark.parametrize("name", models.list_models())
def test_description_is_complete_and_readable(name):
    description = models.describe(name)
    assert description.name == name
    assert name in description.variants
    assert "http" in description.paper
    text = str(description)
    assert text.startswith(f"{name}: ")
    assert description.paper in text
    assert all(option in text for option in description.options)


@pytest.mark.parametrize("name", models.list_models())
def test_every_option_can_be_given_its_default(name):
    options = models.describe(name).options
    assert _create(name, **options) == _create(name)


def test_list_models_sorts_numbers_as_numbers_and_filters_by_a_pattern():
    assert models.list_models("resnet*") == [
        "resnet18",
        "resnet20",
        "resnet32",
        "resnet34",
        "resnet44",
        "resnet50",
        "resnet56",
        "resnet101",
        "resnet110",
        "resnet152",
    ]
    assert models.list_models("vit_ti*") == ["vit_ti4", "vit_ti8", "vit_ti16"]
    assert models.list_models("nothing*") == []


def test_dense_convolutions_are_what_the_trainer_reads():
    assert models.describe("wrn28_10").dense_convolutions
    assert not models.describe("vit_s16").dense_convolutions
    assert not models.describe("efficientnet_b0").dense_convolutions


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("resnet26", {"depth": 26, "shortcut": "A"}),
        ("resnet50_cifar", {"depth": 50, "shortcut": "A"}),
        ("resnet152_cifar", {"depth": 152}),
        ("plain14", {"depth": 14, "shortcut": "none"}),
        ("resnext152_8x16d", {"groups": 8, "group_width": 16, "blocks": (3, 8, 36, 3)}),
        ("wrn10_3", {"depth": 10, "widen_factor": 3}),
        ("vit_b32", {"patch_size": 32, "width": 768, "depth": 12, "num_heads": 12}),
        ("mixer_b8", {"patch_size": 8, "width": 768, "depth": 12}),
        ("deit_ti4_distilled", {"patch_size": 4, "width": 192, "distillation": True}),
    ],
)
def test_names_that_are_not_listed_follow_the_pattern(name, fields):
    module = _create(name)
    assert {field: getattr(module, field) for field in fields} == fields
    assert name not in models.list_models()
    assert models.describe(name).parameters == ""


def test_options_classes_and_dtype_become_fields():
    config = ModelConfig("resnet20", ConfigDict({"shortcut": "B", "stochastic_depth": 0.25}))
    module = models.create(config, 7, dtype="bfloat16")
    assert (module.shortcut, module.stochastic_depth) == ("B", 0.25)
    assert module.num_classes == 7
    assert module.dtype == jnp.bfloat16


def test_a_whole_number_will_do_for_a_rate():
    module = _create("resnet20", stochastic_depth=0)
    assert isinstance(module.stochastic_depth, float)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet-20", "Unknown model 'resnet-20'. Did you mean 'resnet20'?"),
        ("ViT_B16", "Did you mean 'vit_b16'?"),
        ("resnet21", "6n\\+2 layers.*the nearest is resnet20"),
        ("resnet2", "the nearest is resnet8"),
        ("plain55", "the nearest is plain56"),
        ("resnet48", "nearest is resnet50_cifar. Those for ImageNet are resnet18, .*resnet152"),
        ("resnet18_cifar", "the nearest is resnet20"),
        ("resnext50_0x4d", "at least 1 group of at least 1 channel, as in resnext50_32x4d"),
        ("vgg16", "Did you mean 'vgg16_bn'?"),
        ("DenseNet-121", "Did you mean 'densenet121'?"),
        ("wrn28", "Did you mean 'wrn28_10'?"),
        ("wrn27_10", "6n\\+4 layers.*the nearest is wrn28_10"),
        ("wrn28_0", "the nearest is wrn28_1"),
        ("vit_s0", "at least 1 pixel"),
        ("deit_s0_distilled", "at least 1 pixel"),
        ("efficientnet_b8", "Did you mean 'efficientnet_b"),
        ("mobilenet_v3", "Did you mean 'mobilenet_v2'"),
    ],
)
def test_impossible_names_are_refused_with_the_nearest_possible(name, message):
    for refuse in (_create, models.describe):
        with pytest.raises(UserError, match=message):
            refuse(name)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit_ti4", {"drop_out": 0.1}, "Unknown option of model 'vit_ti4': 'drop_out'.*'dropout'"),
        (
            "airbench94",
            {"width": 64},
            "Unknown option of model 'airbench94': 'width'.*mirror",
        ),
        ("resnet20", {"depth": 32}, "depth is fixed by the name 'resnet20'.*another model name"),
        ("resnet20", {"dtype": "bfloat16"}, "Unknown option"),
        ("resnet20", {"num_classes": 3}, "Unknown option"),
        ("resnet20", {"shortcut": "C"}, "config.model.options.shortcut: 'C'.*A, B, none"),
        ("resnet20", {"attention": "sse"}, "attention: 'sse'. Did you mean 'se'?"),
        ("resnet50", {"attention": "eca"}, "attention: 'eca'.*Known: cbam, none, se"),
        ("resnet50", {"stem": "small"}, "Did you mean 'small_images'?"),
        ("resnet50", {"blocks": 3}, "blocks is fixed by the name 'resnet50'"),
        ("lenet5", {"pool": "averge"}, "Did you mean 'average'?"),
        ("resnet20", {"zero_init_residual": 1}, "has the type int; expected bool"),
        ("resnet20", {"stochastic_depth": "much"}, "has the type str; expected float"),
        ("resnet20", {"stochastic_depth": True}, "has the type bool; expected float"),
        ("small_cnn", {"width": 8.0}, "has the type float; expected int"),
        ("small_cnn", {"width": True}, "has the type bool; expected int"),
        ("small_cnn", {"width": 0}, "must be at least 1"),
        ("vit_ti4", {"registers": -1}, "must be at least 0"),
        ("vit_ti4", {"layer_scale": -1e-6}, "must be at least 0"),
        ("deit_s16", {"distillation": True}, "fixed by the name 'deit_s16'"),
        ("mobilenet_v2", {"width_factor": 0.0}, "must be at least 0.05 and below 10"),
        ("efficientnet_b0", {"padding": "valid"}, "padding: 'valid'.*half, same"),
        ("vit_ti4", {"dropout": 1.0}, "must be at least 0 and below 1"),
        ("vit_ti4", {"dropout": -0.1}, "must be at least 0 and below 1"),
        ("vit_ti4", {"dropout": np.nan}, "must be at least 0 and below 1"),
    ],
)
def test_impossible_options_are_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        _create(name, **options)


@pytest.mark.parametrize(
    ("name", "image_shape", "options", "message"),
    [
        ("vit_s16", (28, 28, 1), {}, "16x16 .*28x28.* 1, 2, 4, 7, 14, 28;.*image_size=16 or 32"),
        ("vit_ti4", (32, 30, 3), {}, "4x4 .*32x30.* 1, 2;.*image_size=28 or 32"),
        ("vit_ti8", (4, 4, 1), {}, "image_size=8 or 16"),
        ("lenet5", (8, 8, 1), {}, "LeNet-5.*8x8.*config.data.image_size=32"),
        ("small_cnn", (7, 28, 1), {}, "7x28 .*too small.*image_size=28"),
        ("resnet20", (3, 3, 3), {}, "3x3 .*too small for resnet20"),
        ("wrn16_4", (3, 8, 3), {}, "3x8 .*too small for wrn16_4"),
        ("resnet18", (31, 64, 3), {}, "31x64 .*takes 32x32 and more.*small_images"),
        ("resnet18", (7, 7, 3), {"stem": "small_images"}, "takes 8x8 and more"),
        ("preact_resnet18", (28, 28, 1), {}, "28x28 .*takes 32x32 and more.*small_images"),
        ("vgg11_bn", (31, 32, 3), {}, "31x32 .*too small for VGG"),
        ("densenet121", (28, 28, 1), {}, "28x28 .*too small for DenseNet"),
        ("airbench94", (8, 8, 1), {}, "8x8 .*too small for airbench"),
        ("efficientnet_b0", (28, 28, 3), {}, "28x28 .*divides them by 32.*image_size=64"),
        ("efficientnet_v2_s", (28, 28, 3), {}, "28x28 .*divides them by 32"),
        ("mobilenet_v2", (32, 31, 3), {}, "32x31 .*image_size=64"),
        ("mobilenet_v3_small", (28, 28, 1), {}, "28x28 .*image_size=64"),
        ("vit_ti4", (8, 8, 3), {"qk_norm": True, "self_attention": False}, "remove one of them"),
        ("resnet20", (32, 32, 0), {}, "hold no pixel"),
        ("resnet20", (32, 32, 3), {"shortcut": "none", "stochastic_depth": 0.1}, "no path around"),
        ("resnet20", (32, 32, 3), {"shortcut": "none", "zero_init_residual": True}, "no path"),
    ],
)
def test_images_that_a_model_cannot_take_are_refused(name, image_shape, options, message):
    with pytest.raises(UserError, match=message):
        _check(name, image_shape, **options)


@pytest.mark.parametrize(
    ("name", "image_shape"),
    [
        ("lenet5", (28, 28, 3)),
        ("small_cnn", (8, 8, 1)),
        ("resnet8", (4, 5, 1)),
        ("wrn10_1", (4, 4, 1)),
        ("resnet18", (32, 35, 1)),
        ("preact_resnet18", (33, 32, 1)),
        ("vgg11_bn", (32, 33, 1)),
        ("densenet121", (32, 32, 1)),
        ("airbench96", (9, 10, 1)),
        ("vit_ti2", (8, 6, 1)),
        ("efficientnet_b0", (32, 32, 1)),
        ("mobilenet_v3_small", (32, 40, 1)),
        ("convnext_atto", (32, 32, 1)),
        ("swin_t", (4, 4, 1)),
    ],
)
def test_the_smallest_images_that_are_promised_are_taken(name, image_shape):
    _check(name, image_shape)


def test_a_variant_can_have_its_own_image_shape_and_defaults():
    assert models.describe("efficientnet_b4").image_shape == (380, 380, 3)
    assert models.describe("mobilenet_v2").image_shape == (224, 224, 3)
    described = models.describe("convnext_base").options["stochastic_depth"]
    assert described == _create("convnext_base").stochastic_depth == 0.5
    assert _create("convnext_base", stochastic_depth=0.2).stochastic_depth == 0.2


def test_a_classifier_needs_a_class():
    with pytest.raises(UserError, match="at least 1 class"):
        models.create(ModelConfig("lenet5"), 0)


def test_a_name_is_registered_once():
    from imgrec.models import registry

    family = registry._FAMILIES["wrn"]
    with pytest.raises(ValueError, match="registered twice"):
        models.register(family)
    with pytest.raises(ValueError, match="wrn28_10"):
        models.register(dataclasses.replace(family, name="another"))


def test_a_listed_name_goes_before_the_patterns_of_other_families():
    assert models.describe("resnet50").family == "imagenet_resnet"
    assert models.describe("resnet50_cifar").family == "cifar_resnet"
    assert models.describe("resnet20").family == "cifar_resnet"
