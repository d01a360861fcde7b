"""A loop over equal blocks is the same network as the blocks one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.models import stacking
from imgrec.models.depth import indices_of


def thin(**options):
    """ViT with patches of 4 and three narrow blocks."""
    module = models.create(ModelConfig("vit_ti4", ConfigDict(options)), 10)
    return module.clone(width=16, depth=3, num_heads=4)


IMAGES = jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, 8, 3)), jnp.float32)


@pytest.fixture(scope="module")
def looped():
    """The module with a loop, its twin without, and their variables."""
    module = thin(scan_layers=True, stochastic_depth=0.2, dropout=0.1)
    params = jax.jit(lambda: module.init(jax.random.key(0), IMAGES))()["params"]
    params["head"]["kernel"] = jax.random.normal(jax.random.key(1), (16, 10))
    single = {"params": stacking.unstacked(params)}
    return module, models.portable(module), {"params": params}, single


def test_parameters_lie_stacked_with_the_blocks_first(looped):
    _, twin, variables, single = looped
    kernel = variables["params"]["blocks"]["mlp"]["hidden"]["kernel"]
    assert kernel.shape == (3, 16, 64)
    # Each block begins differently, at the scale of a single one.
    assert not np.allclose(kernel[0], kernel[1])
    assert np.abs(kernel).max() <= np.sqrt(6 / (16 + 64))
    expected = jax.eval_shape(lambda: twin.init(jax.random.key(0), IMAGES))
    assert jax.tree.map(jnp.shape, single) == jax.tree.map(lambda leaf: leaf.shape, expected)


def test_both_compute_the_same(looped):
    module, twin, variables, single = looped
    loop = jax.jit(lambda v: models.intermediates(module, v, IMAGES))(variables)
    blocks = jax.jit(lambda v: models.intermediates(twin, v, IMAGES))(single)
    assert loop.keys() == blocks.keys()
    assert loop["block2/attention"].shape == (2, 4, 5, 5)
    for name, value in blocks.items():
        np.testing.assert_allclose(loop[name], value, atol=1e-5, err_msg=name)


def test_gradients_are_the_same(looped):
    module, twin, variables, single = looped

    def grads(module, variables):
        return jax.jit(jax.grad(lambda v: jnp.sum(module.apply(v, IMAGES) ** 2)))(variables)

    loop = stacking.unstacked(grads(module, variables)["params"])
    for found, wanted in zip(
        jax.tree.leaves(loop), jax.tree.leaves(grads(twin, single)["params"]), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4)


def test_rates_rise_and_blocks_drop_by_keys_of_their_own(looped):
    """Where each branch is dropped or kept is read off what the blocks hand on."""
    module, _, variables, _ = looped
    module = module.clone(depth=2, stochastic_depth=0.9, dropout=0.0)
    params = jax.tree.map(lambda leaf: leaf, variables["params"])
    params["blocks"] = jax.tree.map(lambda leaf: leaf[:2], params["blocks"])
    images = jnp.broadcast_to(IMAGES[:1], (400, *IMAGES.shape[1:]))
    _, sown = jax.jit(
        lambda p: module.apply(
            {"params": p},
            images,
            train=True,
            mutable=["intermediates"],
            rngs={"dropout": jax.random.key(0)},
        )
    )(params)
    out = np.asarray(sown["intermediates"]["blocks"]["output"][0])[:, :, 0]
    # Rates are 0.45 and 0.9 for either branch of the first and the second block.
    kept, counts = np.unique(out[0].round(3), axis=0, return_counts=True)
    assert len(kept) == 4
    assert max(counts) / 400 == pytest.approx(0.55**2, abs=0.07)
    unchanged = np.isclose(out[1], out[0], atol=1e-5).all(-1)
    assert unchanged.mean() == pytest.approx(0.9**2, abs=0.07)


def test_stacking_and_back_is_the_identity(looped):
    _, _, variables, single = looped
    back = stacking.stacked(single["params"])
    jax.tree.map(np.testing.assert_array_equal, back, variables["params"])
    assert stacking.is_stacked(back)
    assert not stacking.is_stacked(single["params"])
    assert stacking.unstacked(single["params"]).keys() == single["params"].keys()
    # Twelve blocks count as numbers, not as words; the host's arrays stay on the host.
    many = {f"block{i}": {"bias": np.full(2, i)} for i in reversed(range(12))}
    stack = stacking.stacked(many)["blocks"]["bias"]
    assert isinstance(stack, np.ndarray)
    assert stack[:, 0].tolist() == list(range(12))


def test_shapes_keep_their_shardings():
    mesh = Mesh(np.array(jax.devices()[:2]), ("fsdp",))
    at = NamedSharding(mesh, PartitionSpec(None, "fsdp"))
    shapes = {f"block{i}": jax.ShapeDtypeStruct((3, 4), jnp.float32, sharding=at) for i in (0, 1)}
    stack = stacking.stacked(shapes)["blocks"]
    assert stack.shape == (2, 3, 4)
    assert stack.sharding == NamedSharding(mesh, PartitionSpec(None, None, "fsdp"))
    assert stacking.unstacked({"blocks": stack}) == shapes


def test_a_loops_parameter_is_of_every_blocks_layer(looped):
    module, twin, *_ = looped
    layers = models.layers(module, (8, 8, 3))
    assert layers == models.layers(twin, (8, 8, 3))
    assert indices_of(layers, "blocks/mlp/hidden/kernel") == (1, 2, 3)
    assert indices_of(layers, "head/kernel") == (4,)


def test_only_networks_of_equal_blocks_have_the_option():
    assert models.portable(models.create(ModelConfig("resnet8"), 10)).depth == 8
    for name, has in {"vit_s16": True, "deit_s16": True, "swin_t": False}.items():
        assert ("scan_layers" in models.describe(name).options) == has
