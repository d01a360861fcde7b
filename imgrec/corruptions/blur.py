"""Blur: defocus, frosted glass, motion, zoom and Gaussian.

The five of Hendrycks and Dietterich (2019, arXiv:1903.12261). Each takes its tables of
constants, one row for each severity; lengths are in pixels.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from imgrec.corruptions import filters
from imgrec.corruptions.severity import Constants, Image, Severity, at


def gaussian_blur(
    image: Image, key: PRNGKeyArray, severity: Severity, *, sigma: Constants
) -> Image:
    """Convolved with a Gaussian of standard deviation `sigma`."""
    return filters.gaussian(image, at(severity, sigma), largest=max(sigma))


def defocus_blur(
    image: Image,
    key: PRNGKeyArray,
    severity: Severity,
    *,
    radius: Constants,
    sigma: Constants,
) -> Image:
    """Convolved with a disc, whose edge is smoothed by a Gaussian of 3 or 5 pixels."""
    kernel = at(severity, _discs(radius, sigma))
    margin = kernel.shape[0] // 2
    padded = jnp.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    blurred = jax.lax.conv_general_dilated(
        padded.transpose(2, 0, 1)[:, None],
        kernel[None, None],
        window_strides=(1, 1),
        padding="VALID",
        precision=jax.lax.Precision.HIGHEST,
    )
    return jnp.clip(blurred[:, 0].transpose(1, 2, 0), 0, 1)


def _discs(radii: Constants, sigmas: Constants) -> Float[np.ndarray, "levels k k"]:
    """One kernel a severity, all of the size of the largest, without margins of zeros."""
    kernels = [_disc(radius, sigma) for radius, sigma in zip(radii, sigmas, strict=True)]
    size = max(map(len, kernels))
    table = np.stack([np.pad(kernel, (size - len(kernel)) // 2) for kernel in kernels])
    margin = min(np.argwhere(table.any(axis=0)).min(), size // 2)
    return table[:, margin : size - margin, margin : size - margin]


def _disc(radius: int | float, sigma: int | float) -> Float[np.ndarray, "k k"]:
    reach, taps = (8, 3) if radius <= 8 else (int(radius), 5)
    squares = np.arange(-reach, reach + 1) ** 2
    disc = (squares[:, None] + squares[None, :] <= radius**2).astype(np.float64)
    disc /= disc.sum()
    bell = np.exp(-0.5 * (np.arange(taps) - taps // 2) ** 2 / sigma**2)
    bell /= bell.sum()
    for axis in (0, 1):
        disc = np.apply_along_axis(
            lambda row: np.convolve(np.pad(row, taps // 2, mode="reflect"), bell, "valid"),
            axis,
            disc,
        )
    return disc


def motion_blur(
    image: Image,
    key: PRNGKeyArray,
    severity: Severity,
    *,
    radius: Sequence[int],
    sigma: Constants,
) -> Image:
    """Smeared in a direction up to 45 degrees from the horizontal."""
    degrees = jax.random.uniform(key, minval=-45, maxval=45)
    return filters.smear(
        image, degrees, at(severity, radius), at(severity, sigma), longest=max(radius)
    )


def zoom_blur(
    image: Image,
    key: PRNGKeyArray,
    severity: Severity,
    *,
    stop: Constants,
    step: Constants,
) -> Image:
    """The mean of the image and its enlargements by 1, 1 + step, ... below `stop`."""
    factors = [np.arange(1, *ends) for ends in zip(stop, step, strict=True)]
    counts = [len(row) for row in factors]
    padded = [np.pad(row, (0, max(counts) - len(row)), constant_values=1) for row in factors]
    rows, columns = (
        at(severity, np.stack([filters.zoom_points(length, row) for row in padded]))
        for length in image.shape[:2]
    )
    count = at(severity, counts)

    def add(i: Int[Array, ""], total: Image) -> Image:
        return total + jnp.where(i < count, filters.read_grid(image, rows[i], columns[i]), 0)

    return jax.lax.fori_loop(0, max(counts), add, image) / (count + 1)


def glass_blur(
    image: Image,
    key: PRNGKeyArray,
    severity: Severity,
    *,
    sigma: Constants,
    reach: Sequence[int],
    rounds: Sequence[int],
) -> Image:
    """Each pixel read from a random neighbour, between two Gaussian blurs.

    `rounds` times, from the last pixel to the first, a pixel takes the value that a pixel up to
    `reach` away has by then. The published program means to swap the two; by numpy's aliasing
    both become the second, and so the published images are.
    """
    width = at(severity, sigma)
    image = filters.levels(filters.gaussian(image, width, largest=max(sigma)))

    far, times = at(severity, reach), at(severity, rounds)

    def shuffle(i: Int[Array, ""], image: Image) -> Image:
        draw = jax.random.fold_in(key, i)
        sources = _sources(jax.random.randint(draw, (2, *image.shape[:2]), -far, far), far)
        pixels = image.reshape(-1, image.shape[-1])
        shuffled = pixels.at[sources].get(mode="promise_in_bounds").reshape(image.shape)
        return jnp.where(i < times, shuffled, image)

    shuffled = jax.lax.fori_loop(0, max(rounds), shuffle, image)
    return jnp.clip(filters.gaussian(shuffled / 255, width, largest=max(sigma)), 0, 1)


_DOUBLINGS = 7  # a pixel's chain goes on with a probability below 1/2, so 2^7 steps do


def _sources(
    moves: Int[Array, "2 height width"], reach: Int[Array, ""]
) -> Int[Array, " height*width"]:
    """Where the values of a round come from: the sequential copying, solved at once.

    A pixel that reads one further on gets what that one has got before: the chain is followed to
    its end, twice as far at each doubling. A border of `reach` pixels stays, but for one row and
    column less at the bottom and on the right.

    Args:
      moves: rows and columns to each pixel's neighbour, from -reach to reach - 1.
      reach: in pixels.
    """
    _, height, width = moves.shape
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    own = rows * width + columns
    taken = (rows > reach) & (rows <= height - reach) & (columns > reach)
    taken &= columns <= width - reach
    target = jnp.where(taken, own + moves[0] * width + moves[1], own).ravel()
    chain = jnp.maximum(target, own.ravel())
    for _ in range(_DOUBLINGS):
        chain = chain.at[chain].get(mode="promise_in_bounds")
    return target.at[chain].get(mode="promise_in_bounds")
