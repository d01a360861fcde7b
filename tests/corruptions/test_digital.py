import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from imgrec.corruptions import digital, filters

KEY = jax.random.key(0)
SHARES = [(0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)]


@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize(("height", "width", "channels"), [(32, 32, 3), (28, 28, 1), (37, 53, 3)])
def test_pixelate_is_pillows_to_the_level(shares, height, width, channels):
    levels = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    pixelate = jax.jit(functools.partial(digital.pixelate, share=shares))
    for severity, share in enumerate(shares, start=1):
        found = pixelate(jnp.asarray(levels / 255, jnp.float32), KEY, severity)
        picture = Image.fromarray(levels.squeeze())
        small = picture.resize((int(width * share), int(height * share)), Image.Resampling.BOX)
        expected = np.asarray(small.resize((width, height), Image.Resampling.BOX))
        np.testing.assert_array_equal(filters.levels(found), expected.reshape(levels.shape))


def test_the_boxes_are_pillows_at_any_length():
    rng = np.random.default_rng(1)
    for length in range(24, 120, 5):
        row = rng.integers(0, 256, (1, length), np.uint8)
        first, end = digital._boxes(length, SHARES[0])
        for box, share in enumerate(SHARES[0]):
            small = Image.fromarray(row).resize((int(length * share), 1), Image.Resampling.BOX)
            expected = np.asarray(small.resize((length, 1), Image.Resampling.BOX))[0]
            means = [
                (2 * row[0, a:b].sum(dtype=int) + b - a) // (2 * (b - a))
                for a, b in zip(first[box], end[box], strict=True)
            ]
            np.testing.assert_array_equal(means, expected)


def test_the_affine_map_takes_the_corners_along():
    moves = np.random.default_rng(0).uniform(-3, 3, (3, 2)).astype(np.float32)
    corners = 7 * np.array([[1, 1], [-1, 1], [-1, -1]], np.float32)
    moved = (corners + moves)[:, None]
    y, x = digital._moved_back(
        jnp.asarray(moved[..., 0]), jnp.asarray(moved[..., 1]), 7, jnp.asarray(moves)
    )
    np.testing.assert_allclose(np.concatenate([y, x], axis=1), corners, atol=1e-5)


def elastic(image, severity, **constants):
    zero = dict.fromkeys(("strength", "sigma", "affine"), (0,) * 5)
    transform = jax.jit(functools.partial(digital.elastic_transform, **(zero | constants)))
    return transform(jnp.asarray(image), KEY, severity)


def test_an_elastic_map_of_no_strength_is_the_image():
    image = np.random.default_rng(0).random((24, 20, 3), dtype=np.float32)
    np.testing.assert_allclose(elastic(image, 1), image, atol=1e-5)
    assert np.abs(elastic(image, 2, affine=(0, 0.1, 0, 0, 0)) - image).mean() > 0.1


def test_the_displacement_is_smooth_noise_of_the_given_size():
    # An image that is its own column number shows the displacement along rows.
    columns = np.broadcast_to(np.arange(64, dtype=np.float32)[:, None] / 63, (64, 64, 1))
    found = elastic(columns, 1, strength=(0.5,) * 5, sigma=(1 / 32,) * 5)
    moved = 63 * np.asarray(found - columns)[20:44, 20:44, 0]
    # Uniform noise in [-1, 1], smoothed by sigma = 2 pixels, times 32.
    assert moved.std() == pytest.approx(32 / 3**0.5 / (2 * np.pi**0.5 * 2), rel=0.25)
    rough = np.abs(np.diff(moved, axis=1)).mean()
    assert rough < 0.6 * moved.std()
