import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from imgrec.corruptions import blur

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def photograph(photographs):
    return photographs(40, 40)[0].astype(np.float32) / 255


def test_gaussian_blur_is_scipys(photograph):
    found = blur.gaussian_blur(jnp.asarray(photograph), KEY, 3, sigma=(1, 2, 3, 4, 6))
    expected = ndimage.gaussian_filter(photograph, (3, 3, 0), mode="nearest")
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_discs_are_round_and_smoothed():
    (small, plain, *_) = discs = blur._discs((0.3, 1.0, 2.0, 3.0, 3.0), (0.4, 0.01, 1, 1, 1))
    assert discs.shape == (5, 9, 9)
    np.testing.assert_allclose(discs.sum(axis=(1, 2)), 1)
    np.testing.assert_allclose(discs, discs[:, ::-1, ::-1])
    cross = np.pad([[0, 1, 0], [1, 1, 1], [0, 1, 0]], 3) / 5
    np.testing.assert_allclose(plain, cross, atol=1e-12)
    side = np.exp(-0.5 / 0.4**2)
    row = np.pad(np.array([side, 1, side]) / (1 + 2 * side), 3)
    np.testing.assert_allclose(small, np.outer(row, row))


def test_defocus_blur_mirrors_in_the_edge_pixels(photograph):
    radius, sigma = (3, 4, 6, 8, 10), (0.1, 0.5, 0.5, 0.5, 0.5)
    for severity in (1, 5):
        image = jnp.asarray(photograph)
        found = blur.defocus_blur(image, KEY, severity, radius=radius, sigma=sigma)
        kernel = blur._discs(radius, sigma)
        expected = ndimage.correlate(photograph, kernel[severity - 1][..., None], mode="mirror")
        np.testing.assert_allclose(found, expected.clip(0, 1), atol=1e-5)


def test_zoom_blur_is_the_mean_of_scipys_zooms(photograph):
    constants = {"stop": (1.11, 1.16, 1.21, 1.26, 1.31), "step": (0.01, 0.01, 0.02, 0.02, 0.03)}
    on = jax.jit(functools.partial(blur.zoom_blur, **constants))
    for severity, stop, step in zip(range(1, 6), *constants.values(), strict=True):
        found = on(jnp.asarray(photograph), KEY, severity)
        images = [photograph]
        for factor in np.arange(1, stop, step):
            crop = int(np.ceil(40 / factor))
            top = (40 - crop) // 2
            middle = photograph[top : top + crop, top : top + crop]
            images.append(ndimage.zoom(middle, (factor, factor, 1), order=1)[:40, :40])
        np.testing.assert_allclose(found, np.mean(images, axis=0), atol=1e-5)


def test_motion_blur_keeps_what_is_the_same_along_the_motion():
    rows = jnp.broadcast_to(jnp.linspace(0, 1, 24)[:, None, None], (24, 24, 1))
    constants = {"radius": (6, 6, 6, 8, 9), "sigma": (1, 1.5, 2, 2, 2.5)}
    on = jax.jit(functools.partial(blur.motion_blur, **constants))
    for seed in range(3):
        key = jax.random.key(seed)
        angle = np.deg2rad(jax.random.uniform(key, minval=-45, maxval=45))
        blurred = on(rows, key, 5)
        steps = np.arange(19)
        weights = np.exp(-0.5 * (steps / 2.5) ** 2)
        shift = (weights * np.ceil(steps * np.sin(angle) - 0.5)).sum() / weights.sum()
        # Far from the top and bottom edge, a ramp is only shifted.
        np.testing.assert_allclose(blurred[12, :, 0], rows[12, 0, 0] + shift / 23, atol=1e-4)


@pytest.mark.parametrize("reach", [1, 2, 4])
def test_the_shuffle_of_glass_is_the_published_loop(reach):
    rng = np.random.default_rng(reach)
    moves = rng.integers(-reach, reach, (2, 15, 18))
    pixels = np.arange(15 * 18 * 3).reshape(15, 18, 3)
    expected = pixels.copy()
    for h in range(15 - reach, reach, -1):
        for w in range(18 - reach, reach, -1):
            dy, dx = moves[:, h, w]
            # On views into an array this exchange copies, which is what was published.
            expected[h, w], expected[h + dy, w + dx] = expected[h + dy, w + dx], expected[h, w]
    sources = jax.jit(blur._sources)(jnp.asarray(moves), reach)
    found = pixels.reshape(-1, 3)[np.asarray(sources)].reshape(pixels.shape)
    np.testing.assert_array_equal(found, expected)


def test_glass_without_blur_moves_pixels_once_a_round(photograph):
    constants = {"sigma": (0, 0, 0, 0, 0), "reach": (1, 1, 1, 2, 2), "rounds": (1, 2, 3, 1, 1)}
    on = jax.jit(functools.partial(blur.glass_blur, **constants))
    moved = []
    for severity in (1, 2, 3):
        glass = on(jnp.asarray(photograph), KEY, severity)
        assert set(map(tuple, np.asarray(255 * glass).round().reshape(-1, 3))) <= set(
            map(tuple, (255 * photograph).round().reshape(-1, 3))
        )
        moved.append((np.abs(glass - photograph).max(axis=-1) > 1e-3).mean())
        border = np.ones((40, 40), bool)
        border[2:, 2:] = False
        np.testing.assert_allclose(glass[border], photograph[border], atol=1e-6)
    assert moved == sorted(moved)
