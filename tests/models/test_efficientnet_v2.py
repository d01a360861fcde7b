"""EfficientNetV2-S: fused in front, squeeze-excitation behind."""

import jax
import jax.numpy as jnp

from imgrec import models
from imgrec.config import ModelConfig


def test_fused_blocks_have_full_convolutions_and_no_squeeze_excitation():
    module = models.create(ModelConfig("efficientnet_v2_s"), 10)
    images = jnp.zeros((1, 64, 64, 3))
    params = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))["params"]
    parts = {name: set(block) for name, block in params.items() if "_block" in name}
    assert sum(name.startswith("stage6") for name in parts) == 15
    assert parts["stage1_block1"] == {"expand"}
    assert parts["stage2_block0"] == parts["stage3_block3"] == {"expand", "project"}
    assert parts["stage4_block0"] == {"expand", "depthwise", "squeeze_excitation", "project"}
    kernels = params["stage2_block0"]
    assert kernels["expand"]["conv"]["kernel"].shape == (3, 3, 24, 96)
    assert kernels["project"]["conv"]["kernel"].shape == (1, 1, 96, 48)
    reduce = params["stage4_block0"]["squeeze_excitation"]["reduce"]["kernel"]
    assert reduce.shape == (256, 16)
    assert module.norm_momentum == 0.9
