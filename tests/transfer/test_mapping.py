"""Tables by hand: every array accounted for, and everything that does not fit named."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from imgrec.errors import UserError
from imgrec.transfer import layers, mapping
from imgrec.transfer.mapping import Entry, Grid, Table
from imgrec.transfer.turns import LINEAR, fused

TABLE = Table(
    "byhand",
    (
        *layers.conv("net.conv", "stem/conv"),
        *layers.batch_norm("net.bn", "stem/norm"),
        Entry(
            ("net.qkv",), tuple(f"params/{n}/kernel" for n in "qkv"), fused(3).then(LINEAR)
        ),
        Entry(("net.pos",), ("params/pos",), grid=Grid(rows=2, columns=3, prefix=1)),
        *layers.head("fc"),
    ),
    ignored=(r"aux\..*",),
    respelled=((r"\.gamma$", ".weight"),),
    stem="net.",
)  # fmt: skip


def noise(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def ours(classes=5):
    params = {
        "stem": {
            "conv": {"kernel": noise(3, 3, 2, 4)},
            "norm": {"scale": noise(4), "bias": noise(4, seed=1)},
        },
        **{name: {"kernel": noise(6, 2, seed=i)} for i, name in enumerate("qkv")},
        "pos": noise(1, 7, 4),
        "head": {"kernel": noise(4, classes), "bias": noise(classes)},
    }
    state = {"batch_stats": {"stem": {"norm": {"mean": noise(4, seed=2), "var": noise(4, seed=3)}}}}
    return params, state


def shapes(classes=5):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), ours(classes))


def theirs():
    return mapping.export(*ours(), TABLE)


def convert(arrays, classes=5):
    return mapping.convert(arrays, TABLE, *shapes(classes))


def assert_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_out_is_as_the_table_says():
    found, (params, state) = theirs(), ours()
    assert found.keys() == {
        "net.conv.weight", "net.bn.weight", "net.bn.bias", "net.bn.running_mean",
        "net.bn.running_var", "net.qkv", "net.pos", "fc.weight", "fc.bias",
    }  # fmt: skip
    assert found["net.conv.weight"].shape == (4, 2, 3, 3)
    assert found["net.conv.weight"][1, 0, 2, 1] == params["stem"]["conv"]["kernel"][2, 1, 0, 1]
    np.testing.assert_array_equal(found["net.qkv"][2:4], params["k"]["kernel"].T)
    np.testing.assert_array_equal(
        found["net.bn.running_var"], state["batch_stats"]["stem"]["norm"]["var"]
    )


def test_in_again_is_exact_with_everything_accounted_for():
    params, state, accounting = convert(theirs())
    assert_same((params, state), ours())
    assert accounting.prefix == ""
    assert accounting.ignored == accounting.replaced == accounting.resized == ()
    assert accounting.numbers == sum(x.size for x in jax.tree.leaves(ours()))
    assert ("net.qkv", "params/v/kernel") in accounting.renamed
    assert accounting.lines() == [
        "9 arrays used (177 numbers), in the naming of byhand",
        "renamed: net.conv.weight is params/stem/conv/kernel, and so on",
    ]


def test_an_export_by_another_models_table_is_refused():
    params, state = ours()
    params["extra"] = noise(2)
    with pytest.raises(UserError, match=r"of byhand is not .* it differs by params/extra"):
        mapping.export(params, state, TABLE)


@pytest.mark.parametrize("prefix", ["module.", "module.model.", "a/b.c."])
def test_prefixes_that_all_names_share_are_taken_off(prefix):
    arrays = {prefix + name: array for name, array in theirs().items()}
    # Averaging adds a counter that has no prefix.
    arrays["n_averaged"] = np.int64(3)
    params, state, accounting = convert(arrays)
    assert_same((params, state), ours())
    assert accounting.prefix == prefix
    assert accounting.ignored == ("n_averaged",)
    assert accounting.renamed[0][0] == f"{prefix}net.conv.weight"
    assert f"prefix taken off: {prefix!r}" in accounting.lines()


def test_what_may_be_ignored_is_named_and_nothing_else_may():
    arrays = theirs()
    arrays |= {f"{n}num_batches_tracked": np.int64(1) for n in ("net.bn.", "aux.bn.")}
    arrays["aux.weight"] = noise(2)
    accounting = convert(arrays)[2]
    assert accounting.ignored == (
        "aux.bn.num_batches_tracked", "aux.weight", "net.bn.num_batches_tracked",
    )  # fmt: skip
    assert "ignored: num_batches_tracked (2), weight (1)" in accounting.lines()
    with pytest.raises(UserError, match=r"unexpected: other\.weight"):
        convert({**arrays, "other.weight": noise(2)})


def test_older_spellings_and_a_backbone_alone():
    arrays = theirs()
    arrays["net.bn.gamma"] = arrays.pop("net.bn.weight")
    backbone = {n.removeprefix("net."): a for n, a in arrays.items() if not n.startswith("fc.")}
    params, state, accounting = convert(backbone)
    expected, expected_state = ours()
    assert params.pop("head") == shapes()[0]["head"]
    expected.pop("head")
    assert_same((params, state), (expected, expected_state))
    assert accounting.head == "the file has none"
    assert ("bn.gamma", "params/stem/norm/scale") in accounting.renamed


def test_two_spellings_of_one_array_are_not_one():
    arrays = theirs()
    arrays["net.bn.gamma"] = arrays["net.bn.weight"] + 1
    for order in (1, -1):
        with pytest.raises(UserError, match=r"0 arrays are missing, 1 unexpected.*\n.*bn\.gamma"):
            convert(dict(list(arrays.items())[::order]))


def test_a_head_for_other_classes_stays_as_it_was_given():
    params, state = ours(classes=3)
    found, found_state, accounting = mapping.convert(theirs(), TABLE, params, state)
    assert_same(found["head"], params["head"])
    assert_same((found["pos"], found_state), (ours()[0]["pos"], state))
    assert accounting.lines()[-1] == (
        "NEW HEAD: params/head/bias, params/head/kernel start afresh: 5 classes there, 3 here "
        "(fc.weight, fc.bias left out)"
    )


def test_a_head_of_another_width_is_an_error():
    arrays = theirs() | {"fc.weight": noise(5, 9)}
    with pytest.raises(UserError, match=r"shape of fc\.weight: \(5, 9\) there, \(5, 4\) here"):
        convert(arrays)
    arrays = theirs() | {"fc.weight": noise(3, 4)}  # beside a bias of 5 classes
    with pytest.raises(UserError, match=r"shape of fc\.weight: \(3, 4\) there, \(5, 4\) here"):
        convert(arrays)
    arrays = theirs()
    del arrays["fc.bias"]
    with pytest.raises(UserError, match=r"missing: fc\.bias \(our params/head/bias\)"):
        convert(arrays)


def test_positions_of_a_square_grid_are_resized():
    arrays = theirs() | {"net.pos": noise(1, 17, 4)}
    params, _, accounting = convert(arrays)
    assert params["pos"].shape == (1, 7, 4)
    assert accounting.resized == ("net.pos from 4x4 to 2x3 patches, bicubic",)
    assert "resized: net.pos from 4x4 to 2x3 patches, bicubic" in accounting.lines()
    for shape in [(1, 16, 4), (1, 17, 5), (2, 17, 4), (17, 4), (1, 0, 4)]:
        with pytest.raises(UserError, match=r"shape of net\.pos: "):
            convert(arrays | {"net.pos": np.ones(shape, np.float32)})


def test_all_that_differs_is_listed_with_the_nearest_names():
    arrays = theirs()
    arrays["net.bn.wait"] = arrays.pop("net.bn.weight")
    arrays["net.conv.weight"] = noise(4, 2, 5, 5)
    arrays["net.bn.bias"] = np.arange(4)
    with pytest.raises(UserError) as caught:
        convert(arrays)
    assert str(caught.value).splitlines() == [
        "these weights, in the naming of byhand, are of another model: 1 arrays are missing, "
        "1 unexpected, 2 of another shape or type.",
        "  shape of net.conv.weight: (4, 2, 5, 5) there, (4, 2, 3, 3) here",
        "  shape of net.bn.bias: int64 there, fractions here",
        "  missing: net.bn.weight (our params/stem/norm/scale); perhaps net.bn.wait",
        "  unexpected: net.bn.wait; perhaps net.bn.weight",
        "Set config.model.name and config.model.options to the network they were trained in.",
    ]


def test_variables_that_the_table_does_not_know_are_an_error():
    params, state = shapes()
    params["gate"] = jax.ShapeDtypeStruct((3,), jnp.float32)
    with pytest.raises(UserError, match="not in the naming of byhand: params/gate"):
        mapping.convert(theirs(), TABLE, params, state)


def test_many_differences_are_counted():
    with pytest.raises(UserError, match=r"(?s)20 unexpected.*unexpected: x15.*and 12 more"):
        convert(theirs() | {f"x{i}": noise(1) for i in range(20)})


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_precisions_are_cast_and_said(dtype):
    arrays = {name: array.astype(dtype) for name, array in theirs().items()}
    params, state, accounting = convert(arrays)
    expected = jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), ours())
    assert_same((params, state), expected)
    name = np.dtype(dtype).name
    assert accounting.cast == {name: 9}
    assert f"cast to float32: 9 arrays of {name}" in accounting.lines()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite_are_refused(value):
    arrays = theirs()
    arrays["net.bn.bias"] = np.array([0, value, 1, 2])
    with pytest.raises(UserError, match=r"1 of the 4 values of net\.bn\.bias are not finite"):
        convert(arrays)


def test_the_table_that_knows_most_names_is_chosen():
    other = Table("other", tuple(layers.conv("net.conv", "stem/conv")))
    assert mapping.choose(theirs(), [other, TABLE]) is TABLE
    assert mapping.choose([f"module.{n}" for n in theirs()], [other, TABLE]) is TABLE
    assert mapping.choose(["conv.weight"], [TABLE, other]) is TABLE
    for names in (["backbone.weight", "x"], []):
        with pytest.raises(UserError, match=r"(?s)none of its .*byhand: net\.conv\.weight"):
            mapping.choose(names, [TABLE, other])


def test_given_arrays_are_not_changed():
    arrays = theirs()
    before = {name: array.copy() for name, array in arrays.items()}
    convert(arrays)
    assert_same(arrays, before)
