"""Subjects around any module, with variables that need no initialisation to be compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgrec.evaluation.subject import Subject


def _subject(module, image_shape, *, params=None, classes=None, seed=0) -> Subject:
    """A module as the subject of explanations, with random variables or those given.

    Its images are not normalised: the mean is 0 and the standard deviation 1.
    """
    rng = np.random.default_rng(seed)
    images = jnp.zeros((1, *image_shape), jnp.float32)
    logits, shapes = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), images))

    def value(path, leaf):
        noise = rng.normal(size=leaf.shape)
        if leaf.ndim > 1:
            return jnp.float32(noise / np.sqrt(np.prod(leaf.shape[:-1])))
        return jnp.float32(0.1 * noise + (path[-1].key in ("scale", "var")))

    shapes = {name: tree for name, tree in shapes.items() if name != "intermediates"}
    variables = jax.tree_util.tree_map_with_path(value, shapes)
    if params is not None:
        variables = {"params": jax.tree.map(jnp.asarray, params)}
    channels = image_shape[-1]
    return Subject(
        module=module,
        variables=variables,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        image_shape=image_shape,
        class_names=tuple(map(str, range(logits.shape[-1]))),
        batch_size=8,
        put=lambda batch: batch,
    )


@pytest.fixture(scope="session")
def subject_of():
    return _subject


@pytest.fixture(scope="session")
def noise():
    """noise(n, image_shape): uint8 images without any structure."""

    def images(n, image_shape, seed=0):
        return np.random.default_rng(seed).integers(0, 256, (n, *image_shape), dtype=np.uint8)

    return images
