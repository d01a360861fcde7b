import itertools

import numpy as np
import pytest

from imgrec.data.scenes import COLOURS, SHAPES

# Areas over radius squared, by elementary geometry.
R, BITE, APART = 1.0, 0.75, 0.5
LENS = (
    R**2 * np.arccos((APART**2 + R**2 - BITE**2) / (2 * APART * R))
    + BITE**2 * np.arccos((APART**2 + BITE**2 - R**2) / (2 * APART * BITE))
    - 0.5
    * np.sqrt((-APART + R + BITE) * (APART + R - BITE) * (APART - R + BITE) * (APART + R + BITE))
)
AREAS = {
    "circle": np.pi,
    "square": 2.0,
    "triangle": 3 * np.sqrt(3) / 4,
    "cross": 5 * (2 / np.sqrt(10)) ** 2,
    "ring": np.pi * (1 - 0.5**2),
    # Ten triangles from the centre to a point and a notch.
    "star": 5 * np.sin(np.pi / 5) * np.cos(2 * np.pi / 5) / np.cos(np.pi / 5),
    "crescent": np.pi - LENS,
    # A square and two half-discs on its sides.
    "heart": (1 + np.pi / 4) / 0.892**2,
}


def test_every_shape_is_tested_here():
    assert AREAS.keys() == SHAPES.keys()


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_have_their_area_and_fill_their_circle(name):
    offset = np.linspace(-1.2, 1.2, 1201)
    x, y = np.meshgrid(offset, offset)
    inside = SHAPES[name](x, y, 1.0) < 0
    cell = (offset[1] - offset[0]) ** 2
    assert inside.sum() * cell == pytest.approx(AREAS[name], rel=0.01)
    assert np.hypot(x, y)[inside].max() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", SHAPES)
def test_distances_are_in_pixels(name):
    """Twice the size, twice the distance; and it grows by at most the way gone."""
    x, y = np.meshgrid(np.linspace(-12, 12, 49), np.linspace(-12, 12, 49))
    distance = SHAPES[name](x, y, 8.0)
    assert distance == pytest.approx(2 * SHAPES[name](x / 2, y / 2, 4.0), abs=1e-9)
    assert abs(np.diff(distance, axis=0)).max() <= 0.5 + 1e-9
    assert abs(np.diff(distance, axis=1)).max() <= 0.5 + 1e-9


def test_shapes_stand_upright():
    """The triangle, the star and the heart: a point up, a point up, a point down."""
    y = np.array([[-0.75], [0.75]])
    x = np.zeros_like(y)
    for name, above in (("triangle", True), ("star", True), ("heart", False)):
        assert (SHAPES[name](x, y, 1.0) < 0).ravel().tolist() == [above, not above], name


def test_colours_are_told_apart():
    for one, other in itertools.combinations(COLOURS.values(), 2):
        assert np.linalg.norm(np.subtract(one, other)) > 0.4
