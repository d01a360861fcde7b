import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from imgrec.corruptions import filters

GAUSSIAN = jax.jit(filters.gaussian, static_argnames=("largest", "truncate", "mode"))
SMEAR = jax.jit(filters.smear, static_argnames="longest")
IMAGE = np.random.default_rng(0).random((13, 17, 2), dtype=np.float32)


@pytest.mark.parametrize("sigma", [0.0, 0.05, 0.4, 1.0, 2.5])
@pytest.mark.parametrize(("mode", "scipy_mode"), [("edge", "nearest"), ("symmetric", "reflect")])
def test_the_gaussian_is_that_of_scipy(sigma, mode, scipy_mode):
    for truncate in (3, 4):
        found = GAUSSIAN(jnp.asarray(IMAGE), sigma, largest=6.5, truncate=truncate, mode=mode)
        expected = ndimage.gaussian_filter(
            IMAGE, (sigma, sigma, 0), mode=scipy_mode, truncate=truncate
        )
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_smear_reads_along_the_direction():
    found = SMEAR(jnp.asarray(IMAGE), 30.0, 2, 1.5, longest=4)
    weights = np.exp(-0.5 * (np.arange(5) / 1.5) ** 2)
    rows = [0, 1, 1, 2, 2]  # i sin 30: 0.5 is rounded to 0 by ceil(x - 0.5), and 1.5 to 1
    rows = np.ceil(np.arange(5) * np.sin(np.deg2rad(30)) - 0.5).astype(int)
    columns = [0, 1, 2, 3, 3]
    expected = np.zeros_like(IMAGE)
    for y in range(13):
        for x in range(17):
            for weight, down, right in zip(weights / weights.sum(), rows, columns, strict=True):
                expected[y, x] += weight * IMAGE[min(y + down, 12), min(x + right, 16)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("degrees", [-135, -90, -45, 0, 45])
def test_a_smear_of_radius_nothing_is_the_image(degrees):
    found = SMEAR(jnp.asarray(IMAGE), float(degrees), 0, 1.0, longest=5)
    np.testing.assert_allclose(found, IMAGE, atol=1e-7)


@pytest.mark.parametrize("factor", [1, 1.01, 1.13, 1.75, 2.5])
def test_enlarging_is_scipys_zoom_of_the_middle(factor):
    image = IMAGE[:, :13]
    points = filters.zoom_points(13, [factor])[0]
    found = filters.read_grid(jnp.asarray(image), jnp.asarray(points), jnp.asarray(points))
    crop = int(np.ceil(13 / factor))
    top = (13 - crop) // 2
    middle = image[top : top + crop, top : top + crop]
    zoomed = ndimage.zoom(middle, (factor, factor, 1), order=1)
    trim = (len(zoomed) - 13) // 2
    np.testing.assert_allclose(found, zoomed[trim : trim + 13, trim : trim + 13], atol=1e-5)


@pytest.mark.parametrize(("repeat_edge", "mode"), [(True, "reflect"), (False, "mirror")])
def test_reading_between_and_beyond_pixels_is_scipys(repeat_edge, mode):
    rng = np.random.default_rng(1)
    rows, columns = (rng.uniform(-30, 45, (13, 17)).astype(np.float32) for _ in "yx")
    found = filters.read_points(
        jnp.asarray(IMAGE), jnp.asarray(rows), jnp.asarray(columns), repeat_edge=repeat_edge
    )
    for channel in range(2):
        expected = ndimage.map_coordinates(IMAGE[..., channel], (rows, columns), order=1, mode=mode)
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-5)


def test_levels_cut_off_but_forgive_a_rounding():
    whole = jnp.arange(256) / jnp.float32(255)
    np.testing.assert_array_equal(filters.levels(whole), np.arange(256))
    np.testing.assert_array_equal(filters.levels(jnp.array([-1.0, 2.0, 10.99 / 255])), [0, 255, 10])
