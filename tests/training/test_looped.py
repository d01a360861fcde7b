"""Training with `scan_layers`: weights go in and out, and rules over blocks still hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig, OptimizerConfig
from imgrec.errors import UserError
from imgrec.models import stacking
from imgrec.training import optimizers, weights
from imgrec.training.checkpoints import Checkpoints
from imgrec.training.plan import plan
from imgrec.transfer import mapping, safetensors, tables

SHAPE = (8, 8, 1)


@pytest.fixture
def vit(tiny):
    """The smallest of the registered ViTs on digits, each block by its name or in a loop."""

    def change(*, looped, **options):
        tiny.model = ModelConfig("vit_ti4", ConfigDict({"scan_layers": looped, **options}))
        tiny.optimizer = OptimizerConfig(name="adamw", learning_rate=1e-3)
        return tiny

    return change


@pytest.mark.parametrize("looped", [True, False])
def test_a_runs_weights_go_from_either_layout_to_the_other(vit, tmp_path, looped):
    saved = plan(vit(looped=not looped)).initial_state().params
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save_best(1, 0.5, {"params": saved})
    experiment = vit(looped=looped)
    experiment.init.weights, experiment.seed = str(tmp_path), 1
    experiment.mesh.data, experiment.mesh.fsdp = 1, 2
    planned = plan(experiment)
    assert planned.weights[0].startswith("weights: all ")
    found = planned.initial_state().params
    assert stacking.is_stacked(found) == looped
    assert [leaf.sharding for leaf in jax.tree.leaves(found)] == jax.tree.leaves(
        planned.shardings.params
    )
    jax.tree.map(
        np.testing.assert_array_equal, stacking.unstacked(found), stacking.unstacked(saved)
    )
    # Whoever evaluates the run reads single blocks.
    names = weights.shapes_there(weights.best_variables(str(tmp_path), "--workdir"))
    assert "params/block11/mlp/out/kernel" in names
    assert not any(name.startswith("params/blocks/") for name in names)


def test_a_file_of_other_names_gives_a_loop_its_weights(vit, tmp_path):
    module = models.create(ModelConfig("vit_ti4"), 10)
    images = jnp.zeros((1, *SHAPE))
    params = jax.jit(lambda: module.init(jax.random.key(7), images))()["params"]
    (timm,) = (t for t in tables.known(module, SHAPE) if t.naming == "timm")
    safetensors.write(tmp_path / "w.safetensors", mapping.export(params, {}, timm))
    experiment = vit(looped=True)
    experiment.init.weights = str(tmp_path / "w.safetensors")
    found = plan(experiment).initial_state().params
    jax.tree.map(np.testing.assert_array_equal, found, stacking.stacked(params))


LAYERS = (("embedding",), ("block0",), ("block1",), ("norm", "head"))


def step_along(params, grad, **settings):
    """What one step of an optimizer adds to the parameters."""
    config = OptimizerConfig(**{"weight_decay_rules": (), **settings})
    optimizer = optimizers.create(config, lambda step: 1.0, params, layers=LAYERS)
    return jax.jit(lambda p, g: optimizer.update(g, optimizer.init(p), p)[0])(params, grad)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "sgd", "layer_decay": 0.5},
        {"name": "adamw", "layer_decay": 0.5, "weight_decay": 0.1},
        {"name": "muon"},
        {"name": "lion", "learning_rate_rules": ((".*kernel", 3.0),)},
    ],
    ids=str,
)
def test_optimizers_treat_stacked_blocks_as_single_ones(settings):
    rng = np.random.default_rng(0)

    def tree():
        block = {"mlp": {"kernel": (6, 4), "bias": (4,)}}
        shapes = {"embedding": {"kernel": (2, 4)}, "block0": block, "block1": block}
        return jax.tree.map(
            lambda shape: rng.normal(size=shape).astype(np.float32),
            {**shapes, "head": {"kernel": (4, 3)}},
            is_leaf=lambda shape: isinstance(shape, tuple),
        )

    params, grad = tree(), tree()
    single = step_along(params, grad, **settings)
    looped = step_along(stacking.stacked(params), stacking.stacked(grad), **settings)
    for found, wanted in zip(
        jax.tree.leaves(stacking.unstacked(looped)), jax.tree.leaves(single), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_what_needs_single_blocks_is_refused(vit):
    experiment = vit(looped=True)
    experiment.optimizer.unfreeze_every = "1st"
    with pytest.raises(UserError, match="thaws one layer after the other"):
        plan(experiment)
    experiment.optimizer = OptimizerConfig(name="lamb")
    with pytest.raises(UserError, match="'lamb' scales the step of each layer by its norm"):
        plan(experiment)
