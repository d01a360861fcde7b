import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from imgrec import corruptions
from imgrec.corruptions import mnist_c

MIDDLE = 13.5
ROWS, COLUMNS = np.mgrid[:28, :28].astype(np.float64)


def drawing(number):
    """Discs and bars, white on black, as handwriting is."""
    y, x = ROWS - MIDDLE, COLUMNS - MIDDLE
    disc = np.clip(9 - np.hypot(y - number, x + 2 * number), 0, 1) * (number != 1)
    bar = np.clip(2.5 - abs(y * np.cos(number) - x * np.sin(number)), 0, 1)
    faint = 0.12 * np.clip(3 - np.hypot(y + 9, x - 9), 0, 1)
    if number == 2:
        faint = faint + 0.15 * np.clip(2 - abs(x + 10), 0, 1)
    levels = np.round(255 * np.clip(np.maximum(disc, bar) + faint, 0, 1))
    return (levels / 255)[..., None].astype(np.float32)


@functools.partial(jax.jit, static_argnames="name")
def corrupted(images, keys, *, name):
    return jax.vmap(lambda image, key: mnist_c.MNIST_C[name](image, key, 1))(images, keys)


def keys(count):
    return jax.random.split(jax.random.key(0), count)


def corrupt(name, image, count=1):
    """An image corrupted by so many keys, [count, 28, 28]."""
    images = jnp.broadcast_to(jnp.asarray(image), (count, *image.shape))
    return np.asarray(corrupted(images, keys(count), name=name))[..., 0]


def nearest(found, references):
    """For each image which of the references it is, which it is to be one of."""
    distance = np.abs(found[:, None] - np.asarray(references)[None]).max(axis=(2, 3))
    assert distance.min(axis=1).max() < 1e-4
    return distance.argmin(axis=1)


def test_the_profile_has_the_fifteen_kinds_of_the_published_set_at_one_severity():
    assert len(mnist_c.MNIST_C) == 15
    assert corruptions.names("mnist_c") == tuple(mnist_c.MNIST_C)
    assert corruptions.published("mnist_c") == tuple(mnist_c.MNIST_C)
    assert corruptions.severities("mnist_c") == (1,)
    assert set(mnist_c.CATEGORIES) == set(mnist_c.MNIST_C)
    with pytest.raises(ValueError, match=r"severity=2: mnist_c has \(1,\)"):
        corruptions.corrupt(
            jnp.zeros((1, 28, 28, 1), jnp.uint8),
            jnp.array([0]),
            profile="mnist_c",
            kind="stripe",
            severity=2,
            seed=0,
        )


@pytest.mark.parametrize("name", mnist_c.MNIST_C)
def test_what_happens_to_an_image_hangs_on_its_key_alone(name):
    images = jnp.stack([jnp.asarray(drawing(i % 3)) for i in range(5)])
    together = corrupted(images, keys(5), name=name)
    alone = [corrupted(images[i : i + 1], keys(5)[i : i + 1], name=name)[0] for i in range(5)]
    np.testing.assert_allclose(together, jnp.stack(alone), atol=1e-5)
    assert together.min() >= 0
    assert together.max() <= 1
    assert np.abs(together - images).max() > 0.1


@pytest.mark.parametrize("name", mnist_c.MNIST_C)
def test_black_images_colours_and_other_sizes_do_no_harm(name):
    for shape in ((28, 28, 1), (32, 40, 3)):
        changed = corrupted(jnp.zeros((1, *shape)), keys(1), name=name)
        assert changed.shape == (1, *shape)
        assert np.isfinite(changed).all()


def affine(image, matrix):
    """scikit-image's `warp` of that day: (x, y) is read at matrix (x, y), about the centre."""
    y, x = ROWS - MIDDLE, COLUMNS - MIDDLE
    points = [matrix[1][0] * x + matrix[1][1] * y, matrix[0][0] * x + matrix[0][1] * y]
    return ndimage.map_coordinates(
        image[..., 0].astype(np.float64), np.array(points) + MIDDLE, order=1, mode="grid-constant"
    )


