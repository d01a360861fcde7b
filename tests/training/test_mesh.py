import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from imgrec.config import MeshConfig, OptimizerConfig
from imgrec.errors import UserError
from imgrec.training import mesh as meshes
from imgrec.training import optimizers, rules
from imgrec.training import state as states

SHAPES = {
    "stem": {"kernel": (3, 3, 2, 8), "bias": (8,)},
    "hidden": {"kernel": (6, 4)},
    "head": {"kernel": (4, 10), "bias": (10,)},
    "odd": {"scale": (3,)},
}


def parameters():
    is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.float32), SHAPES, is_leaf=is_shape)


def make_mesh(data=-1, fsdp=1, tensor=1):
    return meshes.create(MeshConfig(data=data, fsdp=fsdp, tensor=tensor))


def specs(mesh, placements, optimizer="sgd"):
    """The placement of every leaf of a state with EMA, by name."""
    params = parameters()
    transformation = optimizers.create(
        OptimizerConfig(name=optimizer, weight_decay_rules=()), lambda step: 0.1, params
    )
    model_state = {"batch_stats": {"norm": {"mean": jax.ShapeDtypeStruct((8,), jnp.float32)}}}
    state = jax.eval_shape(
        lambda p, m: states.create(p, m, transformation, ema=True), params, model_state
    )
    shardings = meshes.state_shardings(state, mesh, placements)
    assert jax.tree.structure(shardings) == jax.tree.structure(state)
    assert all(sharding.mesh == mesh for sharding in jax.tree.leaves(shardings))
    return dict(zip(rules.names(state), (s.spec for s in jax.tree.leaves(shardings)), strict=True))


@pytest.mark.parametrize(
    ("asked", "sizes"),
    [
        ((-1, 1, 1), (8, 1, 1)),
        ((-1, 2, 2), (2, 2, 2)),
        ((2, -1, 1), (2, 4, 1)),
        ((1, 2, -1), (1, 2, 4)),
        ((2, 2, 2), (2, 2, 2)),
        ((1, 1, 1), (1, 1, 1)),
        ((3, 1, 1), (3, 1, 1)),
        ((-1, 8, 1), (1, 8, 1)),
    ],
)
def test_sizes(asked, sizes):
    mesh = make_mesh(*asked)
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert tuple(mesh.shape.values()) == sizes
    assert len(set(mesh.devices.flat)) == mesh.devices.size
    assert set(mesh.devices.flat) == set(jax.devices()[: mesh.devices.size])


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(UserError, match=re.escape("(data=4, fsdp=4, tensor=1) asks for 16 devi")):
        make_mesh(4, 4)
    with pytest.raises(UserError, match=r"asks for 16 devices; .* 8 cpu devices"):
        make_mesh(-1, 16)


def test_a_rest_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match="8 cpu devices cannot be shared out evenly over 3"):
        make_mesh(-1, 3)


def test_several_processes_must_use_all_devices(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match=r"uses 4 of 8 cpu devices; .* Set one axis to -1"):
        make_mesh(4)


@pytest.mark.parametrize(
    ("sizes", "accumulate", "batch_size", "nearest"),
    [
        ((4, 1, 1), 1, 30, "28 or 32"),
        ((2, 2, 2), 1, 30, "28 or 32"),  # the tensor axis does not cut the batch
        ((8, 1, 1), 4, 100, "96 or 128"),
        ((8, 1, 1), 1, 7, "8"),
        ((1, 1, 1), 3, 128, "126 or 129"),
    ],
)
def test_a_batch_that_cannot_be_cut_is_refused_with_the_nearest(
    sizes, accumulate, batch_size, nearest
):
    mesh = make_mesh(*sizes)
    with pytest.raises(UserError) as refusal:
        meshes.check_batch(mesh, batch_size, accumulate, "data.batch_size")
    message = str(refusal.value)
    assert message.startswith(f"config.data.batch_size={batch_size} cannot be cut evenly over ")
    assert message.endswith(f"Nearest that can: {nearest}.")
    assert (f"train.accumulate={accumulate}" in message) == (accumulate > 1)
    for fitting in map(int, nearest.split(" or ")):
        meshes.check_batch(mesh, fitting, accumulate, "data.batch_size")


def test_a_batch_is_cut_over_data_and_fsdp():
    mesh = make_mesh(2, 2, 2)
    batch = {
        "image": np.arange(8 * 4, dtype=np.uint8).reshape(8, 2, 2, 1),
        "label": np.arange(8, dtype=np.int32),
        "index": np.arange(100, 108, dtype=np.int64),
        "mask": np.ones(8, np.bool_),
    }
    placed = meshes.put_batch(mesh, batch)
    assert {name: value.dtype for name, value in placed.items()} == {
        "image": np.uint8,
        "label": np.int32,
        "index": np.int32,  # what JAX has
        "mask": np.bool_,
    }
    for name, value in placed.items():
        assert value.sharding.spec == PartitionSpec(("data", "fsdp"))
        np.testing.assert_array_equal(value, batch[name])
        for shard in value.addressable_shards:
            data, fsdp, _ = np.argwhere(mesh.devices == shard.device)[0]
            first = 2 * (2 * data + fsdp)
            np.testing.assert_array_equal(shard.data, batch[name][first : first + 2])


