import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from imgrec.evaluation.explanations.occlusion import occlusion

SHAPE = (13, 10, 1)
REGION = (slice(2, 5), slice(6, 8))


class Region(nn.Module):
    """Class 0 is the brightness of a few pixels, class 1 its negative."""

    @nn.compact
    def __call__(self, x, train=False):
        total = x[:, *REGION].sum(axis=(1, 2, 3))
        return jnp.stack([total, -total], axis=-1)


def by_hand(images, classes, grey, size, stride):
    """Square after square, pixel after pixel."""
    height, width, _ = SHAPE

    def score(pixels, label):
        total = pixels[*REGION].sum()
        return total if label == 0 else -total

    overhang = (size - 1) // stride * stride
    maps = np.zeros((len(images), height, width))
    for i, (image, label) in enumerate(zip(images / 255, classes, strict=True)):
        counts = np.zeros((height, width))
        for top in range(-overhang, height, stride):
            for left in range(-overhang, width, stride):
                rows = slice(max(top, 0), top + size)
                columns = slice(max(left, 0), left + size)
                hidden = image.copy()
                hidden[rows, columns] = grey
                maps[i, rows, columns] += score(image, label) - score(hidden, label)
                counts[rows, columns] += 1
        assert counts.min() >= 1
        maps[i] /= counts
    return maps


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (4, 2), (3, 2), (5, 3), (2, 2), (1, 1)])
def test_it_is_the_mean_fall_over_the_squares_that_hide_a_pixel(size, stride, subject_of, noise):
    subject = dataclasses.replace(subject_of(Region(), SHAPE, params={}), mean=(0.25,))
    # A network that is given colours less their mean does not see the mean in a sum.
    subject = dataclasses.replace(subject, std=(0.5,))
    images, classes = noise(2, SHAPE), np.array([0, 1], np.int32)
    found = occlusion(
        subject,
        subject.variables,
        jnp.asarray(images),
        jnp.asarray(classes),
        size=size,
        stride=stride,
    )
    expected = by_hand(images, classes, 0.25, size, stride) / 0.5
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_by_default_only_squares_at_the_region_matter(subject_of, noise):
    subject = subject_of(Region(), SHAPE, params={})
    images = jnp.full((1, *SHAPE), 255, jnp.uint8)
    found = np.asarray(occlusion(subject, subject.variables, images, jnp.zeros(1, jnp.int32)))[0]
    np.testing.assert_allclose(found[REGION], found.max(), rtol=0.5)
    inside = np.zeros(SHAPE[:2], bool)
    inside[REGION] = True
    assert found[inside].min() > 0
    assert not found[8:].any()  # squares have 2 pixels
    assert not found[:, :4].any()


def test_a_network_that_looks_nowhere_loses_nothing(subject_of, noise):
    class Constant(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return jnp.broadcast_to(self.param("bias", nn.initializers.zeros, (2,)), (len(x), 2))

    subject = subject_of(Constant(), SHAPE)
    found = occlusion(
        subject, subject.variables, jnp.asarray(noise(3, SHAPE)), jnp.zeros(3, jnp.int32)
    )
    assert found.shape == (3, *SHAPE[:2])
    assert not np.any(found)
