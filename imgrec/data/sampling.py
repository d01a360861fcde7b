"""Which example comes when: the endless training stream as a pure function of (seed, slot).

An epoch is a block of slots. The positions of a split lie in strata (one, or one a class, or
one a data set of a mixture); each stratum gets a fixed number of slots in every epoch and
fills them from permutations of its own, laid end to end. So within a stratum no example comes
a second time before all others have come once, whatever the weights are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64

from imgrec.data import order
from imgrec.errors import UserError

_INTERLEAVE = 2**62  # streams of the Philox key: below it the strata's own, above the splits'
_STRATUM = 2**40  # more epochs than a stratum will ever have


@dataclass(frozen=True, eq=False)
class Sampling:
    """How a training stream visits a split.

    Attributes:
      strata: positions in the split, each in at most one stratum.
      slots: of each stratum in every epoch; their sum is the length of an epoch.
    """

    strata: tuple[Int64[np.ndarray, "_"], ...]
    slots: tuple[int, ...]

    def __len__(self) -> int:
        """Examples of an epoch."""
        return sum(self.slots)

    def epoch(self, seed: int, epoch: int) -> Int64[np.ndarray, "examples"]:
        """The positions that an epoch visits, in order."""
        drawn = [
            positions[self._draws(seed, stratum, epoch)]
            for stratum, positions in enumerate(self.strata)
        ]
        if len(drawn) == 1:
            return drawn[0]
        whose = np.repeat(np.arange(len(drawn)), self.slots)
        whose = whose[order.permutation(len(self), (seed, _INTERLEAVE + epoch))]
        visited = np.empty(len(self), np.int64)
        for stratum, positions in enumerate(drawn):
            visited[whose == stratum] = positions
        return visited

    def _draws(self, seed: int, stratum: int, epoch: int) -> Int64[np.ndarray, "slots"]:
        """Which members of a stratum fill its slots of an epoch."""
        n, slots = len(self.strata[stratum]), self.slots[stratum]
        start, stop = epoch * slots, (epoch + 1) * slots
        return np.concatenate(
            [
                order.permutation(n, (seed, stratum * _STRATUM + turn))[
                    max(start - turn * n, 0) : stop - turn * n
                ]
                for turn in range(start // n, (stop - 1) // n + 1)
            ]
        )


def shuffled(n: int) -> Sampling:
    """Every one of `n` examples once an epoch."""
    return Sampling((np.arange(n),), (n,))


def class_balanced(labels: Int32[np.ndarray, "examples"]) -> Sampling:
    """Each class equally often; an epoch is as long as without balancing."""
    strata = tuple(np.flatnonzero(labels == label) for label in np.unique(labels))
    return Sampling(strata, apportion(len(labels), [1.0] * len(strata)))


def mixture(sizes: Sequence[int], weights: Sequence[float], names: Sequence[str]) -> Sampling:
    """Data sets laid end to end in one split, drawn by weight.

    An epoch visits every example of the first set once, and of each other set as many as its
    weight beside the first's says.

    Args:
      sizes: examples of each set, in the order they lie in the split.
      weights: of each set, positive.
      names: of each set, for the error.

    Raises:
      UserError: a weight so small that a set would not get one example an epoch.
    """
    ends = np.cumsum(sizes)
    strata = tuple(
        np.arange(end - size, end) for size, end in zip(sizes, ends.tolist(), strict=True)
    )
    slots = [sizes[0], *(round(sizes[0] * weight / weights[0]) for weight in weights[1:])]
    for name, weight, count in zip(names, weights, slots, strict=True):
        if count < 1:
            raise UserError(
                f"config.data.mixture gives {name!r} the weight {weight:g}, less than one example "
                f"in an epoch of {sizes[0]:,}. At least {weights[0] / sizes[0]:.2g} counts."
            )
    return Sampling(strata, tuple(slots))


def apportion(total: int, weights: Sequence[float]) -> tuple[int, ...]:
    """Whole numbers that sum to `total`, in proportion to the weights.

    Largest remainders get what rounding down leaves over; equal ones go to the smaller index.
    """
    exact = np.asarray(weights, np.float64) / sum(weights) * total
    counts = np.floor(exact).astype(np.int64)
    leftover = total - int(counts.sum())
    counts[np.argsort(-(exact - counts), kind="stable")[:leftover]] += 1
    return tuple(counts.tolist())
