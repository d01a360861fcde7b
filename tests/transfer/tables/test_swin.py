"""Swin: whose the mergings are, and indices that follow from sizes."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.transfer import mapping, tables

SHAPE = (32, 32, 3)


@pytest.fixture(scope="module")
def swin():
    module = models.create(ModelConfig("swin_t"), 10)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *SHAPE))))
    rng = np.random.default_rng(0)
    params = flax.core.unfreeze(shapes)["params"]
    return module, jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), params)


def test_timm_and_the_authors_count_the_mergings_differently(swin):
    module, params = swin
    kernel = params["stage2_merging"]["reduction"]["kernel"]
    for naming, stage in (("timm", 1), ("microsoft/Swin-Transformer", 0)):
        table = tables.named(module, SHAPE, naming)
        foreign = mapping.export(params, {}, table)
        name = f"layers.{stage}.downsample.reduction.weight"
        np.testing.assert_array_equal(foreign[name], kernel.T)
        # Even a file without the head is taken for what it is.
        backbone = {name: array for name, array in foreign.items() if not name.startswith("head")}
        assert mapping.choose(backbone, tables.known(module, SHAPE)).naming == naming


def test_indices_and_masks_of_the_authors_files_are_not_weights(swin):
    module, params = swin
    table = tables.named(module, SHAPE, "microsoft/Swin-Transformer")
    buffers = {
        "layers.0.blocks.0.attn.relative_position_index": np.zeros((49, 49), np.int64),
        "layers.0.blocks.1.attn_mask": np.zeros((64, 49, 49), np.float32),
    }
    foreign = {**mapping.export(params, {}, table), **buffers}
    found, _, accounting = mapping.convert(foreign, table, params, {})
    assert set(accounting.ignored) == set(buffers)
    jax.tree.map(np.testing.assert_array_equal, found, params)
