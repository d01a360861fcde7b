"""Variables without an initialisation to compile, for tests that need only some numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def _fill(module, *inputs, **arguments):
    """Random variables of a module, of the usual sizes, and none of them zero.

    Initialisers put zeros in places (biases, heads) where a fault could hide.
    """
    rng = np.random.default_rng(0)
    init = functools.partial(module.init, **arguments)
    shapes = jax.eval_shape(lambda: init(jax.random.key(0), *inputs))

    def value(path, leaf):
        noise = rng.normal(size=leaf.shape)
        if leaf.ndim > 1:
            return jnp.float32(noise / np.sqrt(np.prod(leaf.shape[:-1])))
        return jnp.float32(0.1 * noise + (path[-1].key in ("scale", "var")))

    return jax.tree_util.tree_map_with_path(value, shapes)


@pytest.fixture(scope="session")
def fill():
    return _fill
