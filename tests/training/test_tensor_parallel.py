import collections
import re

import jax
import pytest
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import DataConfig, Experiment, MeshConfig, ModelConfig
from imgrec.errors import UserError
from imgrec.models import vit
from imgrec.training import mesh as meshes
from imgrec.training import placement, rules, tensor_parallel
from imgrec.training import plan as plans

SHAPE = (32, 32, 3)


def params_of(name, options=None):
    module = models.create(ModelConfig(name, ConfigDict(options or {})), 10)
    images = jax.ShapeDtypeStruct((1, *SHAPE), "float32")
    return module, jax.eval_shape(lambda x: module.init(jax.random.key(0), x), images)["params"]


@pytest.mark.parametrize(
    ("model", "options", "pairs"),
    [
        ("vit_s4", {}, {"query": 12, "key": 12, "value": 12, "hidden": 12, "out": 24}),
        ("vit_s4", {"scan_layers": True}, dict.fromkeys(("query", "key", "value", "hidden"), 1)),
        ("deit_s16", {}, {"query": 12, "key": 12, "value": 12, "hidden": 12, "out": 24}),
        ("swin_t", {}, {"query": 12, "key": 12, "value": 12, "hidden": 12, "out": 24}),
        ("mixer_s16", {}, {"hidden": 16, "out": 16}),
        ("convnext_atto", {}, {"hidden": 12, "out": 12}),
        ("resnet20", {}, {}),
        ("efficientnet_b0", {}, {}),
    ],
)
def test_layers_into_branches_are_cut_by_columns_and_out_of_them_by_rows(model, options, pairs):
    _, params = params_of(model, options)
    found = collections.Counter()
    for name, leaf in zip(rules.names(params), jax.tree.leaves(params), strict=True):
        axes = tensor_parallel.axes(name, leaf.shape, 2)
        assert len(axes) == leaf.ndim
        layer, last = name.split("/")[-2:] if "/" in name else ("", name)
        if "tensor" not in axes:
            continue
        if last == "kernel":
            found[layer] += 1
        assert axes.index("tensor") == leaf.ndim - (2 if layer == "out" else 1)
        # The sum over devices comes after a row-parallel layer, and its bias after the sum.
        assert (layer, last) != ("out", "bias")
        assert tensor_parallel.axes(name, leaf.shape, 1) == (None,) * leaf.ndim
    assert {name: found[name] for name in pairs} == pairs
    assert bool(found) == bool(pairs)


def test_fsdp_takes_an_axis_that_tensor_left():
    mesh = meshes.create(MeshConfig(1, 2, 4))
    axes = {
        name: placement._axes("auto", f"block0/{name}", shape, mesh)
        for name, shape in {
            "mlp/hidden/kernel": (64, 256),
            "mlp/out/kernel": (256, 64),
            "mlp/hidden/bias": (256,),
            "self_attention/out/kernel": (64, 64),
            "norm1/scale": (64,),
        }.items()
    }
    assert axes == {
        "mlp/hidden/kernel": ("fsdp", "tensor"),
        "mlp/out/kernel": ("tensor", "fsdp"),
        "mlp/hidden/bias": ("tensor",),
        "self_attention/out/kernel": ("tensor", "fsdp"),
        "norm1/scale": (None,),
    }


def test_loops_over_blocks_are_not_cut_along_the_blocks():
    mesh = meshes.create(MeshConfig(1, 4, 2))
    found = placement._axes("auto", "blocks/mlp/hidden/kernel", (12, 6, 256), mesh)
    assert found == (None, None, "tensor")
    assert placement._axes("auto", "blocks/norm1/scale", (12, 64), mesh) == (None, None)


def check(model, size, placements=((".*", "auto"),), options=None):
    module, params = params_of(model, options)
    names = rules.names(params)
    everywhere = jax.sharding.NamedSharding(
        meshes.create(MeshConfig(1, 1, size)), PartitionSpec("tensor")
    )
    tensor_parallel.check(
        module,
        SHAPE,
        placement.decided(names, placements),
        dict.fromkeys(names, everywhere),
        size,
    )


def test_heads_that_cannot_be_shared_are_refused_by_name():
    with pytest.raises(UserError) as refusal:
        check("vit_ti4", 2)
    message = str(refusal.value)
    assert "the 3 heads of 'block0/self_attention' evenly" in message
    assert "Sizes of mesh.tensor that fit all attention here: 1, 3." in message
    check("vit_ti4", 3)
    check("vit_ti4", 2, ((".*attention/.*", "replicate"), (".*", "auto")))
    with pytest.raises(UserError, match="the 3 heads of 'blocks/self_attention'"):
        check("vit_ti4", 2, options={"scan_layers": True})
    with pytest.raises(UserError, match="the 3 heads of 'stage1_block0/window_attention/attend'"):
        check("swin_t", 2)


def test_an_axis_that_would_cut_nothing_is_refused():
    experiment = Experiment(
        data=DataConfig(batch_size=32), model=ModelConfig("resnet8"), mesh=MeshConfig(2, 1, 2)
    )
    with pytest.raises(UserError, match=r"config\.mesh\.tensor=2 cuts no parameter"):
        plans.plan(experiment)
    experiment.mesh.rules = (("head/kernel", "-,tensor"), (".*", "auto"))
    assert plans.plan(experiment).shardings.params["head"]["kernel"].spec == PartitionSpec(
        None, "tensor"
    )


def test_a_block_sends_two_sums_forward_and_two_back(monkeypatch):
    depth = 2
    monkeypatch.setitem(vit._SIZES, "ti", {"width": 32, "depth": depth, "num_heads": 4})
    experiment = Experiment(
        data=DataConfig(batch_size=32),
        model=ModelConfig("vit_ti4"),
        mesh=MeshConfig(1, 1, 4),
    )
    plan = plans.plan(experiment)
    batch = {
        "image": jax.ShapeDtypeStruct((32, *plan.dataset.info.image_shape), "float32"),
        "target": jax.ShapeDtypeStruct((32, 10), "float32"),
    }

    def collectives(function):
        params = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            plan.state.params,
            plan.shardings.params,
        )
        text = jax.jit(function).lower(params, batch).compile().as_text()
        return collections.Counter(
            re.findall(r" (all-reduce|all-gather|all-to-all|collective-permute)(?:-start)?\(", text)
        )

    def loss(params, batch):
        return plan.task.loss(params, {}, batch, jax.random.key(0))[0]

    assert collectives(loss) == {"all-reduce": 2 * depth}
    assert collectives(jax.grad(loss)) == {"all-reduce": 4 * depth}
