"""Counter-based permutations: a pure function of a key, on every machine and numpy version.

The order comes from sorting the raw words of the Philox bit generator (Salmon et al., 2011,
"Parallel random numbers: as easy as 1, 2, 3"). Its raw stream is fixed for good, which numpy
does not promise of `Generator.permutation`.
"""

import numpy as np
from jaxtyping import Int64, UInt64


def permutation(n: int, key: tuple[int, int]) -> Int64[np.ndarray, "{n}"]:
    """The numbers 0 to n - 1 in an order that only `n` and `key` decide."""
    return np.argsort(words(n, key), kind="stable").astype(np.int64)


def words(n: int, key: tuple[int, int], stream: int = 0) -> UInt64[np.ndarray, "{n}"]:
    """`n` uniform 64-bit words of the Philox stream with this key (two numbers below 2**64).

    `stream` is the highest word of the counter: streams of one key never overlap.
    """
    counter = np.array([0, 0, 0, stream], np.uint64)
    return np.random.Philox(key=np.array(key, np.uint64), counter=counter).random_raw(n)
