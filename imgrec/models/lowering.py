"""The convolution in the form that the platform is fast at.

On CPUs, XLA's compiler takes some kinds of convolution for what they are not: one of a single
pixel, or of a whole map at once, is a matrix product, which has a faster kernel there, and one
with a group for every channel runs many times slower than the same sum written as one multiply-add
for each weight of the window, which is fused into a single pass over the map.
`scripts/bench_latency.py` measures what these are worth. All others can be left to the C++ kernels
of `imgrec.native`. Other platforms have kernels for all of them.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from imgrec.native import convolution as native


def conv_general_dilated(
    lhs: Float[Array, "batch height width channels"],
    rhs: Float[Array, "rows columns channels_per_group features"],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    feature_group_count: int = 1,
    **others: Any,
) -> Float[Array, "batch height_out width_out features"]:
    """`jax.lax.conv_general_dilated`, to be handed to `flax.linen.Conv`.

    On CPUs it is computed as said above; what is left, and all on other platforms, is XLA's. The
    results differ in rounding.

    Args:
      lhs: maps.
      rhs: kernel, of the same type.
      window_strides: of rows and columns.
      padding: "SAME", "VALID" or (before, after) of rows and of columns.
      feature_group_count: number of groups.
      others: as Flax gives them; `dimension_numbers` are those of these shapes.
    """

    def as_convolution(maps: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            maps, kernel, window_strides, padding, feature_group_count=feature_group_count, **others
        )

    window = rhs.shape[:2]
    pads = padding
    if isinstance(pads, str):
        pads = lax.padtype_to_pads(lhs.shape[1:3], window, window_strides, pads)
    strides, pads = (window_strides[0], window_strides[1]), tuple((a, b) for a, b in pads)
    dilations = (*(others.get("lhs_dilation") or ()), *(others.get("rhs_dilation") or ()))
    if any(dilation != 1 for dilation in dilations):
        return as_convolution(lhs, rhs)
    if window == (1, 1) and feature_group_count == 1 and pads == ((0, 0), (0, 0)):
        return lax.platform_dependent(
            lhs, rhs, cpu=lambda x, w: _as_product(x, w, strides), default=as_convolution
        )
    if window == lhs.shape[1:3] and feature_group_count == 1 and pads == ((0, 0), (0, 0)):
        return lax.platform_dependent(lhs, rhs, cpu=_of_whole_maps, default=as_convolution)
    if feature_group_count == lhs.shape[-1] == rhs.shape[-1]:
        return lax.platform_dependent(
            lhs, rhs, cpu=lambda x, w: _by_taps(x, w, strides, pads), default=as_convolution
        )
    if feature_group_count == 1 and native.fits(lhs.dtype):
        return native.convolve(lhs, rhs, strides, pads)
    return as_convolution(lhs, rhs)


def _as_product(maps: Array, kernel: Array, strides: tuple[int, int]) -> Array:
    """Every pixel that the strides keep, times the matrix of weights."""
    kept = maps[:, :: strides[0], :: strides[1]]
    pixels = math.prod(kept.shape[:3])  # none at all is allowed
    product = kept.reshape(pixels, kept.shape[-1]) @ kernel[0, 0]
    return product.reshape(*kept.shape[:3], kernel.shape[-1])


def _of_whole_maps(maps: Array, kernel: Array) -> Array:
    """One pixel from all there are: a dense layer."""
    product = maps.reshape(len(maps), -1) @ kernel.reshape(-1, kernel.shape[-1])
    return product[:, None, None]


def _by_taps(
    maps: Array, kernel: Array, strides: tuple[int, int], padding: tuple[tuple[int, int], ...]
) -> Array:
    """The sum over the window's positions of the shifted maps, each times its weights.

    Summed in float32 whatever the type.
    """
    rows, columns = kernel.shape[:2]
    padded = jnp.pad(maps, ((0, 0), *padding, (0, 0)))
    batch, height, width, channels = padded.shape
    total: Array = jnp.zeros((), jnp.float32)
    for row in range(rows):
        for column in range(columns):
            first = 0, row, column, 0
            end = batch, height - rows + row + 1, width - columns + column + 1, channels
            shifted = lax.slice(padded, first, end, (1, *strides, 1))
            total += shifted.astype(jnp.float32) * kernel[row, column, 0].astype(jnp.float32)
    return total.astype(maps.dtype)
