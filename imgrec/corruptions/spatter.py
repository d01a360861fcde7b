"""Spatter on the lens: drops of water, or mud (Hendrycks and Dietterich 2019, arXiv:1903.12261).

Water shines the more, the farther from the edge of its drop. The published program finds edges,
distances and the shine with OpenCV; these are the same steps as array operations.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from imgrec.corruptions import filters
from imgrec.corruptions.severity import Constants, Image, Severity, at
from imgrec.corruptions.weather import luma

Layer = Float[Array, "height width"]

_WATER = np.array([[[175, 238, 238]]], np.float32) / 255  # pale turquoise
_MUD = np.array([[[63, 42, 20]]], np.float32) / 255
_FARTHEST = 20  # pixels from an edge, beyond which the distance no longer counts


def spatter(
    image: Image,
    key: PRNGKeyArray,
    severity: Severity,
    *,
    mean: Constants,
    scale: Constants,
    sigma: Constants,
    threshold: Constants,
    strength: Constants,
    mud: Sequence[int],
) -> Image:
    """Drops where smoothed noise exceeds a threshold, of water or (where `mud` is 1) of mud.

    The noise is normal (`mean`, `scale`) and smoothed with a Gaussian of `sigma`. `strength` is
    the brightest that water gets, and the standard deviation by which the edge of mud is smoothed.
    """
    noise = at(severity, mean) + at(severity, scale) * jax.random.normal(key, image.shape[:2])
    liquid = filters.gaussian(noise[..., None], at(severity, sigma), largest=max(sigma))
    least, amount = at(severity, threshold), at(severity, strength)

    def with_water() -> Image:
        drops = filters.levels(jnp.where(liquid < least, 0, liquid))
        shine = drops[..., 0] * _depth(drops[..., 0])
        shine = amount * shine / jnp.maximum(shine.max(), 1e-6)
        return image + shine[..., None] * _coloured(_WATER, image)

    def with_mud() -> Image:
        drops = (liquid > least).astype(jnp.float32)
        opaque = filters.gaussian(drops, amount, largest=max(strength))
        opaque = jnp.where(opaque < 0.8, 0, opaque)
        return image + opaque * (_coloured(_MUD, image) - image)

    return jnp.clip(jax.lax.cond(at(severity, mud) == 1, with_mud, with_water), 0, 1)


def _coloured(colour: Float[np.ndarray, "1 1 3"], image: Image) -> Float[Array, "1 1 channels"]:
    shown = jnp.asarray(colour)
    return shown if image.shape[-1] == 3 else luma(shown)


def _depth(drops: Layer) -> Layer:
    """From 0 to 255: distances from the edges of drops, spread evenly, and lit from one side."""
    distance = jnp.floor(_windows(_distance(_edges(drops)), np.full((3, 3), 1 / 9)) + 1e-4)
    slope = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    lit = jnp.clip(_windows(_equalized(distance), slope), 0, 255)
    return jnp.round(_windows(lit, np.full((3, 3), 1 / 9)))


def _windows(layer: Layer, weights: np.ndarray) -> Layer:
    """Weighted sums of 3 x 3 pixels, mirrored in the middle of the border pixels."""
    height, width = layer.shape
    padded = jnp.pad(layer, 1, mode="reflect")
    total = jnp.zeros_like(layer)
    for (i, j), weight in np.ndenumerate(weights):
        total += float(weight) * padded[i : i + height, j : j + width]
    return total


_WEAK, _STRONG = 50, 150  # of the gradient, in levels
_FOLLOWED = 16  # pixels along which a weak edge is followed from a strong one


def _edges(drops: Layer) -> Bool[Array, "height width"]:
    """Canny's edges (1986, IEEE TPAMI 8(6)): crests of the gradient, the weak ones that touch.

    As OpenCV: Sobel's derivatives, the sum of their sizes, and four directions.
    """
    height, width = drops.shape
    framed = jnp.pad(drops, 1, mode="edge")
    rise = framed[:, 2:] - framed[:, :-2]
    dx = rise[:-2] + 2 * rise[1:-1] + rise[2:]
    rise = framed[2:] - framed[:-2]
    dy = rise[:, :-2] + 2 * rise[:, 1:-1] + rise[:, 2:]
    gradient = jnp.abs(dx) + jnp.abs(dy)
    framed = jnp.pad(gradient, 1)

    def beside(by_row: int, by_column: int) -> Layer:
        return framed[1 + by_row :, 1 + by_column :][:height, :width]

    flat = jnp.abs(dy) < 0.41421356 * jnp.abs(dx)
    steep = jnp.abs(dy) > 2.41421356 * jnp.abs(dx)
    falling = jnp.where(dx * dy < 0, 1, 0)
    crest = jnp.where(
        flat,
        (gradient > beside(0, -1)) & (gradient >= beside(0, 1)),
        jnp.where(
            steep,
            (gradient > beside(-1, 0)) & (gradient >= beside(1, 0)),
            jnp.where(
                falling,
                (gradient > beside(-1, 1)) & (gradient > beside(1, -1)),
                (gradient > beside(-1, -1)) & (gradient > beside(1, 1)),
            ),
        ),
    )
    weak = crest & (gradient > _WEAK)

    def follow(
        _: Int[Array, ""], edges: Bool[Array, "height width"]
    ) -> Bool[Array, "height width"]:
        grown = jax.lax.reduce_window(edges, False, jax.lax.bitwise_or, (3, 3), (1, 1), "SAME")
        return weak & grown

    return jax.lax.fori_loop(0, _FOLLOWED, follow, weak & (gradient > _STRONG))


def _distance(edges: Bool[Array, "height width"]) -> Layer:
    """Pixels to the nearest edge, at most `_FARTHEST`."""
    height, width = edges.shape
    place = jnp.arange(width, dtype=jnp.float32)
    far = 2.0 * _FARTHEST + width
    before = jax.lax.cummax(jnp.where(edges, place, -far), axis=1)
    after = jax.lax.cummin(jnp.where(edges, place, far + width), axis=1, reverse=True)
    squares = jnp.minimum(place - before, after - place) ** 2
    padded = jnp.pad(squares, ((_FARTHEST, _FARTHEST), (0, 0)), constant_values=float(_FARTHEST**2))

    def nearer(i: Int[Array, ""], nearest: Layer) -> Layer:
        row = jax.lax.dynamic_slice(padded, (i, 0), (height, width))
        return jnp.minimum(nearest, row + (i - _FARTHEST) ** 2)

    start = jnp.full((height, width), float(_FARTHEST**2))
    return jnp.sqrt(jax.lax.fori_loop(0, 2 * _FARTHEST + 1, nearer, start))


def _equalized(values: Layer) -> Layer:
    """Whole numbers up to `_FARTHEST` replaced by 0 to 255, each about equally often.

    A value becomes the share of the pixels that do not exceed it, among those above the least.
    """
    known = jnp.arange(_FARTHEST + 1)
    up_to = (values[..., None] <= known).sum(axis=(0, 1))
    least = (values == values.min()).sum()
    others = values.size - least
    spread = jnp.round(255 * (up_to - least) / jnp.maximum(others, 1))
    return jnp.where(others > 0, spread[values.astype(jnp.int32)], values)
