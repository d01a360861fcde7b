import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from imgrec.augment import geometric

HEIGHT, WIDTH, CHANNELS = 9, 7, 3


@pytest.fixture
def image():
    """Every number occurs once, so that a window tells where it was cut."""
    values = np.random.default_rng(0).permutation(HEIGHT * WIDTH * CHANNELS)
    return values.reshape(HEIGHT, WIDTH, CHANNELS).astype(np.uint8)


def smooth_image():
    noise = np.random.default_rng(1).uniform(0, 255, (24, 20, 2))
    return ndimage.gaussian_filter(noise, (2, 2, 0)).astype(np.float32)


def over_keys(function, n):
    """The results of `function(key)` for n keys, as one array."""
    return np.asarray(jax.jit(jax.vmap(function))(jax.random.split(jax.random.key(0), n)))


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_pad_crop_cuts_every_window_of_the_image_padded_by_numpy(image, mode):
    padding = 2
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode)
    offsets = [(i, j) for i in range(2 * padding + 1) for j in range(2 * padding + 1)]
    windows = {padded[i : i + HEIGHT, j : j + WIDTH].tobytes(): (i, j) for i, j in offsets}
    crops = over_keys(lambda key: geometric.pad_crop(jnp.asarray(image), key, padding, mode), 400)
    assert crops.dtype == np.uint8
    found = [windows[crop.tobytes()] for crop in crops]  # a KeyError is a crop from nowhere
    counts = [found.count(offset) for offset in offsets]
    # About binomial: none further than five standard deviations from its mean.
    expected = 400 / len(offsets)
    np.testing.assert_allclose(counts, expected, atol=5 * expected**0.5)


def test_flip_mirrors_left_and_right_half_of_the_time(image):
    flipped = over_keys(lambda key: geometric.flip(jnp.asarray(image), key), 200)
    mirrored = (flipped == image[:, ::-1]).all(axis=(1, 2, 3))
    kept = (flipped == image).all(axis=(1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 60 < mirrored.sum() < 140


def test_flip_twice_is_the_identity(image):
    def twice(key):
        return geometric.flip(geometric.flip(jnp.asarray(image), key), key)

    np.testing.assert_array_equal(over_keys(twice, 20), np.stack([image] * 20))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_rotation_by_zero_is_exactly_the_identity(image, dtype):
    rotated = geometric.rotate(jnp.asarray(image, dtype), 0.0)
    assert rotated.dtype == jnp.float32
    np.testing.assert_array_equal(rotated, image)


@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
def test_quarter_turns_are_numpys(quarters):
    square = smooth_image()[:20]
    rotated = geometric.rotate(jnp.asarray(square), 90.0 * quarters)
    # The cosine of 90 degrees is 4e-8 in float32, and there is 0 beyond the border.
    np.testing.assert_allclose(rotated, np.rot90(square, quarters), atol=2e-3)


@pytest.mark.parametrize("degrees", [-170.0, -45.0, -3.0, 0.5, 15.0, 30.0, 90.0, 135.0])
def test_rotation_agrees_with_scipy_to_the_border(degrees):
    image = smooth_image()
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    center = (np.array(image.shape[:2]) - 1) / 2
    expected = [
        ndimage.affine_transform(
            image[..., channel].astype(np.float64),
            matrix,
            center - matrix @ center,
            order=1,
            mode="grid-constant",
        )
        for channel in range(image.shape[-1])
    ]
    rotated = geometric.rotate(jnp.asarray(image), degrees)
    np.testing.assert_allclose(rotated, np.stack(expected, -1), atol=2e-3)  # of 255


@pytest.mark.parametrize("degrees", [-20.0, 10.0, 45.0])
def test_rotation_agrees_with_pillow_in_the_interior(degrees):
    image = smooth_image()[..., 0]
    expected = Image.fromarray(image).rotate(degrees, Image.Resampling.BILINEAR)
    rotated = geometric.rotate(jnp.asarray(image)[..., None], degrees)[..., 0]
    # At the border the two differ: Pillow stretches the outermost pixels, here they fade.
    y, x = np.indices(image.shape) - (np.array(image.shape) - 1)[:, None, None] / 2
    interior = np.hypot(y, x) < min(image.shape) / 2 - 1
    assert interior.sum() > 200
    difference = np.abs(np.asarray(rotated) - np.asarray(expected))
    assert difference[interior].max() < 0.02  # of 255


def test_rotation_there_and_back_is_nearly_the_identity():
    image = ndimage.gaussian_filter(smooth_image(), (3, 3, 0))
    back = geometric.rotate(geometric.rotate(jnp.asarray(image), 25.0), -25.0)
    assert np.abs(np.asarray(back) - image)[6:-6, 6:-6].max() < 2  # of 255


def test_angles_fill_the_interval_from_minus_the_limit_to_the_limit():
    ramp = jnp.broadcast_to(jnp.arange(9.0)[None, :, None], (9, 9, 1))
    rotated = over_keys(lambda key: geometric.rotation(ramp, key, 40.0), 300)
    across = rotated[:, 4, 5, 0] - rotated[:, 4, 3, 0]
    down = rotated[:, 5, 4, 0] - rotated[:, 3, 4, 0]
    angles = np.rad2deg(np.arctan2(-down, across))
    assert np.abs(angles).max() <= 40.01
    quartiles = np.quantile(angles, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(quartiles, [-40, -20, 0, 20, 40], atol=8)


def test_box_is_clipped_at_the_borders():
    inside = np.asarray(geometric.box(5, 6, (jnp.array(0), jnp.array(5)), (4, 3)))
    expected = np.zeros((5, 6), bool)
    expected[0:2, 4:6] = True
    np.testing.assert_array_equal(inside, expected)


def test_vertical_flip_exchanges_top_and_bottom_half_of_the_time(image):
    flipped = over_keys(lambda key: geometric.flip_vertical(jnp.asarray(image), key), 200)
    exchanged = (flipped == image[::-1]).all(axis=(1, 2, 3))
    assert (exchanged ^ (flipped == image).all(axis=(1, 2, 3))).all()
    assert 60 < exchanged.sum() < 140


def test_an_affine_map_of_everything_is_scipys():
    """The inverse matrix against numpy's inverse of shear, then scale, rotation and shift."""
    image = smooth_image()
    angle, shift, scale, (by, bx) = np.deg2rad(20), (1.5, -2.0), 1.3, (0.2, -0.3)
    rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    inverse = np.linalg.inv(rotate @ (scale * np.array([[1, by], [bx, 1]])))
    center = (np.array(image.shape[:2]) - 1) / 2
    expected = ndimage.affine_transform(
        image[..., 0].astype(np.float64),
        inverse,
        center - inverse @ (center + shift),
        order=1,
        mode="grid-constant",
        cval=50,
    )
    matrix = geometric.inverse_matrix(*image.shape[:2], 20.0, shift, scale, (by, bx))
    points = geometric.affine(geometric.centred(*image.shape[:2]), matrix)
    found = geometric.warp(jnp.asarray(image), points, 50)[..., 0]
    np.testing.assert_allclose(found, expected, atol=2e-3)
