"""A batch in chunks is the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgrec.models import inference


def forward(images):
    means = images.mean(axis=(1, 2))
    return {"logits": jnp.sin(means) @ jnp.ones((3, 5)), "means": means, "index": means[:, 0]}


@pytest.mark.parametrize("count", [1, 3, 4, 8, 11])
def test_every_output_is_in_its_place_whatever_the_rest(count):
    images = jnp.asarray(np.random.default_rng(0).normal(size=(count, 2, 3, 3)), jnp.float32)
    found = jax.jit(lambda x: inference.in_chunks(forward, x, 4))(images)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, forward(images))


def test_only_a_chunk_is_in_flight():
    sizes = []

    def counted(images):
        sizes.append(len(images))
        return images.sum(axis=(1, 2))

    jax.eval_shape(lambda x: inference.in_chunks(counted, x, 4), jnp.zeros((10, 2, 3, 3)))
    assert set(sizes) == {4, 2}
