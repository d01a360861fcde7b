"""The fifteen corruptions of MNIST-C, for grey images of handwriting's kind, white on black.

Mu and Gilmer (2019, arXiv:1906.02337); the generating program is `corruptions.py` of
github.com/google-research/mnist-c. Each kind has one strength, that of the published set, so the
severity of these functions changes nothing. Lengths are the published ones, in pixels of an image
of 28; positions are those of the program, carried over to any size.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from imgrec.augment import geometric
from imgrec.corruptions import blur, colour, filters, noise
from imgrec.corruptions.severity import LEVELS, Corruption, Image, Severity
from imgrec.corruptions.textures import plasma

SEVERITIES = (1,)

Plane = Float[Array, "height width"]
Mask = Bool[Array, "height width"]
Number = int | float | Float[Array, ""]


def glass_blur(image: Image, key: PRNGKeyArray, severity: Severity) -> Image:
    """Twice, from the last pixel to the first, every other swapped with one up or left of it.

    Between two Gaussian blurs of 0.7, up and down alone: the program's library took the columns
    of a grey image for channels. Grey pixels are swapped truly, where the same program on
    colours copies (see `blur.glass_blur`).
    """
    height, width, channels = image.shape
    for_chance, for_moves = jax.random.split(key)
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    moved = jax.random.bernoulli(for_chance, 0.5, (2, height, width)) & (rows > 1) & (columns > 1)
    steps = jax.random.randint(for_moves, (2, 2, height, width), -1, 1)
    partners = rows * width + columns + jnp.where(moved, steps[0] * width + steps[1], 0)

    pixels = filters.levels(_blurred_down(image)).reshape(-1, channels)
    for partner in partners:
        pixels = pixels[swapped(partner.ravel(), width)]
    return jnp.clip(_blurred_down(pixels.reshape(image.shape) / 255), 0, 1)


def _blurred_down(image: Image) -> Image:
    columns = image.reshape(len(image), 1, -1)
    return filters.gaussian(columns, 0.7, largest=0.7).reshape(image.shape)


def swapped(partner: Int[Array, " pixels"], width: int) -> Int[Array, " pixels"]:
    """Where each pixel's value comes from when each, from the last to the first, is swapped.

    A partner comes before its pixel, so after its own swap a pixel is never touched again. What
    it gives away is what the last swap before put there, which is what that one's pixel held
    just before: a chain through later and later pixels, followed by doubling its steps.

    Args:
      partner: of each pixel, itself or the one up, left or both of it.
      width: of the image.
    """
    own = jnp.arange(partner.size)

    def giver(pixel: Int[Array, " pixels"], after: Int[Array, " pixels"]) -> Int[Array, " pixels"]:
        """The first pixel after a given one whose partner is `pixel`; itself where there is none.

        Swaps run backwards, so the first after is the last that was swapped before.
        """
        found = pixel
        for step in (width + 1, width, 1):
            candidate = pixel + step
            gives = (candidate > after) & (partner.at[candidate].get(mode="clip") == pixel)
            found = jnp.where(gives & (candidate < partner.size), candidate, found)
        return found

    chain = giver(own, own)
    for _ in range(math.ceil(math.log2(partner.size))):
        chain = chain[chain]
    source = giver(partner, own)
    untouched = (source == partner) & (partner != own)
    return jnp.where(untouched, partner, chain[source])


def shear(image: Image, key: PRNGKeyArray, severity: Severity) -> Image:
    """Leant to the left or the right by 0.4 radians, and so a little taller.

    Rows are read along a slanted line: scikit-image turned the upright axis alone by the angle
    when the set was made.
    """
    angle = 0.4 * _sign(key)
    return _mapped(image, ((jnp.cos(angle), 0), (-jnp.sin(angle), 1)))


def scale(image: Image, key: PRNGKeyArray, severity: Severity) -> Image:
    """Shrunk to 0.7 of its size."""
    return _mapped(image, ((1 / 0.7, 0), (0, 1 / 0.7)))


def rotate(image: Image, key: PRNGKeyArray, severity: Severity) -> Image:
    """Turned by 0.4 radians, clockwise or anticlockwise."""
    angle = 0.4 * _sign(key)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return _mapped(image, ((cos, sin), (-sin, cos)))


def translate(image: Image, key: PRNGKeyArray, severity: Severity) -> Image:
    """Shifted by 3 pixels along each axis, to one of the four sides."""
    for_rows, for_columns = jax.random.split(key)
    padded = jnp.pad(image, ((3, 3), (3, 3), (0, 0)))
    place = [3 + 3 * _sign(each).astype(jnp.int32) for each in (for_rows, for_columns)]
    return jax.lax.dynamic_slice(padded, (*place, 0), image.shape)


def _mapped(image: Image, matrix: tuple[tuple[Number, Number], tuple[Number, Number]]) -> Image:
    """Each pixel read where the matrix sends it, about the centre; outside is black."""
    height, width, _ = image.shape
    y, x = geometric.centred(height, width)
    rows, columns = (by_y * y + by_x * x for by_y, by_x in matrix)
    return geometric.warp(image, (rows + (height - 1) / 2, columns + (width - 1) / 2))


def stripe(image: Image, key: PRNGKeyArray, severity: Severity) -> Image:
    """The left and the right quarter inverted."""
    width = image.shape[1]
    column = jnp.arange(width)
    outer = (column < width // 4) | (column >= width - width // 4)
    return jnp.where(outer[None, :, None], 1 - image, image)


def fog(image: Image, key: PRNGKeyArray, severity: Severity) -> Image:
    """Plasma times 3 added, and the sum darkened so that the brightest stays as bright.

    The plasma is the corner of a cloud of 256 pixels, whose darkest and brightest are elsewhere.
    """
    height, width, _ = image.shape
    cloud = plasma(key, max(256, 1 << (max(height, width) - 1).bit_length()), 1.4)
    brightest = image.max()
    foggy = image + 3 * cloud[:height, :width, None]
    return jnp.clip(foggy * brightest / (brightest + 3), 0, 1)


def spatter(image: Image, key: PRNGKeyArray, severity: Severity) -> Image:
    """Drops of a dark grey over the image."""
    drops = filters.gaussian(0.65 + 0.3 * jax.random.normal(key, image.shape), 1.0, largest=1.0)
    cover = filters.gaussian((drops > 0.65).astype(jnp.float32), 1.5, largest=1.5)
    cover = jnp.where(cover < 0.8, 0, cover)
    return jnp.clip(image * (1 - cover) + 63 / 255 * cover, 0, 1)


def dotted_line(image: Image, key: PRNGKeyArray, severity: Severity) -> Image:
    """A line of dots from a random place of the left edge to one of the right."""
    height, width, _ = image.shape
    start, end = jax.random.randint(key, (2,), 0, height - 1).astype(jnp.float32)
    line = _segment(height, width, (0.0, start), (width - 1.0, end))
    dotted = jnp.where(jnp.arange(width)[None, :] % 4 < 2, 0, line)
    return jnp.clip(image + dotted[..., None], 0, 1)


def zigzag(image: Image, key: PRNGKeyArray, severity: Severity) -> Image:
    """A zigzag of 2 pixels to either side along a line from left to right."""
    height, width, _ = image.shape
    for_start, for_end = jax.random.split(key)
    first, last = 2.0, width - 3.0
    start = jax.random.randint(for_start, (), 0, height - 1).astype(jnp.float32)
    rise = jax.random.randint(for_end, (), -5, 5).astype(jnp.float32)
    length = jnp.hypot(last - first, rise)
    cos, sin = (last - first) / length, rise / length

    # The corners, along and across the line. How many there are depends on its length: those
    # after the last are moved to the end, where a stroke of no length leaves no trace.
    strokes = math.ceil(math.hypot(last - first, 5) / 4) + 1
    corner = jnp.arange(strokes)
    number = jnp.floor((length - 2) / 4) + 1
    full = 4 * jnp.floor(length / 4)
    across = jnp.where(corner % 2 == 0, 2.0, -2.0)
    rest = jnp.where(number % 2 == 1, 2.0, -2.0) / (2 * jnp.where(full == length, 1, length - full))
    at_end = corner >= number
    along = jnp.where(at_end, length, 4.0 * corner + 2)
    across = jnp.where(at_end, rest, across)
    columns = jnp.concatenate([jnp.zeros(1), along * cos - across * sin]) + first
    rows = jnp.concatenate([jnp.zeros(1), along * sin + across * cos]) + start

    light = jnp.zeros((height, width))
    for i in range(strokes):
        ends = (columns[i], rows[i]), (columns[i + 1], rows[i + 1])
        light += _segment(height, width, *ends)
    return jnp.clip(image + light[..., None], 0, 1)


def _segment(
    height: int, width: int, start: tuple[Number, Number], end: tuple[Number, Number]
) -> Plane:
    """A stroke between two points (column, row), its light fading with the height above it.

    Nothing where it is upright.
    """
    (c0, r0), (c1, r1) = start, end
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    slope = (r1 - r0) / jnp.where(c1 == c0, 1, c1 - c0)
    distance = jnp.minimum(jnp.abs(rows - (slope * (columns - c0) + r0)), 2.3 - 1e-6)
    light = jnp.clip(jnp.log1p(-distance / 2.3) + 1, 0, 1)
    inside = (columns >= jnp.floor(c0)) & (columns < jnp.ceil(c1)) & (c1 != c0)
    return jnp.where(inside, light, 0)


def canny_edges(image: Image, key: PRNGKeyArray, severity: Severity) -> Image:
    """The edges that Canny's detector finds (1986, PAMI 8(6)), white on black.

    As scikit-image does it by default: a Gaussian of 1, Sobel's derivatives, ridges of the
    gradient by interpolation across them, and of the ridges above 0.1 those that hang together
    with one above 0.2.
    """
    return jax.vmap(_canny, in_axes=-1, out_axes=-1)(image)


def _canny(plane: Plane) -> Plane:
    height, width = plane.shape
    # Blurred on a black plane; what the blur lost over the border is made up for.
    margin = ((4, 4), (4, 4), (0, 0))
    both = jnp.stack([plane, jnp.ones_like(plane)], axis=-1)
    both = filters.gaussian(jnp.pad(both, margin), 1.0, largest=1.0)[4:-4, 4:-4]
    smooth = both[..., 0] / (both[..., 1] + jnp.finfo(jnp.float32).eps)

    around = jnp.pad(smooth, 1, mode="symmetric")
    down = around[2:, :] - around[:-2, :]
    right = around[:, 2:] - around[:, :-2]
    down = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    right = right[:-2, :] + 2 * right[1:-1, :] + right[2:, :]
    steepness = jnp.hypot(down, right)

    row, column = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    inner = (row > 0) & (row < height - 1) & (column > 0) & (column < width - 1)
    ridge = _ridges(steepness, down, right) & inner & (steepness > 0)
    weak, strong = ridge & (steepness >= 0.1), ridge & (steepness >= 0.2)
    return connected(strong, weak).astype(jnp.float32)


def _ridges(steepness: Plane, down: Plane, right: Plane) -> Mask:
    """Where the gradient is at least as steep as on both sides along its own direction.

    A side lies between two neighbours: the nearer of the axes, and the diagonal.
    """
    padded = jnp.pad(steepness, 1)
    height, width = steepness.shape

    def neighbour(by_row: Int[Array, "..."], by_column: Int[Array, "..."]) -> Plane:
        rows = jnp.arange(height)[:, None] + 1 + by_row
        columns = jnp.arange(width)[None, :] + 1 + by_column
        return padded[rows, columns]

    steep = jnp.abs(down) >= jnp.abs(right)
    one_way = jnp.where((down >= 0) == (right >= 0), 1, -1)
    zero = jnp.zeros_like(one_way)
    # The two neighbours on one side; those of the other are opposite.
    axis_row, axis_column = jnp.where(steep, 1, zero), jnp.where(steep, zero, one_way)
    small, large = jnp.minimum(jnp.abs(down), jnp.abs(right)), jnp.maximum(abs(down), abs(right))
    share = small / jnp.where(large > 0, large, 1)
    highest = jnp.ones_like(steep)
    for side in (1, -1):
        axis = neighbour(side * axis_row, side * axis_column)
        diagonal = neighbour(side + zero, side * one_way)
        highest &= diagonal * share + axis * (1 - share) <= steepness
    return highest


def connected(seeds: Mask, region: Mask) -> Mask:
    """What of a region hangs together with a seed, diagonals included."""

    def grow(state: tuple[Mask, Mask]) -> tuple[Mask, Mask]:
        _, now = state
        padded = jnp.pad(now, 1)
        rows = padded[:-2] | padded[1:-1] | padded[2:]
        return now, (rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]) & region

    def growing(state: tuple[Mask, Mask]) -> Bool[Array, ""]:
        return jnp.any(state[0] != state[1])

    return jax.lax.while_loop(growing, grow, (jnp.zeros_like(seeds), seeds))[1]


def _sign(key: PRNGKeyArray) -> Float[Array, ""]:
    return jnp.where(jax.random.bernoulli(key), 1.0, -1.0)


def _always(corruption: Callable[..., Image], **constants: int | float) -> Corruption:
    """A corruption with one constant for all severities."""
    return partial(corruption, **{name: (value,) * LEVELS for name, value in constants.items()})


MNIST_C: Mapping[str, Corruption] = {
    "shot_noise": _always(noise.shot_noise, photons=3.0),
    "impulse_noise": _always(noise.impulse_noise, amount=0.17),
    "glass_blur": glass_blur,
    "motion_blur": _always(blur.motion_blur, radius=10, sigma=3.0),
    "shear": shear,
    "scale": scale,
    "rotate": rotate,
    "brightness": _always(colour.brightness, shift=0.5),
    "translate": translate,
    "stripe": stripe,
    "fog": fog,
    "spatter": spatter,
    "dotted_line": dotted_line,
    "zigzag": zigzag,
    "canny_edges": canny_edges,
}

CATEGORIES: Mapping[str, str] = {
    "shot_noise": "noise",
    "impulse_noise": "noise",
    "glass_blur": "blur",
    "motion_blur": "blur",
    "shear": "geometry",
    "scale": "geometry",
    "rotate": "geometry",
    "translate": "geometry",
    "brightness": "weather",
    "fog": "weather",
    "spatter": "weather",
    "stripe": "strokes",
    "dotted_line": "strokes",
    "zigzag": "strokes",
    "canny_edges": "strokes",
}
