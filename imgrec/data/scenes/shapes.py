"""The shapes and colours of the scenes: outlines as distances, colours by their English names.

Only operations that IEEE 754 rounds correctly touch pixels (sums, products, roots, maxima), so
a picture has the same bits at any place in a batch.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from jaxtyping import Float

Plane = Float[np.ndarray, "height width"]


def _circle(x: Plane, y: Plane, radius: float) -> Plane:
    return _length(x, y) - radius


def _square(x: Plane, y: Plane, radius: float) -> Plane:
    return np.maximum(abs(x), abs(y)) - radius * math.sqrt(0.5)


def _triangle(x: Plane, y: Plane, radius: float) -> Plane:
    slope = math.sqrt(0.75) * abs(x) - 0.5 * y
    return np.maximum(slope, y) - radius / 2


def _cross(x: Plane, y: Plane, radius: float) -> Plane:
    long, short = np.maximum(abs(x), abs(y)), np.minimum(abs(x), abs(y))
    length = radius * 3 / math.sqrt(10)  # arms three times as long as they are wide
    return np.maximum(long - length, short - length / 3)


def _ring(x: Plane, y: Plane, radius: float) -> Plane:
    return abs(_length(x, y) - radius * 0.75) - radius * 0.25


def _star(x: Plane, y: Plane, radius: float) -> Plane:
    """The pentagram: within four of the five lines that each join two of its points."""
    first = second = np.full_like(x, -np.inf)
    for k in range(5):
        turn = 2 * math.pi * k / 5 - math.pi / 2
        line = math.cos(turn) * x + math.sin(turn) * y
        second = np.maximum(second, np.minimum(first, line))
        first = np.maximum(first, line)
    return second - radius * math.cos(2 * math.pi / 5)


def _crescent(x: Plane, y: Plane, radius: float) -> Plane:
    """A disc less one of three quarters its radius, half a radius to the right."""
    bite = _length(x - radius / 2, y) - radius * 0.75
    return np.maximum(_length(x, y) - radius, -bite)


def _heart(x: Plane, y: Plane, radius: float) -> Plane:
    """A square on its corner, and a disc on each of its two upper sides."""
    side = radius / 0.892  # makes the circumscribed circle's radius what was asked for
    y = y - 0.185 * side  # and its centre the origin
    square = (abs(x) + abs(y)) * math.sqrt(0.5) - side / 2
    offset = side / math.sqrt(8)
    return np.minimum(square, _length(abs(x) - offset, y + offset) - side / 2)


def _length(x: Plane, y: Plane) -> Plane:
    return np.sqrt(x * x + y * y)


# Distances in pixels to the outline, negative inside, of shapes within the circle of the given
# radius around the origin; x points right and y down. Outside, beyond a corner, they may be
# too small.
SHAPES: Mapping[str, Callable[[Plane, Plane, float], Plane]] = MappingProxyType(
    {
        "circle": _circle,
        "square": _square,
        "triangle": _triangle,
        "cross": _cross,
        "ring": _ring,
        "star": _star,
        "crescent": _crescent,
        "heart": _heart,
    }
)

# Red, green and blue on the scale [0, 1].
COLOURS: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "red": (0.95, 0.10, 0.12),
        "orange": (1.00, 0.52, 0.05),
        "yellow": (1.00, 0.95, 0.15),
        "green": (0.12, 0.80, 0.18),
        "cyan": (0.20, 0.90, 0.95),
        "blue": (0.22, 0.36, 1.00),
        "purple": (0.80, 0.25, 0.95),
        "white": (1.00, 1.00, 1.00),
    }
)
