"""Parameters and FLOPs against hand counts and what the papers print."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig


class _Layers(nn.Module):
    """Whatever a function of the images computes, as a module."""

    forward: object

    @nn.compact
    def __call__(self, images, *, train):
        return self.forward(images)


@pytest.mark.parametrize(
    ("layers", "multiply_adds"),
    [
        (lambda x: nn.Dense(7)(x), 8 * 6 * 4 * 7),
        # Padded positions count: every output pixel does 3 x 3 x 4 of them for each channel.
        (lambda x: nn.Conv(5, (3, 3))(x), 8 * 6 * 5 * 9 * 4),
        (lambda x: nn.Conv(5, (3, 3), strides=2, padding="VALID")(x), 3 * 2 * 5 * 9 * 4),
        (lambda x: nn.Conv(8, (3, 3), feature_group_count=4)(x), 8 * 6 * 8 * 9),
        (lambda x: jnp.einsum("bhwc,bhvc->bhwv", x, x), 8 * 6 * 6 * 4),
        (lambda x: nn.relu(nn.LayerNorm()(x)) + 1, 0),
        (lambda x: jax.lax.scan(lambda c, _: (c @ jnp.ones((4, 4)), None), x, length=3)[0],
         3 * 8 * 6 * 4 * 4),
        (lambda x: jax.lax.cond(x[0, 0, 0, 0] > 0, lambda: x @ jnp.ones((4, 4)), lambda: x),
         8 * 6 * 4 * 4),
    ],
)  # fmt: skip
def test_multiply_adds_by_hand(layers, multiply_adds):
    assert models.flops(_Layers(layers), (8, 6, 4)) == 2 * multiply_adds


@pytest.mark.parametrize(
    ("name", "multiply_adds"),
    [
        ("resnet20", 41e6),
        ("resnet56", 126e6),
        ("resnet110", 253e6),
        ("wrn28_10", 5.2e9),
        # As torchvision counts them.
        ("resnet18", 1.814e9),
        ("resnet34", 3.664e9),
        ("resnet50", 4.089e9),
        ("resnet101", 7.801e9),
        ("resnet152", 11.514e9),
        ("resnext50_32x4d", 4.230e9),
        ("resnext101_32x8d", 16.414e9),
        ("vgg16_bn", 15.470e9),
        ("densenet121", 2.834e9),
        ("densenet169", 3.360e9),
        ("densenet201", 4.291e9),
        ("vit_ti16", 1.26e9),
        ("vit_s16", 4.6e9),
        ("vit_b16", 17.6e9),
        ("vit_l16", 61.6e9),
        ("vit_h14", 167.3e9),
        ("deit_s16", 4.6e9),
        ("mobilenet_v2", 300e6),
        ("mobilenet_v3_large", 219e6),
        ("mobilenet_v3_small", 56e6),
        ("efficientnet_v2_s", 8.37e9),
        ("convnext_atto", 0.55e9),
        ("convnext_pico", 1.37e9),
        ("convnext_tiny", 4.46e9),
        ("convnext_small", 8.7e9),
        ("convnext_base", 15.4e9),
        ("mixer_s16", 3.78e9),
        ("mixer_b16", 12.6e9),
        ("swin_t", 4.5e9),
        ("swin_s", 8.7e9),
    ],
)
def test_multiply_adds_are_the_published_ones(name, multiply_adds):
    description = models.describe(name)
    module = models.create(ModelConfig(name), description.parameters_classes)
    flops = models.flops(module, description.image_shape)
    assert flops / 2 == pytest.approx(multiply_adds, rel=0.015)


@pytest.mark.parametrize(
    ("name", "multiply_adds"),
    [
        ("efficientnet_b0", 0.39e9),
        ("efficientnet_b1", 0.70e9),
        ("efficientnet_b2", 1.0e9),
        ("efficientnet_b3", 1.8e9),
        ("efficientnet_b4", 4.2e9),
        ("efficientnet_b5", 9.9e9),
        ("efficientnet_b6", 19e9),
        ("efficientnet_b7", 37e9),
        ("efficientnet_lite0", 407e6),
        ("efficientnet_lite1", 631e6),
        ("efficientnet_lite2", 899e6),
        ("efficientnet_lite3", 1.44e9),
        ("efficientnet_lite4", 2.64e9),
    ],
)
def test_multiply_adds_of_efficientnets_are_the_published_ones_within_6_percent(
    name, multiply_adds
):
    # What is published was counted in TensorFlow's graphs, with normalisations and additions.
    description = models.describe(name)
    module = models.create(ModelConfig(name), description.parameters_classes)
    flops = models.flops(module, description.image_shape)
    assert flops / 2 == pytest.approx(multiply_adds, rel=0.06)


def test_lenet_counts_its_zero_weights_as_work():
    full = 117_600 + 10 * 10 * 25 * 6 * 16 + 48_000 + 10_080
    module = models.create(ModelConfig("lenet5"), 10)
    assert models.flops(module, (32, 32, 1)) == 2 * full
    linear = models.create(ModelConfig("lenet5", ConfigDict({"head": "linear"})), 10)
    assert models.flops(linear, (28, 28, 1)) == 2 * (full + 840)


def test_count_parameters_leaves_moving_statistics_out():
    params = {"a": jnp.zeros((3, 4)), "b": {"c": jnp.zeros(5), "scalar": jnp.zeros(())}}
    variables = {"params": params, "batch_stats": {"mean": jnp.zeros(100)}}
    assert models.count_parameters(variables) == 18
    assert models.count_parameters(jax.eval_shape(lambda: variables)) == 18


@pytest.mark.parametrize("name", ["resnet8", "vit_ti4", "airbench94"])
def test_both_counts_at_once_are_those_of_each(name):
    description = models.describe(name)
    module = models.create(ModelConfig(name), 10)
    shape = description.image_shape
    found = models.cost_of(module, shape, computes=description.init_images > 0)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *shape))))
    assert found == (models.count_parameters(variables), models.flops(module, shape))
