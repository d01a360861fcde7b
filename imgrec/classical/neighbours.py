"""The k nearest neighbours, exactly, searched on the devices.

|q - a|^2 = |q|^2 - 2 q.a + |a|^2 turns the search into a product of matrices, which is what
devices are fast at, and which rounds. So the devices only propose: a few neighbours more than are
asked for. Their distances are then computed again, in float64 and difference by difference. A
bound on the rounding proves that no other can be nearer; where it does not, that query is
compared with everyone. Of equal distances the lower row is the nearer neighbour.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float32, Float64, Int64

_SPARE = 8  # proposed beyond the k
_QUERIES = 512  # on a device at a time: with 60,000 rows an eighth of a gigabyte
_UNIT = 2.0**-24  # what a float32 operation errs by, relatively


def nearest(
    known: Float32[np.ndarray, "n features"],
    queries: Float32[np.ndarray, "m features"],
    k: int,
    *,
    shown: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Float64[np.ndarray, "m k"], Int64[np.ndarray, "m k"]]:
    """Euclidean distances of the k nearest, rising, and their rows.

    Args:
      known: rows that are searched.
      queries: rows whose neighbours are wanted.
      k: from 1 to n.
      shown: is told how many queries are done, of how many.
    """
    if not 1 <= k <= len(known):
        raise ValueError(f"k={k} of {len(known)} rows.")
    mesh = Mesh(np.array(jax.local_devices()), ("queries",))
    step = _QUERIES * mesh.size
    search = _search(mesh, min(k + _SPARE, len(known)))
    squares = np.einsum("nd,nd->n", known, known, dtype=np.float64)
    placed = jax.device_put(known), jax.device_put(squares.astype(np.float32))
    distances, rows = np.empty((len(queries), k)), np.empty((len(queries), k), np.int64)
    longest = float(np.sqrt(squares.max(initial=0)))
    pending = None
    for start in range(0, len(queries) + step, step):
        # The device looks for the next while the host checks what it has found.
        asked = queries[start : start + step]
        found = None
        if len(asked):
            padded = np.zeros((_rounded(len(asked), step, mesh.size), known.shape[1]), np.float32)
            padded[: len(asked)] = asked
            found = start, asked, search(*placed, padded)
        if pending is not None:
            at, questions, proposed = pending
            part = slice(at, at + len(questions))
            distances[part], rows[part] = _checked(known, questions, proposed, k, longest)
            shown(at + len(questions), len(queries))
        pending = found
    return distances, rows


def _rounded(n: int, most: int, devices: int) -> int:
    """The next power of two that the devices share, so that few shapes are compiled."""
    size = most
    while size % (2 * devices) == 0 and size // 2 >= n:
        size //= 2
    return size


@functools.lru_cache(maxsize=8)
def _search(mesh: Mesh, k: int) -> Callable[..., tuple[Array, Array]]:
    """(known, its squares, queries) -> the k least |a|^2 - 2 q.a, and their rows."""

    def some(known: Array, squares: Array, queries: Array) -> tuple[Array, Array]:
        product = jnp.matmul(queries, known.T, precision=jax.lax.Precision.HIGHEST)
        found, rows = jax.lax.top_k(2 * product - squares, k)
        return -found, rows

    spread = jax.shard_map(
        some,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(), PartitionSpec("queries")),
        out_specs=PartitionSpec("queries"),
    )
    return jax.jit(spread)


def _checked(
    known: np.ndarray,
    queries: np.ndarray,
    proposed: tuple[Array, Array],
    k: int,
    longest: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of each query, among those proposed where that is proven."""
    least, rows = (np.asarray(x)[: len(queries)].astype(np.float64) for x in proposed)
    rows = np.sort(rows.astype(np.int64), axis=1)  # so that of equals the lower comes first
    squared = np.stack(
        [_squared(known[some], query) for some, query in zip(rows, queries, strict=True)]
    )
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    rows = np.take_along_axis(rows, order, axis=1)
    squared = np.take_along_axis(squared, order, axis=1)
    if least.shape[1] < len(known):
        # Of D products and their sum, |error| <= D u / (1 - D u) |q||a| (Higham 2002, 3.1), and
        # the subtraction and |a|^2 round once more each.
        length = np.sqrt(np.einsum("md,md->m", queries, queries, dtype=np.float64))
        terms = (known.shape[1] + 4) * _UNIT
        reach = 2 * length * longest + longest**2
        error = terms / (1 - terms) * reach
        # Whoever was not proposed has no less than the last that was.
        unproven = least[:, -1] - error + length**2 <= squared[:, -1]
        for i in np.flatnonzero(unproven):
            everyone = _squared(known, queries[i])
            rows[i] = np.argsort(everyone, kind="stable")[:k]
            squared[i] = everyone[rows[i]]
    return np.sqrt(squared), rows


def _squared(rows: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Squared distances, in float64."""
    difference = rows.astype(np.float64) - query.astype(np.float64)
    return np.einsum("nd,nd->n", difference, difference)
