"""Random textures: the plasma that fog is made of, and ice for frost."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from imgrec.corruptions.severity import Number
from imgrec.randomness import named


def plasma(key: PRNGKeyArray, size: int, decay: Number) -> Float[Array, "size size"]:
    """A cloud from 0 to 1 that wraps around, by the diamond-square algorithm.

    Each doubling of the resolution puts a point into the middle of every four, first on the
    diagonals, then on the axes: their mean, plus uniform noise whose amplitude falls by the
    square of `decay` (Fournier, Fussell and Carpenter 1982, "Computer rendering of stochastic
    models"; as varied by the program that made ImageNet-C).

    Args:
      key: of the draws.
      size: of a side, a power of two.
      decay: above 1; the larger, the smoother.
    """
    # One draw for all levels: every draw adds to the time it takes to compile.
    draws = jax.random.uniform(key, (size * size,), minval=-1, maxval=1)
    cloud = jnp.zeros((1, 1))
    for level in range(int(math.log2(size))):
        points = 4**level
        noise = draws[points : 4 * points].reshape(3, *cloud.shape) / decay ** (2 * level)
        beside, below = jnp.roll(cloud, -1, axis=1), jnp.roll(cloud, -1, axis=0)
        middle = (cloud + beside + below + jnp.roll(beside, -1, axis=0)) / 4 + noise[0]
        right = (cloud + beside + middle + jnp.roll(middle, 1, axis=0)) / 4 + noise[1]
        under = (cloud + below + middle + jnp.roll(middle, 1, axis=1)) / 4 + noise[2]
        rows = [jnp.stack(pair, axis=-1) for pair in ((cloud, right), (under, middle))]
        cloud = jnp.stack(rows, axis=1).reshape(2 * len(cloud), -1)
    cloud = cloud - cloud.min()
    return cloud / cloud.max()


_CRYSTAL = 70.0  # side, in pixels of the texture, of the square that holds one crystal


def ice(
    key: PRNGKeyArray, height: int, width: int, grain: int | float
) -> Float[Array, "height width 3"]:
    """Ice on a window pane: feathers of crystals at two scales, under a bluish tone.

    A point belongs to the nearest crystal, which has a direction: barbs leave its spine on
    either side at an angle of 60 degrees. Tone, tint and contrast differ from pane to pane, in
    about the range of the photographs that the published sets are made with.

    Args:
      key: of the draws.
      height: in pixels.
      width: in pixels.
      grain: pixels of the texture to one of the image, by which it is reduced.
    """
    size = 1 << math.ceil(math.log2(max(height, width)))
    veil = plasma(named(key, "veil"), size, 1.6)[:height, :width]
    bent = _CRYSTAL / 2 * veil  # so that spines and barbs are not straight
    rows = grain * jnp.arange(height, dtype=jnp.float32)[:, None] + bent
    columns = grain * jnp.arange(width, dtype=jnp.float32)[None, :] - bent
    extent = (float(grain * height), float(grain * width))
    feathers = _feathers(named(key, "large"), rows, columns, extent, _CRYSTAL)
    feathers += 0.6 * _feathers(named(key, "small"), rows, columns, extent, _CRYSTAL / 2)

    tone, tint, contrast = jax.random.uniform(named(key, "tone"), (3,))
    luma = 0.26 + 0.4 * tone + (0.15 + 0.25 * contrast) * feathers + 0.2 * veil
    blue = jnp.array([-1.0, 0.0, 0.4]) * (0.02 + 0.2 * tint**3)
    return jnp.clip(luma[..., None] + blue, 0, 1)


def _feathers(
    key: PRNGKeyArray,
    rows: Float[Array, "height width"],
    columns: Float[Array, "height width"],
    extent: tuple[float, float],
    side: float,
) -> Float[Array, "height width"]:
    """Brightness of crystals of about a given side, from 0 to about 1.5."""
    count = math.ceil(extent[0] / side + 1) * math.ceil(extent[1] / side + 1)
    draws = jax.random.uniform(key, (count, 3))
    place, angle = draws[:, :2] * jnp.array(extent), 2 * math.pi * draws[:, 2]
    y = rows[..., None] - place[:, 0]
    x = columns[..., None] - place[:, 1]
    nearest = jnp.argmin(y * y + x * x, axis=-1)
    y, x = rows - place[nearest, 0], columns - place[nearest, 1]
    cos, sin = jnp.cos(angle[nearest]), jnp.sin(angle[nearest])
    along, across = x * cos + y * sin, jnp.abs(y * cos - x * sin)
    barb = (along + across / math.sqrt(3)) / (side / 12)
    ridge = jnp.abs(2 * (barb - jnp.floor(barb)) - 1)
    return ridge**2 * jnp.exp(-across / (side / 2)) + 0.5 * jnp.exp(-across / (side / 30))
