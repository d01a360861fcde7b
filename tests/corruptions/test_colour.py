import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgrec.corruptions import colour

KEY = jax.random.key(0)
# Random colours, greys and black, and colours on the border of the cone.
LEVELS = np.random.default_rng(0).integers(0, 256, (16, 16, 3))
LEVELS[0] = LEVELS[0, :, :1]
LEVELS[1, :8] = 0
LEVELS[2] = np.where(LEVELS[2] > 128, 255, 0)
IMAGE = (LEVELS / 255).astype(np.float32)


def by_hsv(change):
    """The image with (saturation, value) of each pixel changed, by the standard library."""
    pixels = []
    for red, green, blue in IMAGE.reshape(-1, 3).astype(float):
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        saturation, value = (min(part, 1) for part in change(saturation, value))
        pixels.append(colorsys.hsv_to_rgb(hue, saturation, value))
    return np.reshape(pixels, IMAGE.shape)


def test_brightness_raises_the_value_of_hsv():
    found = colour.brightness(jnp.asarray(IMAGE), KEY, 4, shift=(0.1, 0.2, 0.3, 0.4, 0.5))
    np.testing.assert_allclose(found, by_hsv(lambda s, v: (s, v + 0.4)), atol=1e-5)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_saturate_changes_the_saturation_of_hsv(severity):
    factor, shift = (0.3, 0.1, 2, 5, 20), (0, 0, 0, 0.1, 0.2)
    found = colour.saturate(jnp.asarray(IMAGE), KEY, severity, factor=factor, shift=shift)
    f, b = factor[severity - 1], shift[severity - 1]
    np.testing.assert_allclose(found, by_hsv(lambda s, v: (s * f + b, v)), atol=1e-5)


def test_an_image_of_one_channel_is_brightened_and_has_no_saturation():
    grey = jnp.asarray(IMAGE[..., :1])
    brighter = colour.brightness(grey, KEY, 1, shift=(0.25,) * 5)
    np.testing.assert_allclose(brighter, np.minimum(grey + 0.25, 1), atol=1e-6)
    same = colour.saturate(grey, KEY, 5, factor=(2,) * 5, shift=(0.2,) * 5)
    np.testing.assert_array_equal(same, grey)


def test_contrast_draws_towards_the_mean_of_each_channel():
    found = colour.contrast(jnp.asarray(IMAGE), KEY, 2, factor=(1, 0.25, 1, 1, 1))
    mean = IMAGE.mean(axis=(0, 1))
    np.testing.assert_allclose(found, mean + 0.25 * (IMAGE - mean), atol=1e-6)
