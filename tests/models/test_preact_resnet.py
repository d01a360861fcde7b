"""Pre-activation ResNets: names, resolutions, and a shortcut that nothing interrupts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.models.preact_resnet import PreActivationBlock


def _shapes(name, image_size, **options):
    module = models.create(ModelConfig(name, ConfigDict(options)), 10)
    images = jnp.zeros((1, image_size, image_size, 3))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    maps = jax.eval_shape(lambda v: models.intermediates(module, v, images), variables)
    params = {
        "/".join(key.key for key in path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
    }
    return params, {name: value.shape[1:] for name, value in maps.items()}


def test_names_of_the_parameters():
    params, _ = _shapes("preact_resnet50", 64)
    assert params["stem/kernel"] == (7, 7, 3, 64)
    assert params["stage1_block0/norm1/scale"] == (64,)
    assert params["stage1_block0/projection/kernel"] == (1, 1, 64, 256)
    assert params["stage2_block0/conv2/kernel"] == (3, 3, 128, 128)
    assert params["stage4_block2/conv3/kernel"] == (1, 1, 512, 2048)
    assert params["norm/scale"] == (2048,)
    projections = {name.split("/")[0] for name in params if "projection" in name}
    assert projections == {f"stage{i}_block0" for i in (1, 2, 3, 4)}
    basic, _ = _shapes("preact_resnet18", 64)
    assert "stage1_block0/projection/kernel" not in basic


def test_resolutions_of_both_stems():
    _, standard = _shapes("preact_resnet18", 67)
    assert [standard[f"stage{i}"] for i in (1, 2, 3, 4)] == [
        (17, 17, 64),
        (9, 9, 128),
        (5, 5, 256),
        (3, 3, 512),
    ]
    _, small = _shapes("preact_resnet18", 32, stem="small_images")
    assert [small[f"stage{i}"][0] for i in (1, 2, 3, 4)] == [32, 16, 8, 4]
    assert small["pre_logits"] == (512,)


def test_the_sum_passes_unchanged_through_blocks_whose_branches_are_dropped(fill):
    # Negative values too: no rectifier follows the addition.
    x = jnp.asarray(np.random.default_rng(0).normal(size=(16, 4, 4, 4)), jnp.float32)
    block = PreActivationBlock(4, 1, False, "none", 0.5, jnp.float32)
    variables = fill(block, x, train=False)
    train = functools.partial(block.apply, train=True, mutable=["batch_stats"])
    out, _ = jax.jit(lambda: train(variables, x, rngs={"dropout": jax.random.key(2)}))()
    unchanged = np.all(np.asarray(out == x), axis=(1, 2, 3))
    assert 0 < unchanged.sum() < 16


def test_two_hundred_layers():
    blocks = models.create(ModelConfig("preact_resnet200"), 1000).blocks
    assert 3 * sum(blocks) + 2 == 200
