"""Ways to a lower resolution without parameters, padded as the papers' networks did."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Float32

Maps = Float[Array, "batch height width channels"]
SmallerMaps = Float[Array, "batch height_out width_out channels"]


def max_pool_3x3(x: Maps, *, strides: int) -> SmallerMaps:
    """The largest of 3x3 pixels, with a border that never is; n pixels become ceil(n / strides)."""
    return nn.max_pool(x, (3, 3), (strides, strides), padding=((1, 1), (1, 1)))


def max_pool_2x2(x: Maps) -> SmallerMaps:
    """The largest of each 2x2 square, whose first of equals takes the gradient.

    An odd last row or column is dropped. As comparisons of quarters of the map this costs a CPU a
    fraction of a window that is reduced, and scattered to in the backward pass.
    """
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    largest, *others = (x[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1))
    for other in others:
        largest = jnp.where((other > largest) | jnp.isnan(other), other, largest)
    return largest


def halving_mean(x: Maps) -> SmallerMaps:
    """The mean of each 2x2 square; n pixels become ceil(n / 2).

    The squares of the last row and column of odd maps hold fewer pixels, and their mean is
    that of those alone.
    """
    _, height, width, _ = x.shape
    border = ((0, height % 2), (0, width % 2))
    return nn.avg_pool(x, (2, 2), (2, 2), padding=border, count_include_pad=False)


def blur_pool(x: Maps) -> SmallerMaps:
    """Every other pixel of the maps smoothed by [1, 2, 1] / 4 each way; n become ceil(n / 2).

    Without the smoothing, what is finer than the new resolution comes back as something
    else, and a shift of the image by a pixel changes the answer. Borders are mirrored.
    Zhang 2019, "Making Convolutional Networks Shift-Invariant Again", section 3.2,
    https://arxiv.org/abs/1904.11486.
    """
    for axis in (1, 2):
        size = x.shape[axis]
        border = [(1, 1) if a == axis else (0, 0) for a in range(4)]
        padded = jnp.moveaxis(jnp.pad(x, border, mode="reflect"), axis, 0)
        left, middle, right = (padded[i : i + size : 2] for i in range(3))
        x = jnp.moveaxis((left + 2 * middle + right) / 4, 0, axis)
    return x


def adaptive_mean(x: Maps, size: int) -> SmallerMaps:
    """Maps of size x size pixels, each the mean of its share of the image, whatever its size.

    Output pixel i of n averages input pixels floor(i n / size) to ceil((i + 1) n / size), so
    that shares overlap where `size` does not divide n, and repeat where n is smaller.
    """
    _, height, width, _ = x.shape
    if height != size:
        x = jnp.einsum("ij,bjwc->biwc", jnp.asarray(_shares(height, size), x.dtype), x)
    if width != size:
        x = jnp.einsum("ij,bhjc->bhic", jnp.asarray(_shares(width, size), x.dtype), x)
    return x


def _shares(pixels: int, size: int) -> Float32[np.ndarray, "size pixels"]:
    """Weights of the input pixels in each output pixel."""
    first = np.arange(size) * pixels // size
    last = -(-(np.arange(size) + 1) * pixels // size)
    position = np.arange(pixels)
    inside = (position >= first[:, None]) & (position < last[:, None])
    return (inside / inside.sum(1, keepdims=True)).astype(np.float32)
