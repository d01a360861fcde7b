"""MobileNetV2: the table, the width factor, switches."""

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig


def _params(num_classes=1000, **options):
    module = models.create(ModelConfig("mobilenet_v2", ConfigDict(options)), num_classes)
    images = jnp.zeros((1, 32, 32, 3))
    return jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))


@pytest.mark.parametrize(
    ("width_factor", "parameters"),
    # Counted in timm's mobilenetv2_050 and mobilenetv2_140.
    [(0.5, 1_968_680), (1.4, 6_108_776)],
)
def test_the_width_factor_scales_all_channels_but_never_the_last_down(width_factor, parameters):
    variables = _params(width_factor=width_factor)
    assert models.count_parameters(variables) == parameters
    final = variables["params"]["final"]["conv"]["kernel"].shape[-1]
    assert final == max(1280, 1280 * width_factor)


def test_names_of_the_parameters():
    params = _params()["params"]
    assert set(params["stage1_block0"]) == {"depthwise", "project"}
    assert set(params["stage7_block0"]) == {"expand", "depthwise", "project"}
    assert params["stage2_block1"]["expand"]["conv"]["kernel"].shape == (1, 1, 24, 144)
    assert sum("_block" in name for name in params) == 17


def test_squeeze_excitation_can_be_added():
    params = _params(squeeze_excitation=True)["params"]
    blocks = [block for name, block in params.items() if "_block" in name]
    assert all("squeeze_excitation" in block for block in blocks)
    assert params["stage3_block0"]["squeeze_excitation"]["reduce"]["kernel"].shape == (144, 6)
