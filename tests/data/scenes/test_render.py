"""Doses are measured in the pixels."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import ndimage

from imgrec.data.scenes import (
    COLOURS,
    SHAPES,
    Background,
    Card,
    Knobs,
    Scene,
    Thing,
    masks,
    render,
    scene,
    truth,
    whole_masks,
)

CLEAN = Knobs(pixel_noise=0, resolution=64)
BLACK = Background("plain", 0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 0.0, 0.2, 0.0)


def a_scene(*things, side=20, **fields):
    plain = Scene(0, 0, side, things, 0, 0, False, BLACK, (), None, 1.0, 0.0, 0.0, 0.0)
    return dataclasses.replace(plain, **fields)


def thing(shape, x=0.5, y=0.5, radius=0.25, angle=0.0, rgb=(1.0, 1.0, 1.0)):
    return Thing(shape, "white", rgb, x, y, radius, angle)


def widened(mask):
    """With the soft edge: half a pixel, and as far as three beyond the point of a star."""
    return ndimage.binary_dilation(mask, np.ones((3, 3)), iterations=3)


def scenes(knobs, n=30):
    return [scene(0, index, knobs) for index in range(n)]


def test_a_square_by_hand():
    # Half its side is 5 / sqrt(2) = 3.5355 pixels around the middle at 10: pixels 7 to 12 are
    # whole within, and 0.5355 of pixels 6 and 13.
    image = render(a_scene(thing("square")))
    assert image.shape == (20, 20, 3) and image.dtype == np.uint8
    assert (image == image[..., :1]).all()
    line = image[10, :, 0]
    edge = round(255 * (5 / math.sqrt(2) - 3))
    assert line.tolist() == [0] * 6 + [edge] + [255] * 6 + [edge] + [0] * 6
    assert (image == image.transpose(1, 0, 2)).all()


def test_x_points_right_and_y_down_and_angles_turn_clockwise():
    seen = masks(a_scene(thing("circle", x=0.8, y=0.3, radius=0.1)))[0]
    rows, columns = np.nonzero(seen)
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((16, 6))
    # The heart's point is down; a quarter turn clockwise brings it to the left.
    rows, columns = np.nonzero(masks(a_scene(thing("heart", radius=0.45, angle=90.0), side=64))[0])
    narrow = [np.sum(columns == c) for c in (columns.min(), columns.max())]
    assert narrow[0] < narrow[1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("angle", [0.0, 37.0])
def test_light_that_covers_a_pixel_is_its_covered_area(shape, angle):
    """The sum of the picture is the area of the shape, which a hundred times finer mask has."""
    picture = render(a_scene(thing(shape, 0.47, 0.52, 0.4, angle), side=40))
    fine = whole_masks(a_scene(thing(shape, 0.47, 0.52, 0.4, angle), side=1000))[0]
    assert picture[..., 0].sum() / 255 / 40**2 == pytest.approx(fine.mean(), rel=0.02)


def test_masks_are_where_the_pixels_changed():
    for shown in scenes(dataclasses.replace(CLEAN, n_objects=3, scale=0.4, clutter=5)):
        bare = render(dataclasses.replace(shown, objects=shown.objects[1:]))
        changed = (render(shown) != bare).any(axis=-1)
        mask = masks(shown)[0]
        assert not (mask & ~changed).any()
        # Beyond the mask only the soft edge changes.
        assert not (changed & ~widened(mask)).any()


def test_the_picture_shows_what_is_in_front():
    front = thing("circle", x=0.4, rgb=(1.0, 0.0, 0.0))
    middle = thing("circle", x=0.5, rgb=(0.0, 1.0, 0.0))
    back = thing("circle", x=0.6, rgb=(0.0, 0.0, 1.0))
    shown = a_scene(front, middle, back, side=60)
    image = render(shown)
    for channel, mask in enumerate(masks(shown)):
        inner = ndimage.binary_erosion(mask, np.ones((3, 3)))
        assert inner.sum() > 50
        assert (image[inner] == 255 * np.eye(3)[channel]).all()
    hidden = dataclasses.replace(shown, card=Card(0.5, 0.0, (1.0, 1.0, 1.0)))
    card_alone = (whole_masks(shown)[0] & ~masks(hidden)[0])[30]
    assert (render(hidden)[30][ndimage.binary_erosion(card_alone)] == 255).all()


def test_every_target_shows_its_colour():
    for shown in scenes(Knobs()):
        inner = ndimage.binary_erosion(masks(shown)[0])
        image = render(shown).astype(float)
        mean = image[inner].mean(axis=0) / 255
        nearest = min(COLOURS, key=lambda name: np.linalg.norm(mean / mean.max() - COLOURS[name]))
        assert nearest == shown.objects[0].colour
        outside = np.median(image[~whole_masks(shown)[0]], axis=0)
        assert abs(255 * mean - outside).max() > 60


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("side", [32, 64])
def test_occlusion_hides_that_share_of_the_target_to_the_pixel(share, side):
    knobs = Knobs(occlusion=share, resolution=side, n_objects=(1, 3), scale=(0.35, 0.5))
    for shown in scenes(knobs):
        n = whole_masks(shown)[0].sum()
        assert masks(shown)[0].sum() == n - math.floor(share * n + 0.5)
        assert truth(shown).visible[0] == pytest.approx(1 - share, abs=0.5001 / n)


def test_occlusion_is_seen_in_the_picture():
    knobs = dataclasses.replace(CLEAN, occlusion=0.5)
    for shown in scenes(knobs):
        whole = whole_masks(shown)[0]
        grey = (np.ptp(render(shown).astype(int), axis=-1) < 3) & (
            abs(render(shown)[..., 0] - 255 * shown.card.rgb[0]) < 3
        )
        assert (grey & whole).sum() / whole.sum() == pytest.approx(
            0.5, abs=2.5 * math.sqrt(whole.sum()) / whole.sum()
        )


def test_a_card_comes_from_its_side():
    shown = a_scene(thing("square", radius=0.4), card=Card(0.5, 0.0, (0.5, 0.5, 0.5)))
    columns = np.nonzero(masks(shown)[0])[1]
    assert columns.max() < 10 and columns.min() == 4  # the right half is hidden
    below = dataclasses.replace(shown, card=Card(0.5, 90.0, (0.5, 0.5, 0.5)))
    assert np.nonzero(masks(below)[0])[0].max() < 10


@pytest.mark.parametrize("shape", ["square", "cross", "triangle", "star", "crescent", "heart"])
def test_rotation_turns_the_picture(shape):
    """Turning the object by a right angle is turning the picture."""
    upright = render(a_scene(thing(shape, radius=0.45), side=64)).astype(int)
    turned = render(a_scene(thing(shape, radius=0.45, angle=90.0), side=64)).astype(int)
    assert abs(np.rot90(upright, -1) - turned).max() <= 1


def test_rotation_is_within_its_bounds_as_measured_by_the_principal_axis():
    """The heart's axis of symmetry, from the mask's second and third moments."""
    knobs = dataclasses.replace(CLEAN, shapes=("triangle", "heart"), rotation=20, scale=0.8)
    angles = []
    for shown in scenes(knobs, 120):
        if shown.objects[0].shape != "heart":
            continue
        mask = whole_masks(shown)[0]
        flips = {
            angle: _asymmetry(mask, shown.objects[0], angle) for angle in np.arange(-40.0, 41, 4)
        }
        angles.append(min(flips, key=flips.get))
        assert angles[-1] == pytest.approx(shown.objects[0].angle, abs=4)
    assert -24 <= min(angles) < -10 and 10 < max(angles) <= 24


def _asymmetry(mask, target, angle):
    rows, columns = np.nonzero(mask)
    x = columns + 0.5 - target.x * len(mask)
    y = rows + 0.5 - target.y * len(mask)
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    across, along = cosine * x + sine * y, cosine * y - sine * x
    return abs((across * along).mean()) + abs(across.mean()) + abs((across**3).mean()) / 100


@pytest.mark.parametrize("shape", SHAPES)
def test_the_smallest_target_allowed_shows_a_pixel_wherever_it_lies(shape):
    for place in np.linspace(0.5, 0.5 + 1 / 32, 7):
        for angle in (0.0, 17.0, 45.0):
            small = thing(shape, place, 0.5 + place / 97, radius=2 / 32, angle=angle)
            assert masks(a_scene(small, side=32)).any()


@pytest.mark.parametrize("scale", [0.2, 0.5, 0.8])
def test_scale_is_the_diameter_of_the_circumscribed_circle(scale):
    knobs = dataclasses.replace(CLEAN, scale=scale)
    for shown in scenes(knobs):
        target = shown.objects[0]
        rows, columns = np.nonzero(whole_masks(shown)[0])
        reach = np.hypot(columns + 0.5 - target.x * 64, rows + 0.5 - target.y * 64).max()
        assert 64 * scale / 2 - 2 <= reach <= 64 * scale / 2


def test_light_is_a_factor_of_every_pixel():
    for shown in scenes(CLEAN):
        bright = render(shown).astype(float)
        dim = render(dataclasses.replace(shown, light=0.4))
        assert abs(dim - 0.4 * bright).max() <= 0.7


def test_shading_falls_from_corner_to_corner():
    white = Background("plain", 0, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), 0.0, 0.2, 0.0)
    speck = thing("circle", radius=0.001)
    lit = a_scene(speck, side=64, background=white, shading=0.6, direction=0.0)
    image = render(lit)[..., 0]
    # Light from the right: linear in x from 1 - 0.6 at the left edge to 1 at the right one.
    expected = 255 * (1 - 0.6 * (1 - (np.arange(64) + 0.5) / 64))
    assert abs(image - expected).max() <= 0.5 + 1e-3
    for direction in (10.0, 100.0, 200.0, 300.0):
        image = render(dataclasses.replace(lit, direction=direction))[..., 0].astype(float)
        corners = image[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert corners.max() == image.max() == pytest.approx(255, abs=4)
        assert corners.min() == image.min() == pytest.approx(255 * 0.4, abs=4)
        towards = np.radians(direction)
        middle = image[32, 63] - image[32, 0], image[63, 32] - image[0, 32]
        assert np.dot(middle, (np.cos(towards), np.sin(towards))) > 0


@pytest.mark.parametrize(
    "turned", [{"light": 0.3}, {"shading": 0.9}, {"pixel_noise": 60.0}, {"clutter": ()}]
)
def test_what_is_not_of_the_objects_leaves_their_masks(turned):
    for shown in scenes(Knobs(n_objects=3, scale=0.4, clutter=4, occlusion=0.2)):
        other = dataclasses.replace(shown, **turned)
        assert (masks(shown) == masks(other)).all()
        assert (render(shown) != render(other)).any()


def test_each_piece_of_clutter_changes_its_own_place_behind_the_objects():
    for shown in scenes(dataclasses.replace(CLEAN, clutter=6)):
        covered = widened(whole_masks(shown)[0])
        inside = ndimage.binary_erosion(whole_masks(shown)[0])
        for k, dash in enumerate(shown.clutter):
            fewer = render(dataclasses.replace(shown, clutter=shown.clutter[:k]))
            more = render(dataclasses.replace(shown, clutter=shown.clutter[: k + 1]))
            rows, columns = np.nonzero((fewer != more).any(axis=-1))
            reach = np.hypot(columns + 0.5 - dash.x * 64, rows + 0.5 - dash.y * 64)
            hidden = covered[min(63, int(dash.y * 64)), min(63, int(dash.x * 64))]
            assert hidden or len(reach) > 0
            assert (reach <= 64 * (dash.half_length + dash.half_width) + 1.5).all()
            assert (fewer[inside] == more[inside]).all()


def test_pixel_noise_is_uniform_within_its_bounds():
    shown = scene(0, 0, dataclasses.replace(CLEAN, pixel_noise=20.0, resolution=128))
    grey = Background("plain", 0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 0.0, 0.2, 0.0)
    shown = dataclasses.replace(shown, background=grey)
    noise = render(shown)[~widened(whole_masks(shown)[0])].astype(float) - 127.5
    assert abs(noise).max() <= 20.5 and abs(noise).max() > 19
    assert noise.mean() == pytest.approx(0, abs=0.3)
    assert noise.std() == pytest.approx(20 / math.sqrt(3), rel=0.02)


def test_noise_differs_between_scenes_and_seeds():
    def empty(seed, index):
        grey = Background("plain", 0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 0.0, 0.2, 0.0)
        return render(
            a_scene(thing("circle"), seed=seed, index=index, background=grey, pixel_noise=9.0)
        )

    assert (empty(0, 1) == empty(0, 1)).all()
    assert (empty(0, 1) != empty(0, 2)).mean() > 0.5
    assert (empty(0, 1) != empty(1, 1)).mean() > 0.5


@pytest.mark.parametrize("kind", ["gradient", "stripes", "checker", "blobs"])
def test_backgrounds_mix_two_tints(kind):
    for shown in scenes(dataclasses.replace(CLEAN, background=(kind,))):
        image = render(shown)[~widened(whole_masks(shown)[0])]
        first, second = (255 * np.array(c) for c in (shown.background.rgb, shown.background.second))
        share = (image - first) @ (second - first) / np.sum((second - first) ** 2)
        assert share.min() > -0.02 and share.max() < 1.02
        # Every pixel lies on the line between the two.
        assert abs(first + share[:, None] * (second - first) - image).max() < 2
        assert np.ptp(share) > 0.4
        if kind in ("stripes", "checker"):
            assert 0.35 < share.mean() < 0.65
            assert ((share < 0.1) | (share > 0.9)).mean() > 0.5


def test_stripes_have_their_period_and_direction():
    background = dataclasses.replace(BLACK, kind="stripes", angle=90.0, period=0.25)
    image = render(a_scene(thing("circle", radius=0.001), side=64, background=background))[..., 0]
    assert (image == image[:, :1]).all()  # along y alone
    assert (image[:-16] == image[16:]).all() and (image[:-8] == 255 - image[8:]).all()


@pytest.mark.parametrize("side", [8, 20, 33, 100])
def test_a_scene_is_the_same_at_any_resolution(side):
    for shown in scenes(Knobs(n_objects=2, scale=0.5), 10):
        seen = masks(dataclasses.replace(shown, resolution=side))
        fine = masks(dataclasses.replace(shown, resolution=8 * side))
        share = fine.reshape(2, side, 8, side, 8).mean(axis=(2, 4))
        assert share[seen].min() > 0 and share[~seen].max() < 1
        assert seen[share == 1].all() and not seen[share == 0].any()
        assert render(dataclasses.replace(shown, resolution=side)).shape == (side, side, 3)
