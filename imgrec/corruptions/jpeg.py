"""JPEG compression and back, level for level as Pillow does it with libjpeg's defaults.

Everything that a JPEG file loses is lost here, in the same whole numbers: colours become luma
and chroma of 8 bits, chroma has half the resolution, blocks of 8 x 8 pixels are transformed and
their coefficients divided by the table of the quality and rounded; then back, with chroma
interpolated ("fancy upsampling"). Only the entropy coding, which loses nothing, is left out
(ITU-T T.81 and JFIF 1.02; the roundings are libjpeg's).
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from imgrec.corruptions.severity import Image, Severity, at

Plane = Int[Array, "height width"]
Table = Int[np.ndarray, "8 8"]

# ITU-T T.81, annex K.1: a row is a vertical frequency.
_LUMA: Table = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
_CHROMA: Table = np.full((8, 8), 99)
_CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]


def jpeg_compression(
    image: Image, key: PRNGKeyArray, severity: Severity, *, quality: Sequence[int]
) -> Image:
    """The image saved as JPEG of a `quality` from 1 to 100 and read again."""
    levels = jnp.round(255 * image).astype(jnp.int32)
    luma_table, chroma_table = (
        at(severity, np.stack([_scaled(table, q) for q in quality])) for table in (_LUMA, _CHROMA)
    )
    if image.shape[-1] == 1:
        return _coded(levels[..., 0], luma_table)[..., None].astype(jnp.float32) / 255

    luma, *chroma = _to_luma_and_chroma(levels)
    luma = _coded(luma, luma_table)
    height, width = luma.shape
    halves = [_coded(_halved(plane), chroma_table)[:, : -(-width // 2)] for plane in chroma]
    blue, red = (_doubled(plane)[:height, :width] for plane in halves)
    return _to_colours(luma, blue - 128, red - 128).astype(jnp.float32) / 255


def _scaled(table: Table, quality: int) -> Table:
    """The table for a quality, in the Independent JPEG Group's way."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((table * percent + 50) // 100, 1, 255)


def _to_luma_and_chroma(levels: Int[Array, "height width 3"]) -> tuple[Plane, Plane, Plane]:
    """Y, Cb and Cr of ITU-R BT.601 to 16 bits; without colour, Cb and Cr are 128."""
    red, green, blue = jnp.moveaxis(levels, -1, 0)
    half, middle = 1 << 15, 128 << 16
    return (
        (19595 * red + 38470 * green + 7471 * blue + half) >> 16,
        (-11058 * red - 21710 * green + 32768 * blue + middle + half - 1) >> 16,
        (32768 * red - 27439 * green - 5329 * blue + middle + half - 1) >> 16,
    )


def _to_colours(luma: Plane, blue: Plane, red: Plane) -> Int[Array, "height width 3"]:
    half = 1 << 15
    differences = [
        (91881 * red + half) >> 16,
        (-22554 * blue - 46802 * red + half) >> 16,
        (116130 * blue + half) >> 16,
    ]
    return jnp.clip(luma[..., None] + jnp.stack(differences, axis=-1), 0, 255)


def _halved(plane: Plane) -> Int[Array, "rows columns"]:
    """Means of 2 x 2 pixels; halves are rounded down and up in turn, from the left."""
    height, width = plane.shape
    # The last column is repeated to the end of its block before the means, the last row after.
    plane = jnp.pad(plane, ((0, height % 2), (0, -width % 16)), mode="edge")
    rows = plane[0::2] + plane[1::2]
    sums = rows[:, 0::2] + rows[:, 1::2]
    return (sums + 1 + jnp.arange(sums.shape[1]) % 2) >> 2


def _doubled(plane: Plane) -> Int[Array, "rows columns"]:
    """Twice the resolution: each pixel 3/4 of the nearest and 1/4 of the next, on either axis."""
    above = jnp.concatenate([plane[:1], plane[:-1]])
    below = jnp.concatenate([plane[1:], plane[-1:]])
    rows = jnp.stack([3 * plane + above, 3 * plane + below], axis=1)
    rows = rows.reshape(-1, plane.shape[1])
    before = jnp.concatenate([rows[:, :1], rows[:, :-1]], axis=1)
    after = jnp.concatenate([rows[:, 1:], rows[:, -1:]], axis=1)
    pixels = [(3 * rows + before + 8) >> 4, (3 * rows + after + 7) >> 4]
    return jnp.stack(pixels, axis=2).reshape(len(rows), -1)


def _coded(plane: Plane, table: Int[Array, "8 8"]) -> Plane:
    """What is left of a plane when its blocks' coefficients are divided by a table and rounded."""
    height, width = plane.shape
    padded = jnp.pad(plane, ((0, -height % 8), (0, -width % 8)), mode="edge") - 128
    blocks = padded.reshape(padded.shape[0] // 8, 8, padded.shape[1] // 8, 8).swapaxes(1, 2)
    transform = jnp.asarray(_TRANSFORM)
    # Eight times the coefficients, then multiples of the table's entries.
    eighths = _shifted(transform @ _shifted(blocks @ transform.T, 11), 15)
    multiples = jnp.sign(eighths) * ((jnp.abs(eighths) + 4 * table) // (8 * table))
    decoded = _shifted(_shifted(transform.T @ (multiples * table), 11) @ transform, 18)
    pixels = decoded.swapaxes(1, 2).reshape(padded.shape)[:height, :width]
    return jnp.clip(pixels + 128, 0, 255)


def _shifted(values: Int[Array, "..."], bits: int) -> Int[Array, "..."]:
    """Divided by a power of two, to the nearest whole number, halves up."""
    return (values + (1 << (bits - 1))) >> bits


def _transform() -> Table:
    """The matrix of libjpeg's integer transform: 2^13 sqrt(8) times the orthonormal cosines.

    The factorised form (Loeffler, Ligtenberg and Moschytz 1989) adds up rounded constants, so
    some entries are 1 off the rounded cosine. One frequency a row; the second half of a row
    mirrors the first, with the sign changed in odd rows.
    """
    half = np.array(
        [
            [8192, 8192, 8192, 8192],
            [11363, 9633, 6437, 2260],
            [10703, 4433, -4433, -10703],
            [9633, -2259, -11362, -6436],
            [8192, -8192, -8192, 8192],
            [6437, -11362, 2261, 9633],
            [4433, -10704, 10704, -4433],
            [2260, -6436, 9633, -11363],
        ],
        np.int32,
    )
    signs = np.array([1, -1] * 4, np.int32)
    return np.concatenate([half, signs[:, None] * half[:, ::-1]], axis=1)


_TRANSFORM = _transform()
