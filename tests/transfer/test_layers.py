"""Entries of layers: names, and channels in another order."""

import numpy as np
import pytest

from imgrec.transfer import layers

FOREIGN = np.arange(24.0).reshape(2, 3, 2, 2)


def names(entries):
    return {theirs: ours for entry in entries for theirs in entry.theirs for ours in entry.ours}


def test_names():
    assert names(layers.conv("a.0", "b/c", bias=True)) == {
        "a.0.weight": "params/b/c/kernel",
        "a.0.bias": "params/b/c/bias",
    }
    assert names(layers.conv("a", "b")) == {"a.weight": "params/b/kernel"}
    assert names(layers.linear("a", "b", bias=False)) == {"a.weight": "params/b/kernel"}
    assert names(layers.batch_norm("a", "b")) == {
        "a.weight": "params/b/scale",
        "a.bias": "params/b/bias",
        "a.running_mean": "batch_stats/b/mean",
        "a.running_var": "batch_stats/b/var",
    }
    assert names(layers.norm("a", "b")) == {"a.weight": "params/b/scale", "a.bias": "params/b/bias"}
    head = layers.head("fc")
    assert names(head) == {"fc.weight": "params/head/kernel", "fc.bias": "params/head/bias"}
    assert [entry.classes_axis for entry in head] == [0, 0]
    assert {e.classes_axis for e in layers.linear("a", "b")} == {None}


def test_one_layer_there_is_query_key_and_value_here():
    kernel, bias = layers.query_key_value("qkv.weight", "qkv.bias", "a")
    assert kernel.ours == ("params/a/query/kernel", "params/a/key/kernel", "params/a/value/kernel")
    query, key, value = kernel.turn.into((np.arange(12.0).reshape(6, 2),))
    np.testing.assert_array_equal(query, [[0, 2], [1, 3]])
    np.testing.assert_array_equal(key, [[4, 6], [5, 7]])
    np.testing.assert_array_equal(value, [[8, 10], [9, 11]])
    np.testing.assert_array_equal(bias.turn.into((np.arange(6.0),)), [[0, 1], [2, 3], [4, 5]])


def test_names_of_flax():
    assert names(layers.flax("A_0", "b")) == {
        "A_0/kernel": "params/b/kernel",
        "A_0/bias": "params/b/bias",
    }
    assert names(layers.flax_norm("A_0", "b")) == {
        "A_0/scale": "params/b/scale",
        "A_0/bias": "params/b/bias",
    }
    head = layers.flax_head("head")
    assert names(head) == {"head/kernel": "params/head/kernel", "head/bias": "params/head/bias"}
    assert [entry.classes_axis for entry in head] == [1, 0]


@pytest.mark.parametrize("inputs", [None, [2, 0, 1]])
@pytest.mark.parametrize("outputs", [None, [1, 0]])
def test_channels_in_another_order(inputs, outputs):
    kernel, bias = layers.conv("a", "b", bias=True, inputs=inputs, outputs=outputs)
    (found,) = kernel.turn.into((FOREIGN,))
    for i in range(3):
        for o in range(2):
            there = FOREIGN[outputs[o] if outputs else o, inputs[i] if inputs else i]
            np.testing.assert_array_equal(found[:, :, i, o], there)
    (shifts,) = bias.turn.into((np.array([10, 20]),))
    assert shifts.tolist() == ([20, 10] if outputs else [10, 20])
    np.testing.assert_array_equal(kernel.turn.out((found,))[0], FOREIGN)


def test_a_dense_layer_reads_its_inputs_in_another_order():
    for entry in (
        layers.linear("a", "b", inputs=[2, 0, 1])[0],
        layers.head("a", inputs=[2, 0, 1])[0],
    ):
        (found,) = entry.turn.into((np.array([[1, 2, 3], [4, 5, 6]]),))
        np.testing.assert_array_equal(found, [[3, 6], [1, 4], [2, 5]])


def test_a_convolution_with_its_norm():
    found = names(layers.conv_norm("a.0", "a.1", "b"))
    assert found.pop("a.0.weight") == "params/b/conv/kernel"
    assert {name.rsplit(".", 1)[0] for name in found} == {"a.1"}
    assert {name.split("/", 1)[1].rsplit("/", 1)[0] for name in found.values()} == {"b/norm"}


@pytest.mark.parametrize(
    "entries", [layers.pointwise("a", "b"), layers.head("a", "b", pointwise=True)]
)
def test_a_dense_layer_that_is_a_convolution_of_one_pixel_there(entries):
    assert names(entries) == {"a.weight": "params/b/kernel", "a.bias": "params/b/bias"}
    kernel = np.arange(6.0).reshape(2, 3, 1, 1)
    (found,) = entries[0].turn.into((kernel,))
    np.testing.assert_array_equal(found, [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(entries[0].turn.out((found,))[0], kernel)


def test_a_pointwise_head_can_be_replaced():
    assert [entry.classes_axis for entry in layers.head("a", pointwise=True)] == [0, 0]
