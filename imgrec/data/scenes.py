"""Synthetic scenes: one coloured shape on a noisy background, rendered when it is asked for.

Every image is a pure function of (seed, index), so a data set of any length needs no disk and
no download. The label is the kind of shape; its place, size, angle and colours vary.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Int32, Int64, UInt8, UInt64

from imgrec.data import order
from imgrec.data.dataset import Batch, Example, Info, Official, channel_statistics

_SEED = 0
_TRAIN, _TEST = range(2_000), range(2**32, 2**32 + 500)


def load() -> Official:
    """2,000 training and 500 test scenes of 32x32 pixels, from disjoint ranges of the index."""
    train, test = SceneSource(_SEED, _TRAIN), SceneSource(_SEED, _TEST)
    mean, std = channel_statistics(train, sample=len(train))
    info = Info(
        name="scenes",
        num_classes=len(SHAPES),
        class_names=tuple(SHAPES),
        image_shape=(SIDE, SIDE, 3),
        mean=mean,
        std=std,
        source=f"rendered with seed {_SEED}: {len(train):,} train and {len(test):,} test scenes",
    )
    return Official(train, test, info)


class SceneSource:
    """The scenes of a seed whose index lies in a range; row i is the i-th index of the range."""

    def __init__(self, seed: int, indices: range):
        """Takes any range of indices below 2**64; nothing is rendered yet."""
        self._seed = seed
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, row: int) -> Example:
        index = self._indices[row]
        return {"image": render(self._seed, index), "label": np.int32(label(self._seed, index))}

    def gather(self, rows: Int64[np.ndarray, "batch"]) -> Batch:
        """Renders the rows one after the other."""
        indices = [self._indices[int(row)] for row in rows]
        return {
            "image": np.stack([render(self._seed, index) for index in indices]),
            "label": np.array([label(self._seed, index) for index in indices], np.int32),
        }

    def labels(self) -> Int32[np.ndarray, "rows"]:
        """The labels of all rows, without rendering an image."""
        return np.array([label(self._seed, index) for index in self._indices], np.int32)


def label(seed: int, index: int) -> int:
    """The position in `SHAPES` of the shape that a scene shows; all are equally likely."""
    return _label(_uniform(order.words(1, (seed, index))))


def render(seed: int, index: int) -> UInt8[np.ndarray, "height width 3"]:
    """Draws one scene.

    The radius of the shape's circumscribed circle is 5 to 10 pixels and lies within the image.
    In every channel its colour is at least a quarter of the full scale from the background's,
    before noise of up to 24 of 255 is added to both.
    """
    words = order.words(_PARAMETERS + SIDE * SIDE * 3 // 8, (seed, index))
    uniform, noise = _uniform(words[:_PARAMETERS]), _noise(words[_PARAMETERS:])
    shape = tuple(SHAPES.values())[_label(uniform)]
    radius = 5 + 5 * uniform[1]
    center = radius + (SIDE - 2 * radius) * uniform[2:4]
    angle = 2 * math.pi * uniform[4]
    background = uniform[5:8]
    colour = (background + 0.25 + 0.5 * uniform[8:11]) % 1

    offset = np.arange(SIDE) + 0.5
    x, y = np.meshgrid(offset - center[0], offset - center[1])
    turned_x = math.cos(angle) * x + math.sin(angle) * y
    turned_y = math.cos(angle) * y - math.sin(angle) * x
    # A pixel is covered by about half a pixel minus its distance to the outline: smooth edges.
    cover = np.clip(0.5 - shape(turned_x, turned_y, radius), 0, 1)[..., None]
    clean = background + cover * (colour - background)
    return np.clip(np.rint(255 * clean + noise), 0, 255).astype(np.uint8)


SIDE = 32  # of an image, in pixels
_NOISE = 24  # largest change of a value
_PARAMETERS = 16  # uniform numbers that a scene may draw, before its noise


def _uniform(words: UInt64[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    return (words >> np.uint64(11)) * 2.0**-53


def _label(uniform: Float[np.ndarray, "n"]) -> int:
    return int(uniform[0] * len(SHAPES))


def _noise(words: UInt64[np.ndarray, "n"]) -> Float[np.ndarray, "height width 3"]:
    octets = words.astype("<u8").view(np.uint8).reshape(SIDE, SIDE, 3)
    return (octets / 127.5 - 1) * _NOISE


Plane = Float[np.ndarray, "height width"]


def _circle(x: Plane, y: Plane, radius: float) -> Plane:
    return np.hypot(x, y) - radius


def _square(x: Plane, y: Plane, radius: float) -> Plane:
    return np.maximum(abs(x), abs(y)) - radius * math.sqrt(0.5)


def _triangle(x: Plane, y: Plane, radius: float) -> Plane:
    slope = math.sqrt(0.75) * abs(x) + 0.5 * y
    return np.maximum(slope, -y) - radius / 2


def _cross(x: Plane, y: Plane, radius: float) -> Plane:
    long, short = np.maximum(abs(x), abs(y)), np.minimum(abs(x), abs(y))
    length = radius * 3 / math.sqrt(10)  # arms three times as long as they are wide
    return np.maximum(long - length, short - length / 3)


def _ring(x: Plane, y: Plane, radius: float) -> Plane:
    return abs(np.hypot(x, y) - radius * 0.75) - radius * 0.25


# Signed distances in pixels to the outline, negative inside, of shapes within the circle of
# the given radius around the origin; in the order of the labels.
SHAPES: Mapping[str, Callable[[Plane, Plane, float], Plane]] = MappingProxyType(
    {
        "circle": _circle,
        "square": _square,
        "triangle": _triangle,
        "cross": _cross,
        "ring": _ring,
    }
)
