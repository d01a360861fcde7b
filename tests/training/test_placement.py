import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from imgrec.config import MeshConfig, OptimizerConfig
from imgrec.errors import UserError
from imgrec.training import mesh as meshes
from imgrec.training import optimizers, placement, rules
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
    shardings = placement.state_shardings(state, mesh, placements)
    assert jax.tree.structure(shardings) == jax.tree.structure(state)
    assert all(sharding.mesh == mesh for sharding in jax.tree.leaves(shardings))
    return dict(zip(rules.names(state), (s.spec for s in jax.tree.leaves(shardings)), strict=True))


def test_fsdp_cuts_the_largest_axis_that_divides():
    parts = [("odd/.*|head/bias", "replicate"), (".*", "fsdp")]
    found = specs(make_mesh(2, 4), parts)
    expected = {
        "stem/kernel": PartitionSpec(None, None, None, "fsdp"),  # 8 of (3, 3, 2, 8)
        "stem/bias": PartitionSpec("fsdp"),
        "hidden/kernel": PartitionSpec(None, "fsdp"),  # 6 is larger, but no multiple of 4
        "head/kernel": PartitionSpec("fsdp"),  # 4 of (4, 10)
    }
    assert {name: found[f"params/{name}"] for name in expected} == expected
    halves = specs(make_mesh(4, 2), parts)
    assert halves["params/hidden/kernel"] == PartitionSpec("fsdp")
    assert halves["params/head/kernel"] == PartitionSpec(None, "fsdp")


def test_fsdp_that_cannot_cut_a_parameter_says_which_and_what_can():
    with pytest.raises(UserError) as refusal:
        specs(make_mesh(2, 4), [("head/.*", "fsdp")])
    message = str(refusal.value)
    assert "'fsdp' cuts 'head/bias' of shape (10,), but 4 devices along 'fsdp'" in message
    assert "Sizes of mesh.fsdp that do: 1, 2, 5; " in message
    assert "by a rule before: ('head/bias', 'replicate'); or write 'auto'" in message
    specs(make_mesh(2, 4), [("head/bias", "replicate"), ("head/.*", "fsdp")])
    specs(make_mesh(4, 2), [("head/.*", "fsdp")])


def test_auto_cuts_by_fsdp_what_is_no_vector_and_divides():
    found = specs(make_mesh(2, 4), [(".*", "auto")])
    assert found == specs(make_mesh(2, 4), ())
    expected = {
        "stem/kernel": PartitionSpec(None, None, None, "fsdp"),
        "stem/bias": PartitionSpec(),
        "hidden/kernel": PartitionSpec(None, "fsdp"),
        "head/kernel": PartitionSpec("fsdp"),
        "head/bias": PartitionSpec(),
        "odd/scale": PartitionSpec(),
    }
    assert {name: found[f"params/{name}"] for name in expected} == expected


@pytest.mark.parametrize("word", ["auto", "fsdp", "replicate"])
def test_without_an_fsdp_axis_everything_is_everywhere(word):
    assert set(specs(make_mesh(8), [(".*", word)]).values()) == {PartitionSpec()}


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
    assert found["params/stem/kernel"] == PartitionSpec(None, None, "tensor")
    assert found["params/stem/bias"] == PartitionSpec()
    assert found["params/odd/scale"] == PartitionSpec()  # no rule matches it


@pytest.mark.parametrize("optimizer", optimizers.OPTIMIZERS)
def test_optimizer_and_average_follow_their_parameter(optimizer):
    found = specs(
        make_mesh(2, 2, 2),
        [("head/kernel", "-,tensor"), ("odd/.*", "replicate"), (".*", "fsdp")],
        optimizer,
    )
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

    shardings = placement.state_shardings(jax.eval_shape(init), mesh, [(".*", "auto")])
    state = jax.jit(init, out_shardings=shardings)()
    kernel = state.params["stem"]["kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(3, 3, 2, 2)}


@pytest.mark.parametrize(
    ("placements", "message"),
    [
        (
            [("head/.*", "shard")],
            "'shard' in 'shard' is no placement. Write 'auto', 'replicate', 'fsdp'",
        ),
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
