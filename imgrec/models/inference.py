"""Forward passes that only infer, in the form that the platform is fast at."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Outputs = TypeVar("Outputs")

CPU_CHUNK = 4
"""Images whose maps stay in a CPU's caches at 224x224; `scripts/bench_latency.py` measures it."""


def in_chunks(
    forward: Callable[[Float[Array, "chunk height width channels"]], Outputs],
    images: Float[Array, "batch height width channels"],
    size: int,
) -> Outputs:
    """`forward(images)`, computed for `size` images at a time, one chunk after the other.

    One program whatever the batch, and the same values but for rounding. The images have to be
    on one device: over several, a batch is cut already.

    Args:
      forward: treats each image on its own, as a network in evaluation mode does; what it
        returns has the batch as the first axis of every array.
      images: any number of them.
      size: of a chunk, at least 1; the last may be smaller.
    """
    count = len(images)
    whole = count // size * size
    if count <= size:
        return forward(images)
    chunks = images[:whole].reshape(-1, size, *images.shape[1:])
    found = jax.tree.map(
        lambda array: array.reshape(whole, *array.shape[2:]), lax.map(forward, chunks)
    )
    if whole == count:
        return found
    rest = forward(images[whole:])
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), found, rest)
