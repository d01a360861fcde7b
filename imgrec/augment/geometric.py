"""Augmentations that move pixels: crop, mirror, rotate, shift, zoom, shear, change perspective.

Each takes one image and a key; `imgrec.augment.build` maps them over the batch. They keep
the shape of the image; the mirrors and crops also keep its dtype, `pad_crop` and the mirrors
its exact values. Everything that interpolates goes through `warp`, which reads the image at
given points; an affine map and a perspective only say which.
"""

import math
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped, UInt8

Number = int | float | Float[Array, ""]
Row = tuple[Number, Number, Number]
Matrix = tuple[Row, Row]  # of a row and a column: times y, times x, and plus
Times = Callable[[Array, Array], Array]
Points = tuple[Float[Array, "#height #width"], Float[Array, "#height #width"]]  # rows, columns

_ATTEMPTS = 10  # of the random crop before it falls back to the centre
_GRID = 256  # steps a side that the corners of a perspective are rounded to


def pad_crop(
    image: Shaped[Array, "height width channels"], key: PRNGKeyArray, padding: int, mode: str
) -> Shaped[Array, "height width channels"]:
    """A window of the image's own size, cut anywhere from the padded image.

    Each of the (2 padding + 1)^2 windows is equally likely, where `padding` is the number of
    pixels added on every side. The mode "constant" pads with 0, "reflect" mirrors without
    repeating the edge.
    """
    margins = ((padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(image, margins, mode=mode)
    top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


def flip(
    image: Shaped[Array, "height width channels"], key: PRNGKeyArray
) -> Shaped[Array, "height width channels"]:
    """The image, or with probability one half its mirror image (left and right exchanged)."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def flip_vertical(
    image: Shaped[Array, "height width channels"], key: PRNGKeyArray
) -> Shaped[Array, "height width channels"]:
    """The image, or with probability one half the image with top and bottom exchanged."""
    return jnp.where(jax.random.bernoulli(key), image[::-1], image)


def random_resized_crop(
    image: UInt8[Array, "height width channels"],
    key: PRNGKeyArray,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> UInt8[Array, "height width channels"]:
    """A random box of the image, enlarged to the image's own size.

    Its share of the area is uniform, its aspect (width over height) log-uniform, its place
    uniform (Szegedy et al. 2014, arXiv:1409.4842, section 6). What does not fit is drawn again,
    ten times; then it is the largest box of an allowed aspect, in the middle. A box is never
    larger than what it becomes, so there is nothing for antialiasing to do.
    """
    top, left, box_height, box_width = crop_box(key, image.shape[0], image.shape[1], area, aspect)
    return resized_box(image, top, left, box_height, box_width)


def crop_box(
    key: PRNGKeyArray,
    height: int,
    width: int,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> tuple[Int[Array, ""], Int[Array, ""], Int[Array, ""], Int[Array, ""]]:
    """Top, left, height and width, in pixels, of the box of `random_resized_crop`."""
    for_area, for_aspect, for_place = jax.random.split(key, 3)
    pixels = (
        height * width * jax.random.uniform(for_area, (_ATTEMPTS,), minval=area[0], maxval=area[1])
    )
    low, high = map(math.log, aspect)
    ratio = jnp.exp(jax.random.uniform(for_aspect, (_ATTEMPTS,), minval=low, maxval=high))
    widths = jnp.round(jnp.sqrt(pixels * ratio)).astype(jnp.int32)
    heights = jnp.round(jnp.sqrt(pixels / ratio)).astype(jnp.int32)
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)

    first = jnp.argmax(fits)
    widest, tallest = (
        max(1, min(width, round(height * aspect[1]))),
        max(1, min(height, round(width / aspect[0]))),
    )
    box_height = jnp.where(fits.any(), heights[first], tallest)
    box_width = jnp.where(fits.any(), widths[first], widest)
    free = jnp.stack([height - box_height, width - box_width])
    place = jax.random.randint(for_place, (2,), 0, free + 1)
    top, left = jnp.where(fits.any(), place, free // 2)
    return top, left, box_height, box_width


def resized_box(
    image: UInt8[Array, "height width channels"],
    top: Int[Array, ""],
    left: Int[Array, ""],
    box_height: Int[Array, ""],
    box_width: Int[Array, ""],
) -> UInt8[Array, "height width channels"]:
    """A box resized to the whole image's size, bilinearly, reading nothing outside of the box.

    Within 1 of Pillow's `crop` and `resize`, which rounds between the two axes.
    """
    points = []
    for length, start, side in zip(image.shape, (top, left), (box_height, box_width), strict=False):
        middles = jnp.arange(length, dtype=jnp.float32) + 0.5
        place = (start - 0.5) + middles * (side / length)
        points.append(jnp.clip(place, start, start + side - 1))
    return to_uint8(warp(image, (points[0][:, None], points[1][None, :])))


def rotation(
    image: Shaped[Array, "height width channels"], key: PRNGKeyArray, limit: float
) -> Float[Array, "height width channels"]:
    """The image as float32, rotated by an angle drawn uniformly from [-limit, limit] degrees."""
    return rotate(image, jax.random.uniform(key, minval=-limit, maxval=limit))


def rotate(
    image: Shaped[Array, "height width channels"], degrees: float | Float[Array, ""]
) -> Float[Array, "height width channels"]:
    """The image as float32, rotated anticlockwise about its centre, interpolated bilinearly.

    Pixels are points of a grid on a black plane: what comes from outside is 0, and the
    outermost pixels fade into it over the width of one pixel.
    """
    height, width, _ = image.shape
    points = affine(centred(height, width), inverse_matrix(height, width, degrees))
    return warp(image, points, times=operator.mul)


def warp(
    image: Shaped[Array, "height width channels"],
    points: Points,
    fill: int = 0,
    times: Times | None = None,
) -> Float[Array, "height width channels"]:
    """The image as float32, each pixel read at a point, interpolated bilinearly.

    Pixels are points of a grid on a plane of the colour `fill`: the outermost pixels fade into
    it over the width of one pixel. At whole coordinates it is exactly the image.

    Args:
      image: uint8 or float.
      points: row and column, in pixels from the centre of the top left one, of what each
        output pixel is read from; they may broadcast.
      fill: of every channel, outside.
      times: how to multiply; by default `product`, whose bits no fusion changes. A rotation
        alone keeps the plain product, and so the bits that it has always had.
    """
    times = times or product
    height, width, channels = image.shape
    # A point further than one pixel outside is moved to where it still reads nothing but fill.
    rows, columns = jnp.clip(points[0], -1, height), jnp.clip(points[1], -1, width)

    # A frame of the fill makes every neighbour exist, so that the gathers need no bounds check.
    framed = jnp.pad(image, ((1, 2), (1, 2), (0, 0)), constant_values=fill).reshape(-1, channels)
    row_length = width + 3
    top, left = jnp.floor(rows), jnp.floor(columns)
    first = (top.astype(jnp.int32) + 1) * row_length + left.astype(jnp.int32) + 1

    def neighbour(row: int, column: int) -> Float[Array, "height width channels"]:
        pixels = framed.at[first + row * row_length + column].get(mode="promise_in_bounds")
        return pixels.astype(jnp.float32)

    down, right = (rows - top)[..., None], (columns - left)[..., None]
    upper = _between(neighbour(0, 0), neighbour(0, 1), right, times)
    lower = _between(neighbour(1, 0), neighbour(1, 1), right, times)
    return _between(upper, lower, down, times)


def _between(
    start: Float[Array, "height width channels"],
    end: Float[Array, "height width channels"],
    share: Float[Array, "#height #width 1"],
    times: Times,
) -> Float[Array, "height width channels"]:
    """Linear interpolation, exact at share 0."""
    return start + times(share, end - start)


def to_uint8(
    image: Float[Array, "height width channels"],
) -> UInt8[Array, "height width channels"]:
    """Floats from 0 to 255 rounded to the nearest whole number, halves up."""
    return jnp.floor(image + 0.5).astype(jnp.uint8)


def centred(height: int, width: int) -> Points:
    """Row and column of every pixel, counted from the middle of the image."""
    y = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2
    x = jnp.arange(width, dtype=jnp.float32)[None, :] - (width - 1) / 2
    return y, x


def affine(centred_points: Points, matrix: Matrix) -> Points:
    """The points of the image that centred points are read from, by an inverse matrix.

    Each sum takes one product at a time, as all sums here do (see `imgrec.augment`).
    """
    y, x = centred_points
    row, column = (start + by_y * y + by_x * x for by_y, by_x, start in matrix)
    return row, column


def inverse_matrix(
    height: int,
    width: int,
    degrees: Number = 0.0,
    shift: tuple[Number, Number] | None = None,
    scale: Number | None = None,
    shear: tuple[Number, Number] | None = None,
) -> Matrix:
    """Where output pixels are read from, when the image is sheared, scaled, rotated, shifted.

    In that order, all but the shift about the centre. `affine` applies the matrix to centred
    points; its last column holds the middle of the image.

    Args:
      height: in pixels.
      width: in pixels.
      degrees: anticlockwise.
      shift: pixels down and right.
      scale: above 1 enlarges.
      shear: (by, bx): what is one pixel to the right moves down by `by`, what is one pixel down
        moves right by `bx`; their product stays below 1.
    """
    angle = jnp.deg2rad(jnp.asarray(degrees, jnp.float32))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    linear: list[tuple[Number, Number]] = [(cos, sin), (-sin, cos)]
    size: Number = 1.0
    if shear is not None:
        by, bx = shear
        linear = [(cos + by * sin, sin - by * cos), (-sin - bx * cos, cos - bx * sin)]
        size = 1 - by * bx
    if scale is not None:
        size = scale * size
    if shear is not None or scale is not None:
        linear = [(by_y / size, by_x / size) for by_y, by_x in linear]

    rows = []
    for (by_y, by_x), length in zip(linear, (height, width), strict=True):
        start: Number = (length - 1) / 2
        if shift is not None:
            start = start - by_y * shift[0] - by_x * shift[1]
        rows.append((by_y, by_x, start))
    return rows[0], rows[1]


def perspective(
    corners: Int[Array, "4 2"] | Int[np.ndarray, "4 2"], height: int, width: int
) -> Points:
    """Centred points of the image, which the output pixels see through a projection.

    The output's corners see the given points, and straight lines stay straight: the map from
    the unit square to a quadrilateral in closed form (Heckbert 1989, "Fundamentals of Texture
    Mapping and Image Warping", section 2.2.3). Whole numbers keep its products exact.

    Args:
      corners: (row, column) of the points seen from top left, top right, bottom right and
        bottom left, in 1/256 of the image's height and width from its top left corner; a
        convex quadrilateral within half a side of the image.
      height: in pixels.
      width: in pixels.
    """
    p = jnp.asarray(corners, jnp.int32)
    (dy1, dx1), (dy2, dx2), (sy, sx) = p[1] - p[2], p[3] - p[2], p[0] - p[1] + p[2] - p[3]
    size = dx1 * dy2 - dx2 * dy1
    g, h = sx * dy2 - dx2 * sy, dx1 * sy - sx * dy1
    along_x = (p[1] - p[0]) * size + g * p[1]
    along_y = (p[3] - p[0]) * size + h * p[3]

    # From here in whole numbers of 1/one, too: their sums are exact in whatever order.
    one = 2**26
    u, v = 2 * jnp.arange(width)[None, :] + 1, 2 * jnp.arange(height)[:, None] + 1

    def linear(
        start: int | Int[Array, ""], by_u: Int[Array, ""], by_v: Int[Array, ""], unit: int
    ) -> Float[Array, "height width"]:
        """The sum start + by_u u + by_v v, in parts of 1/one."""
        steps = [
            jnp.round(by / size * (one / 2 / length / unit)).astype(jnp.int32)
            for by, length in ((by_u, width), (by_v, height))
        ]
        return (start * (one // unit) + steps[0] * u + steps[1] * v).astype(jnp.float32)

    depth = linear(1, g, h, 1)
    y = linear(p[0, 0], along_x[0], along_y[0], _GRID) / depth
    x = linear(p[0, 1], along_x[1], along_y[1], _GRID) / depth
    return product(y, float(height)) - height / 2, product(x, float(width)) - width / 2


def random_corners(key: PRNGKeyArray, limit: float) -> Int[Array, "4 2"]:
    """Corners for `perspective`, each moved along both axes by up to `limit` half sides."""
    square = jnp.array([[0, 0], [0, 1], [1, 1], [1, 0]]) * _GRID
    moved = jax.random.uniform(key, (4, 2), minval=-limit, maxval=limit) * (_GRID / 2)
    return square + jnp.round(moved).astype(jnp.int32)


def product(a: float | Float[Array, "..."], b: float | Float[Array, "..."]) -> Float[Array, "..."]:
    """The product, rounded by itself, whatever it is added to.

    No compiler can join it with a sum through a clip, which it must take to have an effect.
    """
    largest = float(jnp.finfo(jnp.float32).max)
    return jnp.clip(a * jnp.asarray(b, jnp.float32), -largest, largest)


def box(
    height: int,
    width: int,
    center: tuple[Shaped[Array, ""], Shaped[Array, ""]],
    size: tuple[int | Shaped[Array, ""], int | Shaped[Array, ""]],
) -> Bool[Array, "height width"]:
    """True inside a box of size (rows, columns) about a pixel, clipped at the borders."""
    inside = []
    for length, middle, side in zip((height, width), center, size, strict=True):
        position = jnp.arange(length)
        first = middle - side // 2
        inside.append((position >= first) & (position < first + side))
    return inside[0][:, None] & inside[1][None, :]
