import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from imgrec.corruptions import dials


def photograph(height=32, width=32, channels=3, seed=0):
    """Smooth noise of every level."""
    noise = np.random.default_rng(seed).normal(size=(height, width, channels))
    smooth = ndimage.gaussian_filter(noise, (2, 2, 0))
    low, high = smooth.min(), smooth.max()
    return np.round(255 * (smooth - low) / (high - low)).astype(np.uint8)


@functools.partial(jax.jit, static_argnames=("name", "seed"))
def turn_batch(images, index, amount, *, name, seed=0):
    return dials.turn(images, index, name=name, amount=amount, seed=seed)


def turn(image, name, amount, index=0, seed=0):
    images, place = jnp.asarray(image)[None], jnp.array([index])
    return np.asarray(turn_batch(images, place, jnp.float32(amount), name=name, seed=seed))[0]


@pytest.mark.parametrize("shape", [(32, 32, 3), (20, 31, 1)])
@pytest.mark.parametrize("name", dials.SWEEPS)
def test_the_first_amount_leaves_every_image_as_it_is(name, shape):
    image = photograph(*shape)
    amounts = dials.SWEEPS[name].amounts
    for index in range(3):
        np.testing.assert_array_equal(turn(image, name, amounts[0], index), image)


@pytest.mark.parametrize("name", dials.SWEEPS)
def test_amounts_go_from_weak_to_strong_and_change_more_and_more(name):
    amounts = np.array(dials.SWEEPS[name].amounts)
    assert np.all(np.diff(amounts) > 0) or np.all(np.diff(amounts) < 0)
    image = photograph().astype(np.float64)
    first, middle, last = (
        np.mean([np.abs(turn(image.astype(np.uint8), name, a, i) - image) for i in range(8)])
        for a in (amounts[1], amounts[len(amounts) // 2], amounts[-1])
    )
    assert 0 < first < last
    assert first < middle


@pytest.mark.parametrize("name", dials.SWEEPS)
def test_a_batch_and_its_images_alone_are_changed_alike(name):
    images = jnp.stack([photograph(seed=seed) for seed in range(5)])
    amount = dials.SWEEPS[name].amounts[3]
    index = jnp.array([7, 3, 1_000_000, 0, 2])
    together = turn_batch(images, index, jnp.float32(amount), name=name, seed=1)
    for row in range(5):
        alone = turn(images[row], name, amount, int(index[row]), seed=1)
        np.testing.assert_array_equal(np.asarray(together[row]), alone)


@pytest.mark.parametrize("name", ["rotation", "translation", "shear", "occlusion", "noise"])
def test_what_is_random_depends_on_the_index_and_the_seed(name):
    amount = dials.SWEEPS[name].amounts[4]
    image = photograph()
    by_index = {turn(image, name, amount, index=i).tobytes() for i in range(12)}
    by_seed = {turn(image, name, amount, seed=i).tobytes() for i in range(4)}
    assert len(by_index) > 1
    assert len(by_seed) > 1


def test_a_quarter_turn_goes_either_way():
    image = photograph(channels=1)
    ways = [np.rot90(image, k).tobytes() for k in (1, -1)]
    turned = [turn(image, "rotation", 90, index).tobytes() for index in range(12)]
    assert set(turned) == set(ways)
    np.testing.assert_array_equal(turn(image, "rotation", 180), image[::-1, ::-1])


def test_an_image_is_shifted_by_its_share_of_the_side_in_every_direction():
    dot = np.zeros((32, 32, 1), np.uint8)
    dot[14:18, 14:18] = 255
    moves = []
    for index in range(20):
        moved = turn(dot, "translation", 0.25, index)[..., 0]
        moves.append(np.array(ndimage.center_of_mass(moved)) - 15.5)
    moves = np.array(moves)
    np.testing.assert_allclose(np.hypot(*moves.T), 8, atol=0.1)
    assert {tuple(signs) for signs in (moves > 0).tolist()} == {
        (a, b) for a in (True, False) for b in (True, False)
    }


def test_borders_are_repeated_outwards():
    white = np.full((16, 16, 3), 200, np.uint8)
    for name in ("rotation", "translation", "shrinking", "shear"):
        for amount in dials.SWEEPS[name].amounts:
            np.testing.assert_array_equal(turn(white, name, amount), white)


@pytest.mark.parametrize(("name", "factor"), [("enlarging", 2.0), ("shrinking", 0.5)])
def test_a_square_grows_and_shrinks_about_the_centre(name, factor):
    square = np.zeros((32, 32, 1), np.uint8)
    square[12:20, 12:20] = 255
    scaled = turn(square, name, factor)[..., 0] / 255
    assert scaled.sum() == pytest.approx(64 * factor**2, rel=0.03)
    np.testing.assert_allclose(ndimage.center_of_mass(scaled), (15.5, 15.5), atol=0.01)


def test_shrinking_does_not_turn_a_fine_pattern_into_a_coarse_one():
    checker = np.indices((32, 32)).sum(axis=0)[..., None] % 2 * np.uint8(255)
    inner = turn(checker.astype(np.uint8), "shrinking", 0.5)[12:20, 12:20].astype(int)
    assert np.ptp(inner) < 30
    assert inner.mean() == pytest.approx(127.5, abs=2)


def test_upright_lines_lean():
    line = np.zeros((33, 33, 1), np.uint8)
    line[:, 16] = 255
    leant = turn(line, "shear", 30)[..., 0]
    columns = (leant * np.arange(33.0)).sum(axis=1) / leant.sum(axis=1)
    slope = np.polyfit(np.arange(33), columns, 1)[0]
    assert abs(slope) == pytest.approx(np.tan(np.deg2rad(30)), rel=0.02)


def test_light_and_contrast_in_numbers():
    image = photograph()
    exact = image.astype(np.float64)
    np.testing.assert_allclose(turn(image, "darkening", 0.6), 0.4 * exact, atol=1)
    np.testing.assert_allclose(
        turn(image, "brightening", 0.3), np.minimum(exact + 0.3 * 255, 255), atol=0.51
    )
    grey = np.round((exact @ [0.299, 0.587, 0.114]).mean())
    np.testing.assert_allclose(turn(image, "contrast", 0.8), grey + 0.2 * (exact - grey), atol=1.01)


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (20, 50, 3)])
def test_a_share_of_the_area_is_hidden_wherever_the_box_lies(shape):
    white = np.full(shape, 255, np.uint8)
    for share in (0.02, 0.1, 0.5, 0.8):
        places = set()
        for index in range(6):
            hidden = (turn(white, "occlusion", share, index) == 128).all(axis=-1)
            rows, columns = np.flatnonzero(hidden.any(axis=1)), np.flatnonzero(hidden.any(axis=0))
            sides = [round(np.sqrt(share) * length) for length in shape[:2]]
            assert [len(rows), len(columns)] == sides
            assert hidden.sum() == sides[0] * sides[1]
            assert np.all(np.diff(rows) == 1)
            places.add((rows[0], columns[0]))
        assert len(places) > 1


def test_noise_has_its_standard_deviation_and_the_same_draws_at_every_amount():
    grey = np.full((64, 64, 3), 128, np.uint8)
    weak, strong = (turn(grey, "noise", sigma).astype(float) - 128 for sigma in (0.05, 0.1))
    assert weak.std() == pytest.approx(0.05 * 255, rel=0.03)
    assert np.abs(weak.mean()) < 0.5
    np.testing.assert_allclose(strong, 2 * weak, atol=1.51)


@pytest.mark.parametrize("share", [0.03, 0.1])
def test_blur_is_that_of_scipy(share):
    image = photograph()
    sigma = share * 32
    expected = ndimage.gaussian_filter(
        image.astype(np.float64), (sigma, sigma, 0), mode="nearest", radius=(12, 12, 0)
    )
    assert np.abs(turn(image, "blur", share) - expected).max() <= 1
