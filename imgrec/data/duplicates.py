"""Copies among images: the same pixels, and the same picture encoded or sized otherwise.

All pairs are compared, in two stages. Hamming distances of the two perceptual hashes leave a
few candidates; a candidate is a near-duplicate if its thumbnails correlate. Nothing is sampled
and no index has a blind spot: 70,000 images take seconds, ImageNet's 1.3 million less time than
decoding them.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped, UInt8, UInt64

# See the tests for what these find (of copies re-encoded at quality 50 to 90 and resized) and
# what they take for a copy that is none.
MOST_BITS = 14  # of 64 in which each of the two hashes may differ
LEAST_CORRELATION = 0.985  # of the thumbnails' values
PLAIN = 4.0  # standard deviation below which a thumbnail shows too little to recognise

_ROWS, _COLUMNS = 256, 4096  # of a tile of the matrix of distances: 8 MiB
_AT_ONCE = 1 << 12  # candidates whose thumbnails are compared
_DENSE = 0.005  # share of candidates in a tile from which on the whole tile is compared


@dataclass(frozen=True, eq=False)
class Near:
    """Near-duplicates.

    Attributes:
      pairs: (smaller, larger) positions, ascending.
      correlations: of the thumbnails of each.
    """

    pairs: Int64[np.ndarray, "pairs 2"]
    correlations: Float32[np.ndarray, "pairs"]


def exact(hashes: Shaped[np.ndarray, "images"]) -> list[Int64[np.ndarray, "members"]]:
    """Groups of two and more positions with equal hashes, each ascending, by first member."""
    order = np.argsort(hashes.view(f"S{hashes.dtype.itemsize}"), kind="stable")
    ordered = hashes[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(order) else order
    groups = [group for group in np.split(order, starts[1:]) if len(group) > 1]
    return sorted(groups, key=lambda group: int(group[0]))


def near(
    along_rows: UInt64[np.ndarray, "images"],
    along_columns: UInt64[np.ndarray, "images"],
    thumbnails: UInt8[np.ndarray, "images 256"],
    least: float = LEAST_CORRELATION,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Near:
    """All pairs of images that show the same, as far as hashes and thumbnails tell.

    Images too plain to recognise (`plain`) are left out.

    Args:
      along_rows: see `Fingerprints`.
      along_columns: likewise.
      thumbnails: likewise.
      least: correlation of the thumbnails from which on two images are near-duplicates.
      workers: threads.
      progress: called with the tiles' rows done and in all.
    """
    kept = np.flatnonzero(~plain(thumbnails))
    rows, columns, small = along_rows[kept], along_columns[kept], thumbnails[kept]

    def band(first: int) -> tuple[np.ndarray, np.ndarray]:
        found = [
            _verified(a[part : part + _AT_ONCE], b[part : part + _AT_ONCE], small, least)
            for a, b in _candidates(rows, columns, small, first, least)
            for part in range(0, len(a), _AT_ONCE)
        ]
        if not found:
            return np.zeros((0, 2), np.int64), np.zeros(0, np.float32)
        return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])

    pairs, correlations = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
    starts = range(0, len(kept), _ROWS)
    with ThreadPoolExecutor(workers, thread_name_prefix="near") as pool:
        for done, (some, values) in enumerate(pool.map(band, starts), start=1):
            pairs.append(kept[some])
            correlations.append(values)
            progress(done, len(starts))
    together = np.concatenate(pairs)
    order = np.lexsort((together[:, 1], together[:, 0]))
    return Near(together[order], np.concatenate(correlations)[order])


def plain(thumbnails: UInt8[np.ndarray, "images 256"]) -> Bool[np.ndarray, "images"]:
    """Which images show too little to recognise: an empty page, a black frame."""
    blocks = [
        thumbnails[first : first + _COLUMNS].std(axis=1, dtype=np.float32) < PLAIN
        for first in range(0, len(thumbnails), _COLUMNS)
    ]
    return np.concatenate([np.zeros(0, bool), *blocks])


def _candidates(
    rows: UInt64[np.ndarray, "images"],
    columns: UInt64[np.ndarray, "images"],
    thumbnails: UInt8[np.ndarray, "images 256"],
    first: int,
    least: float,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of one of the `_ROWS` images from `first` on with a later one, of close hashes."""
    last = min(first + _ROWS, len(rows))
    ours = _normalised(thumbnails[first:last])
    for begin in range(first, len(rows), _COLUMNS):
        end = min(begin + _COLUMNS, len(rows))
        close = np.bitwise_count(rows[first:last, None] ^ rows[None, begin:end]) <= MOST_BITS
        if np.count_nonzero(close) > _DENSE * close.size:
            # Drawings on an empty page have most of their hashes in common; of so many
            # candidates one product of matrices is quicker than the pairs one by one.
            close &= ours @ _normalised(thumbnails[begin:end]).T >= least - 1e-3
        a, b = np.divmod(np.flatnonzero(close), end - begin)
        a, b = a + first, b + begin
        good = (b > a) & (np.bitwise_count(columns[a] ^ columns[b]) <= MOST_BITS)
        if good.any():
            yield a[good], b[good]


def _verified(
    a: Int64[np.ndarray, "candidates"],
    b: Int64[np.ndarray, "candidates"],
    thumbnails: UInt8[np.ndarray, "images 256"],
    least: float,
) -> tuple[Int64[np.ndarray, "pairs 2"], Float32[np.ndarray, "pairs"]]:
    left, right = _normalised(thumbnails[a]), _normalised(thumbnails[b])
    correlations = np.einsum("pv,pv->p", left, right)
    good = correlations >= least
    return np.stack([a[good], b[good]], axis=1), correlations[good]


def _normalised(thumbnails: UInt8[np.ndarray, "images 256"]) -> Float32[np.ndarray, "images 256"]:
    """With mean 0 and length 1, so that products are correlations."""
    values = thumbnails.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    values /= np.sqrt(np.einsum("iv,iv->i", values, values))[:, None]
    return values
