"""Ways to turn a foreign array into ours and back, each exact and its own inverse's inverse.

PyTorch keeps a convolution's weights as [out, in, height, width] and a layer's as [out, in];
Flax keeps [height, width, in, out] and [in, out].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float32

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Turn:
    """A way from the arrays of an entry to ours, and back.

    `into(out(ours))` and `out(into(theirs))` are the arrays one began with, bit for bit;
    `out` alone also says of which shapes the foreign arrays have to be.
    """

    into: Callable[[Arrays], Arrays]
    out: Callable[[Arrays], Arrays]

    def then(self, other: "Turn") -> "Turn":
        """This turn first, on the way in."""
        return Turn(
            into=lambda arrays: other.into(self.into(arrays)),
            out=lambda arrays: self.out(other.out(arrays)),
        )


SAME = Turn(into=lambda arrays: arrays, out=lambda arrays: arrays)


def transposed(*axes: int) -> Turn:
    """Axes in another order; axis `axes[i]` of theirs is axis i of ours."""
    back = tuple(int(i) for i in np.argsort(axes))
    return Turn(
        into=lambda arrays: tuple(array.transpose(axes) for array in arrays),
        out=lambda arrays: tuple(array.transpose(back) for array in arrays),
    )


# Grouped and depthwise convolutions too: [out, in / groups, h, w] is [h, w, in / groups, out].
CONV = transposed(2, 3, 1, 0)
LINEAR = transposed(1, 0)
# A 1x1 convolution there, [out, in, 1, 1], where a dense layer is here.
PIXEL = Turn(
    into=lambda arrays: tuple(array[:, :, 0, 0] for array in arrays),
    out=lambda arrays: tuple(array[:, :, None, None] for array in arrays),
).then(LINEAR)


def reordered(order: Sequence[int], axis: int) -> Turn:
    """Channels in another order: ours at position i is theirs at `order[i]`."""
    back = np.argsort(order)
    return Turn(
        into=lambda arrays: tuple(np.take(array, order, axis) for array in arrays),
        out=lambda arrays: tuple(np.take(array, back, axis) for array in arrays),
    )


def shaped(theirs: Sequence[int], ours: Sequence[int]) -> Turn:
    """The same numbers in the same order under another shape; one of each may be -1."""
    return Turn(
        into=lambda arrays: tuple(array.reshape(ours) for array in arrays),
        out=lambda arrays: tuple(array.reshape(theirs) for array in arrays),
    )


def fused(parts: int) -> Turn:
    """One foreign array, along its first axis, is so many of ours (query, key and value)."""
    return Turn(
        into=lambda arrays: tuple(np.split(arrays[0], parts, axis=0)),
        out=lambda arrays: (np.concatenate(arrays, axis=0),),
    )


def resized(
    positions: Float32[np.ndarray, "1 tokens width"], grid: tuple[int, int], prefix: int
) -> Float32[np.ndarray, "1 new_tokens width"]:
    """Position embeddings of a square grid for a grid of another shape.

    They are interpolated bicubically over the image, smoothed where the grid shrinks, as
    timm does it (and Pillow with photographs), and not bilinearly as big_vision does it.

    Args:
      positions: those of `prefix` tokens that are nowhere in the image, then those of the
        grid, row by row.
      grid: new rows and columns.
      prefix: how many tokens come first; their embeddings stay.
    """
    _, tokens, width = positions.shape
    side = round((tokens - prefix) ** 0.5)
    old = positions[0, prefix:].reshape(side, side, width)
    new = jax.image.resize(old, (*grid, width), "bicubic", antialias=True)
    flat = np.asarray(new).reshape(grid[0] * grid[1], width)
    return np.concatenate([positions[0, :prefix], flat])[None]
