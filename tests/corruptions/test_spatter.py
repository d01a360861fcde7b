import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from imgrec.corruptions import spatter

CONSTANTS = {
    "mean": (0.65, 0.65, 0.65, 0.65, 0.0),
    "scale": (0.3, 0.3, 0.3, 0.3, 0.0),
    "sigma": (2, 2, 2, 1, 1),
    "threshold": (0.69, 0.68, 0.68, 0.65, 0.65),
    "strength": (0.6, 0.6, 0.5, 1, 1),
    "mud": (0, 0, 0, 1, 0),
}
SPATTER = jax.jit(functools.partial(spatter.spatter, **CONSTANTS))
EDGES = jax.jit(spatter._edges)


def on(image, severity, seed=0):
    return np.asarray(SPATTER(image, jax.random.key(seed), severity))


def test_water_brightens_up_to_its_strength_in_pale_turquoise():
    shine = on(jnp.zeros((48, 48, 3)), 1)
    np.testing.assert_allclose(
        shine.max(axis=(0, 1)), 0.6 * np.array([175, 238, 238]) / 255, rtol=1e-4
    )
    assert 0.02 < (shine.max(axis=-1) > 0).mean() < 0.9
    grey = on(jnp.zeros((48, 48, 1)), 1)[..., 0]
    np.testing.assert_allclose(grey, shine @ [0.299, 0.587, 0.114], atol=1e-4)


def test_mud_covers_the_image():
    covered = on(jnp.ones((48, 48, 3)), 4)
    mud = np.array([63, 42, 20]) / 255
    where = covered[..., 0] < 1
    assert 0.05 < where.mean() < 0.6
    opacity = (1 - covered[where]) / (1 - mud)
    np.testing.assert_allclose(opacity[:, :2], opacity[:, 1:], atol=1e-5)
    assert opacity.min() >= 0.8 - 1e-5


def test_where_nothing_exceeds_the_threshold_nothing_changes():
    image = jnp.full((24, 24, 3), 0.3)
    np.testing.assert_array_equal(on(image, 5), image)


def test_the_edge_of_a_disc_is_one_line_around_it():
    y, x = np.mgrid[:40, :40] - 19.5
    drops = np.where(np.hypot(y, x) < 11, 200.0, 0).astype(np.float32)
    edges = np.asarray(EDGES(jnp.asarray(drops)))
    radii = np.hypot(y, x)[edges]
    assert radii.min() > 9
    assert radii.max() < 13
    assert 55 < edges.sum() < 90  # a circle has 69
    assert ndimage.label(edges, np.ones((3, 3)))[1] == 1


def test_a_weak_edge_counts_where_it_goes_on_from_a_strong_one():
    step = np.zeros((20, 20), np.float32)
    step[:, 10:] = np.linspace(15, 60, 20)[:, None]  # gradients from 60 to 240
    assert np.asarray(EDGES(jnp.asarray(step)))[5:-1].any(axis=1).all()
    assert not np.asarray(EDGES(jnp.asarray(step[:8]))).any()


@pytest.mark.parametrize("share", [0.002, 0.05])
def test_distances_are_scipys_up_to_the_farthest(share):
    edges = np.random.default_rng(0).random((50, 70)) < share
    found = spatter._distance(jnp.asarray(edges))
    expected = np.minimum(ndimage.distance_transform_edt(~edges), 20)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (np.asarray(spatter._distance(jnp.zeros((9, 9), bool))) == 20).all()


def test_values_are_spread_by_rank():
    values = jnp.array([[3.0, 3, 5, 5], [5, 7, 7, 9]])
    # Of six above the least: three are up to 5, five up to 7.
    expected = [[0, 0, 128, 128], [128, 212, 212, 255]]
    np.testing.assert_allclose(spatter._equalized(values), expected, atol=1)
    np.testing.assert_array_equal(spatter._equalized(jnp.full((2, 2), 7.0)), np.full((2, 2), 7))
