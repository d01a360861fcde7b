"""Weights of other projects give the logits that those projects recorded."""

import functools
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.transfer import golden, mapping, tables

RECORDS = sorted((Path(__file__).parent / "golden").glob("*.json"))


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = golden.read(RECORDS[0])
    record.write(tmp_path / "again.json")
    assert golden.read(tmp_path / "again.json") == record
    assert (tmp_path / "again.json").read_text() == RECORDS[0].read_text()


def test_a_weight_depends_on_its_own_name_and_shape_only():
    both = golden.weights({"a.weight": (3, 4), "b.running_var": (5,)})
    alone = golden.weights({"b.running_var": (5,)})
    np.testing.assert_array_equal(both["b.running_var"], alone["b.running_var"])
    assert both["b.running_var"].min() >= 0.5


def test_a_layer_is_drawn_by_what_it_sums_over_whatever_it_is_called():
    shapes = dict.fromkeys(("attention.query.weight", "mlp_tokens.fc1.weight"), (400, 100))
    for array in golden.weights(shapes, gain=1.0).values():
        np.testing.assert_allclose(array.std(), 0.1, rtol=0.02)
    (tokens,) = golden.weights({"cls_token": (1, 1, 10_000)}).values()
    np.testing.assert_allclose(tokens.std(), 0.5, rtol=0.03)


@functools.cache
def compiled(module, image_shape):
    """The shapes of a module's variables, and its forward function; records may share them."""
    images = jnp.zeros((2, *image_shape))
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    return flax.core.unfreeze(shapes), jax.jit(functools.partial(module.apply, train=False))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_the_logits_are_theirs_and_the_weights_go_back_exactly(path):
    record = golden.read(path)
    module = models.create(
        ModelConfig(name=record.model, options=ConfigDict(record.options)), len(record.logits[0])
    )
    foreign = record.arrays()
    table = mapping.choose(foreign, tables.known(module, record.image_shape))
    assert record.naming in (table.naming, *table.also)
    # What weights cannot tell of their networks, the table says as the network had it.
    assert {name: getattr(module, name) for name in table.made_with} == table.made_with
    images = golden.images(record.image_shape)
    shapes, forward = compiled(module, record.image_shape)
    state = {name: tree for name, tree in shapes.items() if name != "params"}
    params, state, accounting = mapping.convert(foreign, table, shapes["params"], state)
    assert not accounting.replaced

    logits = forward({"params": params, **state}, images)
    np.testing.assert_allclose(logits, record.logits, atol=1e-4)

    exported = mapping.export(params, state, table)
    back = {accounting.prefix + name: array for name, array in exported.items()}
    assert back.keys() <= foreign.keys()
    assert not (foreign.keys() - back.keys() - set(accounting.ignored))
    for name, array in back.items():
        np.testing.assert_array_equal(array, foreign[name], err_msg=name)
        assert array.dtype == foreign[name].dtype
