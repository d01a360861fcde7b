"""MobileNetV3: the tables, where squeeze-excitation is, the last stage."""

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig


def _params(name, **options):
    module = models.create(ModelConfig(name, ConfigDict(options)), 1000)
    images = jnp.zeros((1, 32, 32, 3))
    return jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))["params"]


@pytest.mark.parametrize(
    ("name", "blocks", "squeezing"),
    [("mobilenet_v3_large", 15, 8), ("mobilenet_v3_small", 11, 9)],
)
def test_squeeze_excitation_is_where_the_tables_have_it_unless_switched_off(
    name, blocks, squeezing
):
    params = _params(name)
    with_gate = [key for key in params if "squeeze_excitation" in params[key]]
    assert sum("_block" in key for key in params) == blocks
    assert len(with_gate) == squeezing
    off = _params(name, squeeze_excitation=False)
    assert set(off) == set(params)
    assert not any("squeeze_excitation" in off[key] for key in off)


def test_bottlenecks_are_a_quarter_of_the_expanded_channels_in_eights():
    params = _params("mobilenet_v3_large")
    shapes = [
        params[block]["squeeze_excitation"]["reduce"]["kernel"].shape
        for block in ("stage3_block0", "stage3_block1", "stage5_block0", "stage6_block2")
    ]
    assert shapes == [(72, 24), (120, 32), (480, 120), (960, 240)]


def test_the_last_stage_widens_after_the_mean():
    params = _params("mobilenet_v3_small")
    assert params["final"]["conv"]["kernel"].shape == (1, 1, 96, 576)
    assert params["hidden"]["kernel"].shape == (576, 1024)
    assert params["head"]["kernel"].shape == (1024, 1000)


def test_the_width_factor_scales_all_channels():
    narrow = _params("mobilenet_v3_large", width_factor=0.75)
    assert narrow["stage6_block2"]["depthwise"]["conv"]["kernel"].shape == (5, 5, 1, 720)
    assert narrow["hidden"]["kernel"].shape == (720, 960)
    # Counted in torchvision's mobilenet_v3_large(width_mult=0.75).
    assert models.count_parameters({"params": narrow}) == 3_377_576
