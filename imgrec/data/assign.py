"""Which split an image belongs to, decided by what it is: adding others moves none.

Each image has a key, a hash of its bytes or of the group it belongs to. The key and a seed make
a number in [0, 1), and the shares cut that interval in three: test, validation, train. So a
share is kept in expectation, in every class; equal images, and a group, always stay together.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int, UInt64

from imgrec.errors import UserError

SPLITS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)
UNDECIDED = -1  # of an image whose split is not given
_SEEDS_TRIED = 1000
_FEW = 2000  # images, of a class that may come to lack some in a split of a percent


def share(text: str, field: str) -> float:
    """The number in [0, 1) that "10%" means.

    Raises:
      UserError: it is no share: a count cannot be kept where images may be added.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*|\s*0+\s*", text)
    if match is None:
        raise UserError(
            f"config.data.{field}={text!r} is not a share such as '10%'. Images of your own are "
            "split by their content, so that adding some moves none, and that keeps shares, not "
            f"counts. Write for example --config.data.{field}=10%, or name each image's split in "
            "a manifest's column 'split'."
        )
    return float(match[1] or 0) / 100


def check_shares(test: float, validation: float) -> None:
    """Refuses shares that leave nothing to test or to train on."""
    if test == 0:
        raise UserError(
            "config.data.test='0%' leaves no image to test on, and a run ends with a test. Set a "
            "share such as --config.data.test=10%."
        )
    if test + validation >= 1:
        raise UserError(
            f"config.data.test={test:.4g} and config.data.validation={validation:.4g} of all "
            "images leave none to train on. Ask for less, for example --config.data.test=10%."
        )


def key(content: str) -> int:
    """The 64 bits that stand for a hash or the name of a group."""
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "little")


def assign(
    keys: UInt64[np.ndarray, "images"], seed: int, test: float, validation: float
) -> Int[np.ndarray, "images"]:
    """TRAIN, VALIDATION or TEST of each image.

    The test interval depends on `test` and the seed alone, so that another validation share
    leaves the test split as it is.

    Args:
      keys: of the images.
      seed: `config.data.split_seed`.
      test: share of test images.
      validation: share of validation images.
    """
    place = _place(keys, seed)
    return np.where(place < test, TEST, np.where(place < test + validation, VALIDATION, TRAIN))


def _place(keys: UInt64[np.ndarray, "n"], seed: int) -> Float64[np.ndarray, "n"]:
    """Uniform in [0, 1), by the finaliser of splitmix64 (Steele et al. 2014, fig. 16)."""
    z = keys + np.uint64((2 * seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


@dataclass(frozen=True)
class Cut:
    """Images, and what of their splits is given.

    Attributes:
      keys: of the images.
      labels: likewise.
      given: the split of each, or UNDECIDED for all. Of given splits, those that have no image
        are cut from train.
      num_classes: labels are below it.
      test: share of test images, where they are not given.
      validation: likewise; 0 for none.
    """

    keys: UInt64[np.ndarray, "images"]
    labels: Int[np.ndarray, "images"]
    given: Int[np.ndarray, "images"]
    num_classes: int
    test: float
    validation: float

    def by(self, seed: int) -> Int[np.ndarray, "images"]:
        """The split of each image."""
        return self._by(seed, np.arange(len(self.keys)))

    def _by(self, seed: int, rows: np.ndarray) -> np.ndarray:
        drawn = assign(self.keys[rows], seed, self.test, self.validation)
        if not self.present:
            return drawn
        given = self.given[rows]
        return np.where((given == TRAIN) & ~np.isin(drawn, self.present), drawn, given)

    @cached_property
    def present(self) -> list[int]:
        """The splits that are given."""
        return [int(split) for split in np.unique(self.given) if split != UNDECIDED]

    @property
    def wanted(self) -> list[int]:
        """The splits that are to have images of every class."""
        return sorted({TRAIN, TEST, *self.present, *([VALIDATION] if self.validation else [])})

    @property
    def drawn(self) -> bool:
        """Whether the seed decides anything."""
        return self.present != self.wanted

    def lacking(self, splits: Int[np.ndarray, "images"]) -> list[tuple[int, int]]:
        """The pairs (label, split) without an image."""
        counts = _counts(splits, self.labels, self.num_classes)
        return [
            (label, split)
            for label in range(self.num_classes)
            for split in self.wanted
            if not counts[label, split]
        ]

    def seed_that_works(self) -> int | None:
        """The smallest seed below 1000 that leaves no class out of a split, or None."""
        sizes = np.bincount(self.labels, minlength=self.num_classes)
        if not self.drawn or sizes.min() < len(self.wanted):
            return None
        few = sizes <= _FEW  # only these are counted over and over: chance leaves out no other
        rows = np.flatnonzero(few[self.labels])
        for seed in range(_SEEDS_TRIED):
            counts = _counts(self._by(seed, rows), self.labels[rows], self.num_classes)
            if counts[few][:, self.wanted].all() and not self.lacking(self.by(seed)):
                return seed
        return None


def _counts(
    splits: Int[np.ndarray, "images"], labels: Int[np.ndarray, "images"], num_classes: int
) -> Int[np.ndarray, "{num_classes} 3"]:
    """Images of each class in each split."""
    counts = np.zeros((num_classes, len(SPLITS)), np.int64)
    np.add.at(counts, (labels, splits), 1)
    return counts
