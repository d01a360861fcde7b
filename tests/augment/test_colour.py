"""Against Pillow, colorsys and SciPy, on two photographs."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage
from sklearn.datasets import load_sample_images

from imgrec.augment import colour

PHOTOGRAPHS = [
    np.asarray(Image.fromarray(one).resize((160, 106))) for one in load_sample_images().images
]
DULL = (PHOTOGRAPHS[0] // 3 + 40).astype(np.uint8)  # uses a part of the levels
FACTORS = (0.0, 0.1, 0.37, 0.5, 1.0, 1.3, 1.9, 4.0)


def images():
    """Two photographs, a dull one, a grey one, a flat one, a tiny one."""
    grey = np.asarray(Image.fromarray(PHOTOGRAPHS[1]).convert("L"))[..., None]
    return [*PHOTOGRAPHS, DULL, grey, np.full((20, 20, 3), 77, np.uint8), DULL[:2, :5]]


def pillow(image):
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def array(picture):
    found = np.asarray(picture)
    return found[..., None] if found.ndim == 2 else found


ENHANCE = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
    "sharpness": ImageEnhance.Sharpness,
}
OTHERS = {  # name: arguments, Pillow's function, tolerance
    "posterize": (
        [0, 1, 4, 7, 8],
        lambda p, bits: p.point(lambda v: v & ~(2 ** (8 - bits) - 1)),
        0,
    ),
    "solarize": ([0, 1, 128, 200, 256], ImageOps.solarize, 0),
    "invert": ([()], lambda p: ImageOps.invert(p), 0),
    "equalize": ([()], lambda p: ImageOps.equalize(p), 0),
    "autocontrast": ([()], lambda p: ImageOps.autocontrast(p), 1),
}


@pytest.mark.parametrize("name", ENHANCE)
def test_enhancements_are_exactly_pillows(name):
    function = jax.jit(getattr(colour, name))
    for image in images():
        for factor in FACTORS:
            expected = array(ENHANCE[name](pillow(image)).enhance(factor))
            np.testing.assert_array_equal(function(image, factor), expected, f"{factor}")


@pytest.mark.parametrize("name", OTHERS)
def test_operations_on_levels_are_pillows(name):
    arguments, expected_of, tolerance = OTHERS[name]
    function = jax.jit(getattr(colour, name))
    for image in images():
        for argument in arguments:
            more = () if argument == () else (argument,)
            expected = array(expected_of(pillow(image), *more)).astype(int)
            difference = np.abs(np.asarray(function(image, *more)).astype(int) - expected)
            assert difference.max() <= tolerance
            assert (difference > 0).mean() < 0.1


def test_solarize_add_raises_the_dark_half():
    levels = jnp.arange(256, dtype=jnp.uint8)
    raised = np.asarray(colour.solarize_add(levels, 140))
    expected = [min(v + 140, 255) if v < 128 else v for v in range(256)]
    np.testing.assert_array_equal(raised, expected)


def test_greyscale_is_exactly_pillows():
    for image in images():
        expected = array(pillow(image).convert("L"))
        np.testing.assert_array_equal(
            colour.greyscale(jnp.asarray(image)), np.broadcast_to(expected, image.shape)
        )


@pytest.mark.parametrize("shift", [-0.5, -0.2, 0.0, 0.05, 0.31, 0.5])
def test_hue_is_that_of_colorsys(shift):
    for photograph in PHOTOGRAPHS:
        image = photograph[::9, ::9]
        expected = np.empty(image.shape)
        for place in np.ndindex(image.shape[:2]):
            hue, saturation, value = colorsys.rgb_to_hsv(*(image[place] / 255))
            expected[place] = colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)
        found = np.asarray(jax.jit(colour.turn_hue)(image, shift)).astype(float)
        assert np.abs(found - 255 * expected).max() <= 0.501  # the nearest level
        if shift == 0:
            np.testing.assert_array_equal(found, image)


def test_hue_of_grey_stays():
    grey = images()[3]
    np.testing.assert_array_equal(colour.turn_hue(jnp.asarray(grey), 0.3), grey)
    three = np.repeat(grey, 3, axis=-1)
    np.testing.assert_array_equal(colour.turn_hue(jnp.asarray(three), 0.3), three)


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_blur_is_a_gaussian(sigma):
    for image in images()[:4]:
        expected = ndimage.gaussian_filter(
            image.astype(float), (sigma, sigma, 0), mode="nearest", truncate=3
        )
        found = np.asarray(jax.jit(colour.blur, static_argnums=2)(image, sigma, 2.0))
        assert np.abs(found - expected).max() < 1  # 0.5 is the rounding


def test_histogram_counts():
    image = PHOTOGRAPHS[0]
    expected = np.stack([np.bincount(image[..., c].ravel(), minlength=256) for c in range(3)], -1)
    np.testing.assert_array_equal(colour.histogram(jnp.asarray(image)), expected)


def test_jitter_draws_factors_around_one():
    flat = jnp.full((4, 4, 3), 100, jnp.uint8)
    keys = jax.random.split(jax.random.key(0), 300)
    found = np.asarray(jax.vmap(lambda key: colour.jitter(flat, key, brightness=0.4))(keys))
    assert (found == found[:, :1, :1, :1]).all()
    quartiles = np.quantile(found[:, 0, 0, 0], [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(quartiles, [60, 80, 100, 120, 140], atol=5)
