"""DenseNets: the spelling of torchvision's released files."""

import flax
import jax
import jax.numpy as jnp
import numpy as np

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.transfer import mapping, tables

SHAPE = (32, 32, 3)


def test_the_older_spelling_gives_the_same_variables():
    module = models.create(ModelConfig("densenet121"), 3)
    images = jnp.zeros((1, *SHAPE))
    shapes = flax.core.unfreeze(jax.eval_shape(lambda: module.init(jax.random.key(0), images)))
    params = shapes.pop("params")
    (table,) = tables.known(module, SHAPE)
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), (params, shapes))
    today = {name: i * a for i, (name, a) in enumerate(mapping.export(*ones, table).items())}

    older = {}
    for name, array in today.items():
        for part in ("norm1", "norm2", "conv1", "conv2"):
            name = name.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        older[name] = array
    assert "features.denseblock4.denselayer16.norm.2.running_var" in older
    assert "features.transition1.norm.weight" in older  # which never had a number
    assert len(older.keys() - today.keys()) == 58 * 2 * 5

    found = mapping.convert(older, table, params, shapes)
    expected = mapping.convert(today, table, params, shapes)
    jax.tree.map(np.testing.assert_array_equal, found[:2], expected[:2])
    assert found[2].ignored == found[2].replaced == ()