def test_shear_leans_either_way():
    image = drawing(2)
    references = [
        affine(image, [[1, -math.sin(angle)], [0, math.cos(angle)]]) for angle in (0.4, -0.4)
    ]
    assert set(nearest(corrupt("shear", image, 12), references)) == {0, 1}


def test_rotate_turns_either_way():
    image = drawing(2)
    references = [
        affine(image, [[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
        for a in (0.4, -0.4)
    ]
    assert set(nearest(corrupt("rotate", image, 12), references)) == {0, 1}


def test_scale_shrinks():
    image = drawing(2)
    nearest(corrupt("scale", image), [affine(image, [[1 / 0.7, 0], [0, 1 / 0.7]])])


def test_translate_shifts_to_one_of_four_sides():
    image = drawing(2)
    references = [
        ndimage.shift(image[..., 0], shift, order=0)
        for shift in itertools.product((3, -3), repeat=2)
    ]
    assert set(nearest(corrupt("translate", image, 30), references)) == {0, 1, 2, 3}


def test_stripe_and_brightness_in_numbers():
    image = drawing(0)[..., 0]
    striped = image.copy()
    striped[:, :7], striped[:, 21:] = 1 - image[:, :7], 1 - image[:, 21:]
    np.testing.assert_array_equal(corrupt("stripe", drawing(0))[0], striped)
    bright = corrupt("brightness", drawing(0))[0]
    np.testing.assert_allclose(bright, np.minimum(image + 0.5, 1), atol=1e-6)


def segment(c0, r0, c1, r1):
    """The published program's stroke, in its own steps."""
    if c0 == c1:
        return np.zeros((28, 28))
    height = (r1 - r0) / (c1 - c0) * (COLUMNS - c0) + r0
    light = np.log(1 - np.clip(abs(ROWS - height), 0, 2.3 - 1e-10) / 2.3) + 1
    light[:, : math.floor(c0)] = 0
    light[:, math.ceil(c1) :] = 0
    return np.clip(light, 0, 1)


def test_a_dotted_line_runs_from_edge_to_edge():
    references = []
    for r0, r1 in itertools.product(range(27), repeat=2):
        line = segment(0, r0, 27, r1)
        for start in range(0, 28, 4):
            line[:, start : start + 2] = 0
        references.append(np.clip(drawing(1)[..., 0] + line, 0, 1))
    assert len(set(nearest(corrupt("dotted_line", drawing(1), 30), references))) > 20


def zigzag(r0, rise):
    """The light of the published program's zigzag, in its own steps."""
    c0, c1, a, b = 2, 25, 2.0, 2.0
    theta = math.atan(rise / (c1 - c0))
    d = (c1 - c0) / math.cos(theta)
    corners = [(0.0, 0.0)]
    for i in range(int((d - a) // (2 * a)) + 1):
        corners.append(((2 * i + 1) * a, (-1) ** i * b))
    corners.append((d, corners[-1][1] / (2 * (d - 2 * a * (d // (2 * a))))))
    turn = np.array([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]])
    columns, rows = turn @ np.array(corners).T + np.array([[c0], [r0]])
    light = np.zeros((28, 28))
    for i in range(len(corners) - 1):
        light = np.clip(light + segment(columns[i], rows[i], columns[i + 1], rows[i + 1]), 0, 1)
    return light


def test_a_zigzag_runs_along_a_line():
    references = [zigzag(r0, rise) for r0 in range(27) for rise in range(-5, 5)]
    found = corrupt("zigzag", np.zeros((28, 28, 1), np.float32), 40)
    assert len(set(nearest(found, references))) > 20


# As scikit-image 0.26's `feature.canny` finds them: seven hexadecimal digits a row.
EDGES = (
    "00000000000000000003000000480000084001f8040070e0800c0310018018003000c006000607c0003e0000000"
    "0000000000000000000007c0003e060006003000c0018018000c03000070e00001f800000000000000000000000"
    "00000000000000",
    "0000000108000008c00300c400480420084063008403100480108030018c0000084000004600000630000021000"
    "001180000188000008400000c600000620000021000003180000108000008c00000c60000042000002300000310"
    "00001080000000",
    "000000024004402400c4024008c024008842401184200310801fe10007002001c00200100040020004002000400"
    "60002004000200400020040002004000200600060020004002000c0010018001c03000060600002180000230000"
    "02200000000000",
)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_edges_are_those_of_scikit_image(number):
    digits = EDGES[number]
    rows = [format(int(digits[i : i + 7], 16), "028b") for i in range(0, len(digits), 7)]
    expected = np.array([[int(bit) for bit in row] for row in rows])
    np.testing.assert_array_equal(corrupt("canny_edges", drawing(number))[0], expected)


def test_weak_edges_stay_only_where_they_hang_on_strong_ones():
    seeds, region = np.zeros((2, 9, 9), bool)
    snake = [(0, 0), (1, 1), (1, 2), (2, 3), (3, 2), (4, 2), (5, 3), (6, 4), (7, 5), (8, 6)]
    region[tuple(np.transpose(snake))] = True
    region[0, 4:9] = True  # hangs on nothing
    seeds[8, 6] = True
    kept = np.asarray(mnist_c.connected(jnp.asarray(seeds), jnp.asarray(region)))
    assert kept.sum() == len(snake)
    assert not kept[0, 4:].any()


def test_pixels_swapped_one_after_the_other_are_swapped_at_once():
    rng = np.random.default_rng(0)
    for width in (5, 28):
        own = np.arange(width * width)
        row, column = own // width, own % width
        steps = rng.integers(0, 2, (2, len(own)))
        inner = (row > 1) & (column > 1)
        partner = np.where(inner, own - steps[0] * width - steps[1], own)
        expected = own.copy()
        for pixel in own[::-1]:
            pair = [pixel, partner[pixel]]
            expected[pair] = expected[pair[::-1]]
        found = mnist_c.swapped(jnp.asarray(partner), width)
        np.testing.assert_array_equal(found, expected)
        assert sorted(np.asarray(found).tolist()) == own.tolist()


def test_glass_blurs_up_and_down_alone():
    bar = np.zeros((28, 28, 1), np.float32)
    bar[0, 3:25] = 1  # the top rows are not swapped
    found = corrupt("glass_blur", bar)[0]
    assert np.all(found[0, [2, 25]] < 1e-3)
    assert 0 < found[1, 10] < found[0, 10] < 1


def test_shot_noise_counts_to_three_and_impulses_hit_their_share():
    grey = np.full((28, 28, 1), 0.4, np.float32)
    counts = corrupt("shot_noise", grey, 50) * 3
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-5)
    poisson = [math.exp(-1.2) * 1.2**k / math.factorial(k) for k in range(3)]
    share = [np.mean(np.round(counts) == k) for k in range(4)]
    np.testing.assert_allclose(share, [*poisson, 1 - sum(poisson)], atol=0.01)
    hit = corrupt("impulse_noise", grey, 50)
    np.testing.assert_allclose([np.mean(hit == 0), np.mean(hit == 1)], [0.085, 0.085], atol=0.006)


def test_fog_and_spatter_leave_what_they_must():
    image = drawing(0)
    foggy = corrupt("fog", image, 4)
    assert np.all(foggy >= image[..., 0] / 4 - 1e-6)  # 1 / (1 + 3) of the image shines through
    assert foggy.max() <= 1
    assert not corrupt("fog", np.zeros_like(image)).any()
    spattered = corrupt("spatter", image, 20)
    touched = spattered != image[..., 0]
    assert 0.05 < touched.mean() < 0.4
    white = image[..., 0] == 1
    # A drop covers at least 0.8 of what it touches.
    assert spattered[:, white][touched[:, white]].max() <= 0.2 + 0.8 * 63 / 255 + 1e-5
