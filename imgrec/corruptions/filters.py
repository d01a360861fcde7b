"""Smoothing, smearing, enlarging and reading between pixels, by amounts known on the device.

What has a shape (the width of a kernel) is given for the strongest severity, as a plain number.
Images are float32 in [0, 1].
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from imgrec.corruptions.severity import Image, Number

_NEARLY = 1 / 2000  # of a level: what is that close below a whole level is taken for it


def levels(image: Float[Array, "..."]) -> Float[Array, "..."]:
    """Whole numbers from 0 to 255, cut off as a cast to uint8 does, as float32."""
    return jnp.floor(jnp.clip(255 * image + _NEARLY, 0, 255))


def gaussian(
    image: Image,
    sigma: Number,
    *,
    largest: int | float,
    truncate: int = 4,
    mode: str = "edge",
) -> Image:
    """The image convolved with a Gaussian that is cut off at `truncate` standard deviations.

    Args:
      image: of any number of channels.
      sigma: standard deviation in pixels; with 0 nothing changes.
      largest: the greatest sigma.
      truncate: standard deviations to each side, as in scipy.ndimage.gaussian_filter.
      mode: how the image goes on outside, of jnp.pad: "edge" or "symmetric".
    """
    reach = int(truncate * largest + 0.5)
    distance = jnp.arange(-reach, reach + 1)
    bell = jnp.exp(-0.5 * (distance / jnp.maximum(sigma, 1e-3)) ** 2)
    weights = jnp.where(jnp.abs(distance) <= jnp.floor(truncate * sigma + 0.5), bell, 0)
    weights = weights / weights.sum()
    down, across = (_convolution(weights, length, mode) for length in image.shape[:2])
    rows = jnp.einsum("oh,hwc->owc", down, image, precision="highest")
    return jnp.einsum("ow,hwc->hoc", across, rows, precision="highest")


def _convolution(
    weights: Float[Array, " taps"], length: int, mode: str
) -> Float[Array, "length length"]:
    """The matrix that convolves a row, which goes on outside as `mode` says."""
    taps = len(weights)
    place = jnp.arange(length + taps - 1)
    tap = place[None, :] - jnp.arange(length)[:, None]
    band = jnp.where((tap >= 0) & (tap < taps), weights[jnp.clip(tap, 0, taps - 1)], 0)
    source = jnp.pad(jnp.arange(length), taps // 2, mode=mode)
    copies = (source[:, None] == jnp.arange(length)[None, :]).astype(jnp.float32)
    return jnp.dot(band, copies, precision="highest")


def smear(
    image: Image,
    degrees: Float[Array, ""],
    radius: Int[Array, ""],
    sigma: Number,
    *,
    longest: int,
) -> Image:
    """A movement in one direction: half a Gaussian along a line, as ImageMagick's MotionBlur.

    The pixel i of the line is the nearest to i steps in the direction, for i from 0 to
    2 radius; edges are repeated outwards.

    Args:
      image: of any number of channels.
      degrees: direction in which pixels are read, clockwise from right.
      radius: in pixels.
      sigma: standard deviation of the Gaussian.
      longest: the greatest radius.
    """
    step = jnp.arange(2 * longest + 1)
    weights = jnp.where(step <= 2 * radius, jnp.exp(-0.5 * (step / sigma) ** 2), 0)
    weights = weights / weights.sum()
    angle = jnp.deg2rad(degrees)
    down = jnp.ceil(step * jnp.sin(angle) - 0.5).astype(jnp.int32)
    right = jnp.ceil(step * jnp.cos(angle) - 0.5).astype(jnp.int32)
    height, width, _ = image.shape
    rows, columns = jnp.arange(height), jnp.arange(width)

    def add(i: Int[Array, ""], total: Image) -> Image:
        moved = image.at[jnp.clip(rows + down[i], 0, height - 1)].get(mode="promise_in_bounds")
        place = jnp.clip(columns + right[i], 0, width - 1)
        return total + weights[i] * moved.at[:, place].get(mode="promise_in_bounds")

    return jax.lax.fori_loop(0, len(step), add, jnp.zeros_like(image))


def zoom_points(length: int, factors: Iterable[int | float]) -> Float[np.ndarray, "factors length"]:
    """Where each pixel of a row is read from when its middle is enlarged to the whole.

    The middle is the least number of whole pixels that suffices; its first and last pixel stay
    the first and last of what it becomes (scipy.ndimage.zoom), of which the middle is taken.
    """
    points = []
    for factor in factors:
        crop = int(np.ceil(length / factor))
        size = round(crop * factor)
        place = np.arange(length) + (size - length) // 2
        points.append((length - crop) // 2 + place * ((crop - 1) / (size - 1)))
    return np.stack(points)


def read_grid(
    image: Image, rows: Float[Array, " height"], columns: Float[Array, " width"]
) -> Image:
    """The image at the crossings of given rows and columns inside it, interpolated linearly."""
    for axis, points in enumerate((rows, columns)):
        before = jnp.floor(points).astype(jnp.int32)
        after = jnp.minimum(before + 1, image.shape[axis] - 1)
        share = jnp.expand_dims(points - before, [1 - axis, 2])
        start, end = (jnp.take(image, at, axis, mode="clip") for at in (before, after))
        image = start + share * (end - start)
    return image


def read_points(
    image: Image,
    rows: Float[Array, "height width"],
    columns: Float[Array, "height width"],
    *,
    repeat_edge: bool,
) -> Image:
    """The image at given points, interpolated linearly; outside it is mirrored.

    Args:
      image: of any number of channels.
      rows: from the middle of the top row.
      columns: from the middle of the left column.
      repeat_edge: whether the mirror stands behind the edge pixel ("reflect" in scipy) or in its
        middle ("mirror" in scipy, "reflect_101" in OpenCV).
    """
    height, width, channels = image.shape
    pixels = image.reshape(-1, channels)
    top, left = jnp.floor(rows), jnp.floor(columns)
    down, right = (rows - top)[..., None], (columns - left)[..., None]

    def neighbour(by_row: int, by_column: int) -> Image:
        row = _mirrored(top.astype(jnp.int32) + by_row, height, repeat_edge)
        column = _mirrored(left.astype(jnp.int32) + by_column, width, repeat_edge)
        return pixels.at[row * width + column].get(mode="promise_in_bounds")

    upper = neighbour(0, 0) + right * (neighbour(0, 1) - neighbour(0, 0))
    lower = neighbour(1, 0) + right * (neighbour(1, 1) - neighbour(1, 0))
    return upper + down * (lower - upper)


def _mirrored(place: Int[Array, "..."], length: int, repeat_edge: bool) -> Int[Array, "..."]:
    if repeat_edge:
        place = place % (2 * length)
        return jnp.minimum(place, 2 * length - 1 - place)
    place = place % (2 * length - 2)
    return jnp.minimum(place, 2 * length - 2 - place)
