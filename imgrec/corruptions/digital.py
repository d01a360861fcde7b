"""What digital handling does to shapes: elastic deformation and large pixels.

Two of Hendrycks and Dietterich (2019, arXiv:1903.12261); JPEG is in `imgrec.corruptions.jpeg`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from imgrec.corruptions import filters
from imgrec.corruptions.severity import Constants, Image, Severity, at
from imgrec.randomness import named


def elastic_transform(
    image: Image,
    key: PRNGKeyArray,
    severity: Severity,
    *,
    strength: Constants,
    sigma: Constants,
    affine: Constants,
) -> Image:
    """A random affine map, then a displacement that is smooth noise.

    Three points move by up to `affine` along each axis and take the image with them. Then each
    pixel moves by uniform noise in [-1, 1], smoothed with a Gaussian of standard deviation
    `sigma`, times `strength`. All three are in units of the image's side: the published ones are
    in pixels of the published resolution.
    """
    height, width, _ = image.shape
    side = min(height, width)
    rows, columns = jnp.mgrid[:height, :width].astype(jnp.float32)

    reach = at(severity, affine) * side
    moves = reach * jax.random.uniform(named(key, "affine"), (3, 2), minval=-1, maxval=1)
    points = _moved_back(rows - height // 2, columns - width // 2, side // 3, moves)
    image = filters.read_points(
        image, points[0] + height // 2, points[1] + width // 2, repeat_edge=False
    )

    noise = jax.random.uniform(named(key, "noise"), (height, width, 2), minval=-1, maxval=1)
    smooth = filters.gaussian(
        noise, at(severity, sigma) * side, largest=max(sigma) * side, truncate=3, mode="symmetric"
    )
    moved = smooth * (at(severity, strength) * side)
    return filters.read_points(
        image, rows + moved[..., 0], columns + moved[..., 1], repeat_edge=True
    )


def _moved_back(
    y: Float[Array, "height width"],
    x: Float[Array, "height width"],
    size: int,
    moves: Float[Array, "3 2"],
) -> tuple[Float[Array, "height width"], Float[Array, "height width"]]:
    """Where points come from under the affine map that moves the corners of half a square.

    The corners are (size, size), (-size, size) and (-size, -size), (row, column) from the middle.
    """
    corners = size * jnp.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]]) + moves
    by_y = (corners[0] - corners[1]) / (2 * size)
    by_x = (corners[1] - corners[2]) / (2 * size)
    shift = (corners[0] + corners[2]) / 2
    y, x = y - shift[0], x - shift[1]
    area = by_y[0] * by_x[1] - by_x[0] * by_y[1]
    return (by_x[1] * y - by_x[0] * x) / area, (by_y[0] * x - by_y[1] * y) / area


def pixelate(image: Image, key: PRNGKeyArray, severity: Severity, *, share: Constants) -> Image:
    """Reduced to `share` of its side and enlarged again, by Pillow's box filter.

    In whole levels, rounded after either axis, as Pillow does: the result is Pillow's.
    """
    pixels = jnp.round(255 * image).astype(jnp.int32)
    for axis in (1, 0):
        first, end = (at(severity, table) for table in _boxes(image.shape[axis], share))
        pixels = _means(pixels, first, end, axis)
    return pixels.astype(jnp.float32) / 255


def _boxes(
    length: int, shares: Constants
) -> tuple[Int[np.ndarray, "levels length"], Int[np.ndarray, "levels length"]]:
    """First and end of the pixels that each pixel of a row becomes the mean of."""
    first, end = [], []
    for share in shares:
        small = int(length * share)
        # Ties, a pixel's middle on the edge of two boxes, go where Pillow's floats let them go.
        scale, pixel = length / small, np.arange(length)
        middle = (np.arange(small)[:, None] + 0.5) * scale
        distance = (pixel - middle + 0.5) * (1 / scale)
        inside = (distance > -0.5) & (distance <= 0.5)
        inside &= pixel >= np.floor(middle - 0.5 * scale + 0.5)
        inside &= pixel < np.floor(middle + 0.5 * scale + 0.5)
        block = ((np.arange(length) + 0.5) * (small / length)).astype(np.int64)
        first.append(inside.argmax(axis=1)[block])
        end.append(length - inside[:, ::-1].argmax(axis=1)[block])
    return np.stack(first), np.stack(end)


def _means(
    pixels: Int[Array, "height width channels"],
    first: Int[Array, " length"],
    end: Int[Array, " length"],
    axis: int,
) -> Int[Array, "height width channels"]:
    """Each pixel of a row the mean of its box, rounded to the nearest whole number, halves up."""
    before = jnp.cumsum(pixels, axis=axis)
    before = jnp.pad(before, [(int(i == axis), 0) for i in range(3)])
    total = jnp.take(before, end, axis, mode="clip") - jnp.take(before, first, axis, mode="clip")
    count = jnp.expand_dims(end - first, [1 - axis, 2])
    return (2 * total + count) // (2 * count)