def test_fsdp_cuts_the_largest_axis_that_divides():
    found = specs(make_mesh(2, 4), [(".*", "fsdp")])
    expected = {
        "stem/kernel": PartitionSpec(None, None, None, "fsdp"),  # 8 of (3, 3, 2, 8)
        "stem/bias": PartitionSpec("fsdp"),
        "hidden/kernel": PartitionSpec(None, "fsdp"),  # 6 is larger, but no multiple of 4
        "head/kernel": PartitionSpec("fsdp"),  # 4 of (4, 10)
        "head/bias": PartitionSpec(),
        "odd/scale": PartitionSpec(),
    }
    assert {name: found[f"params/{name}"] for name in expected} == expected
    halves = specs(make_mesh(4, 2), [(".*", "fsdp")])
    assert halves["params/hidden/kernel"] == PartitionSpec("fsdp")
    assert halves["params/head/kernel"] == PartitionSpec(None, "fsdp")


@pytest.mark.parametrize("placement", ["fsdp", "replicate"])
def test_without_an_fsdp_axis_everything_is_everywhere(placement):
    assert set(specs(make_mesh(8), [(".*", placement)]).values()) == {PartitionSpec()}


def test_placements_name_a_mesh_axis_for_each_array_axis():
    placements = [
        ("head/kernel", "fsdp,tensor"),
        ("hidden/.*", " - , tensor "),
        (".*/kernel", "-,-,tensor,-"),
        ("stem/bias", "replicate"),
    ]
    found = specs(make_mesh(2, 2, 2), placements)
    assert found["params/head/kernel"] == PartitionSpec("fsdp", "tensor")
    assert found["params/hidden/kernel"] == PartitionSpec(None, "tensor")
    assert found["params/stem/kernel"] == PartitionSpec(None, None, "tensor", None)
    assert found["params/stem/bias"] == PartitionSpec()
    assert found["params/odd/scale"] == PartitionSpec()  # no rule matches it


@pytest.mark.parametrize("optimizer", optimizers.OPTIMIZERS)
def test_optimizer_and_average_follow_their_parameter(optimizer):
    found = specs(make_mesh(2, 2, 2), [("head/kernel", "-,tensor"), (".*", "fsdp")], optimizer)
    assert found["params/head/kernel"] == PartitionSpec(None, "tensor")
    assert found["params/stem/bias"] == PartitionSpec("fsdp")
    names = rules.names(parameters())
    kept = [name for name in found if name.startswith("opt_state/")]
    following = 0
    for name, spec in found.items():
        owner = next((param for param in names if name.endswith(f"/{param}")), None)
        assert spec == (found[f"params/{owner}"] if owner else PartitionSpec()), name
        following += owner is not None and name in kept
    moments = {"sgd": 1, "adamw": 2, "lamb": 2, "lion": 1}
    if optimizer in moments:
        assert following == moments[optimizer] * len(names)
    assert {f"average/params/{name}" for name in names} <= found.keys()
    assert found["step"] == found["model_state/batch_stats/norm/mean"] == PartitionSpec()


def test_a_state_can_be_made_where_it_lives():
    mesh = make_mesh(1, 4, 2)
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), parameters())
    transformation = optimizers.create(
        OptimizerConfig(weight_decay_rules=()), lambda step: 0.1, params
    )

    def init():
        return states.create(params, {}, transformation, ema=False)

    shardings = meshes.state_shardings(jax.eval_shape(init), mesh, [(".*", "fsdp")])
    state = jax.jit(init, out_shardings=shardings)()
    kernel = state.params["stem"]["kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(3, 3, 2, 2)}


@pytest.mark.parametrize(
    ("placements", "message"),
    [
        ([("head/.*", "shard")], "'shard' in 'shard' is no placement. Write 'replicate', 'fsdp'"),
        ([("head/kernel", "-,model")], "'model' in '-,model' is no placement"),
        ([("head/kernel", "")], "'' in '' is no placement"),
        ([("head/kernel", "-,-,tensor")], "places 3 axes, but 'head/kernel' has the shape (4, 10)"),
        ([("head/bias", "-,tensor")], "places 2 axes, but 'head/bias' has the shape (10,)"),
        (
            [("odd/scale", "tensor")],
            "'tensor' cuts 'odd/scale' of shape (3,), but 2 devices along 'tensor' do not divide 3",
        ),
        ([("head/kernel", "tensor,tensor")], "for 'head/kernel' names a mesh axis twice"),
        ([("heads/.*", "fsdp")], "the rule 'heads/.*' matches none of the 6 parameters"),
        ([(".*", "fsdp"), ("head/.*", "replicate")], "the rule 'head/.*' decides nothing"),
    ],
)
def test_placements_that_cannot_be_are_refused(placements, message):
    with pytest.raises(UserError, match=re.escape("config.mesh.rules: ")) as refusal:
        specs(make_mesh(2, 2, 2), placements)
    assert message in str(refusal.value)
