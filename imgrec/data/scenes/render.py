"""Pixels of a scene: background, clutter, objects from back to front, the card, light, noise.

Everything is drawn within its own bounding box, at the resolution asked for, with edges that
are smooth over one pixel.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from imgrec.data import order
from imgrec.data.scenes.shapes import SHAPES, Plane
from imgrec.data.scenes.world import BLOBS, PIXELS, Background, Dash, Rgb, Scene, Thing, uniforms

Canvas = Float[np.ndarray, "3 side side"]
"""On the scale of 255; channels come first, for numpy is slow where the last axis is short."""
Axis = Float[np.ndarray, "#height #width"]
"""One coordinate of each pixel: of one row, of one column, or of both."""


def render(scene: Scene) -> UInt8[np.ndarray, "side side 3"]:
    """The picture, in sRGB values from 0 to 255."""
    side = scene.resolution
    canvas = _background(scene, side)
    for dash in scene.clutter:
        _paint(canvas, _dash(dash, side), dash.rgb)
    for thing in reversed(scene.objects):
        _paint(canvas, outline(thing, side), thing.rgb)
    if scene.card is not None:
        _paint(canvas, card(scene), scene.card.rgb)
    if scene.light != 1 or scene.shading:
        canvas *= _gain(scene, side)
    if scene.pixel_noise:
        words = order.words(-(-canvas.size // 8), (scene.seed, scene.index), PIXELS)
        octets = words.astype("<u8", copy=False).view(np.uint8)[: canvas.size]
        noise = octets.reshape(canvas.shape) * np.float32(scene.pixel_noise / 127.5)
        canvas += noise - np.float32(scene.pixel_noise)
    canvas += np.float32(0.5)  # of 255: rounds where the cast below cuts off
    np.clip(canvas, 0, 255, out=canvas)
    return np.ascontiguousarray(canvas.astype(np.uint8).transpose(1, 2, 0))


class Patch(NamedTuple):
    """Signed distances in pixels to an outline, within the part of the image that may be near."""

    rows: slice
    columns: slice
    distance: Plane

    def inside(self, side: int) -> Bool[np.ndarray, "side side"]:
        """The pixels whose centre lies within the outline."""
        mask = np.zeros((side, side), bool)
        mask[self.rows, self.columns] = self.distance < 0
        return mask


def outline(thing: Thing, side: int) -> Patch:
    """Where an object is, had nothing been in front of it."""
    radius = thing.radius * side
    rows, columns, x, y = _around(thing.x * side, thing.y * side, radius, side)
    x, y = _turned(x, y, thing.angle)
    return Patch(rows, columns, SHAPES[thing.shape](x, y, radius))


def card(scene: Scene) -> Patch:
    """Where the card is: a rectangle whose edge leaves the right number of pixels to be seen.

    Of the target's n pixels it hides round(share * n), those that lie furthest to its side.
    """
    assert scene.card is not None
    target, side = scene.objects[0], scene.resolution
    radius = target.radius * side + 1
    reach = math.sqrt(2) * radius
    rows, columns, x, y = _around(target.x * side, target.y * side, reach, side)
    along, across = _turned(x, y, scene.card.angle)
    whole = SHAPES[target.shape](*_turned(x, y, target.angle), target.radius * side) < 0
    inside = np.sort(along[whole])
    hidden = math.floor(scene.card.share * len(inside) + 0.5)
    # Between the last pixel to be seen and the first to be hidden.
    bounds = np.concatenate([[-radius], inside, [radius]])[len(inside) - hidden :][:2]
    far = np.maximum(abs(across), along) - radius
    return Patch(rows, columns, np.maximum(far, bounds.mean() - along))


def _dash(dash: Dash, side: int) -> Patch:
    length, width = dash.half_length * side, dash.half_width * side
    rows, columns, x, y = _around(dash.x * side, dash.y * side, length + width, side)
    x, y = _turned(x, y, dash.angle)
    return Patch(rows, columns, np.maximum(abs(x) - length, abs(y) - width))


def _around(x: float, y: float, reach: float, side: int) -> tuple[slice, slice, Axis, Axis]:
    """The pixels within reach of a point, and their centres as seen from there."""
    top, bottom = max(0, int(y - reach)), min(side, math.ceil(y + reach + 1))
    left, right = max(0, int(x - reach)), min(side, math.ceil(x + reach + 1))
    return (
        slice(top, bottom),
        slice(left, right),
        (np.arange(left, right) + (0.5 - x))[None, :],
        (np.arange(top, bottom) + (0.5 - y))[:, None],
    )


def _turned(x: Axis, y: Axis, angle: float) -> tuple[Plane, Plane]:
    """Coordinates along axes that are turned clockwise by an angle in degrees."""
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return cosine * x + sine * y, cosine * y - sine * x


def _paint(canvas: Canvas, patch: Patch, rgb: Rgb) -> None:
    """A pixel is covered by about half a pixel less its distance to the outline."""
    cover = np.minimum(np.maximum(0.5 - patch.distance, 0), 1).astype(np.float32)
    part = canvas[:, patch.rows, patch.columns]
    part += cover * (_plane(rgb) - part)


def _plane(rgb: Rgb) -> Float[np.ndarray, "3 1 1"]:
    return np.array(rgb, np.float32).reshape(3, 1, 1) * 255


def _background(scene: Scene, side: int) -> Canvas:
    background = scene.background
    first = _plane(background.rgb)
    if background.kind == "plain":
        return np.broadcast_to(first, (3, side, side)).copy()
    share = _pattern(scene, background, side).astype(np.float32, copy=False)
    return first + share * (_plane(background.second) - first)


def _pattern(scene: Scene, background: Background, side: int) -> Plane:
    """The share of the second colour in each pixel."""
    if background.kind == "blobs":
        return _blobs(scene, side)
    centres = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    x, y = _turned(centres[None, :], centres[:, None], background.angle)
    if background.kind == "gradient":
        reach = math.sqrt(0.5)
        return 0.5 + x / (2 * reach)
    if background.kind == "stripes":
        return _bands(x, background, side)
    across, down = _bands(x, background, side), _bands(y, background, side)
    return across + down - 2 * across * down


def _bands(along: Plane, background: Background, side: int) -> Plane:
    """Half of each period 0 and half 1, with edges of one pixel."""
    turns = along / background.period + background.phase
    edge = abs(turns - np.floor(turns) - 0.5) - 0.25
    return np.clip(0.5 + edge * (background.period * side), 0, 1)


def _blobs(scene: Scene, side: int) -> Plane:
    """A random 6x6 grid, interpolated linearly from corner to corner of the image."""
    grid = np.array(uniforms(36, scene.seed, scene.index, BLOBS)).reshape(6, 6)
    place = (np.arange(side) + 0.5) / side * 5
    cell = place.astype(np.int64)
    share = place - cell
    rows = grid[cell] + share[:, None] * (grid[cell + 1] - grid[cell])
    return rows[:, cell] + share * (rows[:, cell + 1] - rows[:, cell])


def _gain(scene: Scene, side: int) -> Float[np.ndarray, "side side"]:
    """`light` in the corner where it comes from, falling to (1 - shading) of it across."""
    cosine = math.cos(math.radians(scene.direction))
    sine = math.sin(math.radians(scene.direction))
    centres = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    towards = (cosine * centres[None, :] + sine * centres[:, None]) / (abs(cosine) + abs(sine))
    return scene.light * (1 - scene.shading * (0.5 - towards))
