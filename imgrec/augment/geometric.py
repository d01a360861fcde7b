"""Augmentations that move pixels: crop from a padded image, mirror, rotate.

Each takes one image and a key; `imgrec.augment.build` maps them over the batch. They keep
the shape of the image, and `pad_crop` and `flip` also its dtype and its exact values.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Shaped


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
    height, width, channels = image.shape
    rows, columns = _sources(height, width, degrees)

    # A frame of zeros makes every neighbour exist, so that the gathers need no bounds check.
    framed = jnp.pad(image, ((1, 2), (1, 2), (0, 0))).reshape(-1, channels)
    row_length = width + 3
    top, left = jnp.floor(rows), jnp.floor(columns)
    first = (top.astype(jnp.int32) + 1) * row_length + left.astype(jnp.int32) + 1

    def neighbour(row: int, column: int) -> Float[Array, "height width channels"]:
        pixels = framed.at[first + row * row_length + column].get(mode="promise_in_bounds")
        return pixels.astype(jnp.float32)

    down, right = (rows - top)[..., None], (columns - left)[..., None]
    upper = _between(neighbour(0, 0), neighbour(0, 1), right)
    lower = _between(neighbour(1, 0), neighbour(1, 1), right)
    return _between(upper, lower, down)


def _sources(
    height: int, width: int, degrees: float | Float[Array, ""]
) -> tuple[Float[Array, "height width"], Float[Array, "height width"]]:
    """Row and column of the point that each pixel of a rotated image is read from.

    A point further than one pixel outside is moved to where it still reads nothing but 0.
    """
    angle = jnp.deg2rad(jnp.asarray(degrees, jnp.float32))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    y = jnp.arange(height, dtype=jnp.float32)[:, None] - middle_row
    x = jnp.arange(width, dtype=jnp.float32)[None, :] - middle_column
    rows = middle_row + cos * y + sin * x
    columns = middle_column - sin * y + cos * x
    return jnp.clip(rows, -1, height), jnp.clip(columns, -1, width)


def _between(
    start: Float[Array, "height width channels"],
    end: Float[Array, "height width channels"],
    share: Float[Array, "height width 1"],
) -> Float[Array, "height width channels"]:
    """Linear interpolation, exact at share 0."""
    return start + share * (end - start)


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
