"""Training splits made scarce, long-tailed or noisy on purpose, for studies.

All of it is decided by `data.split_seed`, so that the seeds of a study share their data; only
training rows are touched, never validation or test.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int32, Int64, Shaped, UInt64

from imgrec.data import order
from imgrec.data.dataset import Batch, Example, Source
from imgrec.errors import UserError

_CAP, _TAIL, _NOISE_WHICH, _NOISE_WHERE = (2**63 + 1 + i for i in range(4))  # Philox streams

# Patrini et al. 2017, arXiv:1609.03683, section 5: classes that people confuse.
_CONFUSED: Mapping[str, Mapping[str, str]] = {
    "cifar10": {
        "truck": "automobile",
        "bird": "airplane",
        "deer": "horse",
        "cat": "dog",
        "dog": "cat",
    },
    "mnist": {"2": "7", "3": "8", "5": "6", "6": "5", "7": "1"},
}


def per_class(
    labels: Int32[np.ndarray, "rows"], count: int, seed: int
) -> Int64[np.ndarray, "kept"]:
    """`count` rows of each class, or all of a class that has no more, ascending.

    A larger count keeps all that a smaller one keeps.
    """
    return _first_of_each(labels, dict.fromkeys(np.unique(labels).tolist(), count), seed, _CAP)


def long_tailed(
    labels: Int32[np.ndarray, "rows"], num_classes: int, imbalance: float, seed: int
) -> Int64[np.ndarray, "kept"]:
    """Rows whose class sizes fall exponentially, the first class `imbalance` times the last.

    The CIFAR-LT protocol (Cui et al. 2019, arXiv:1901.05555, section 5.1): class i of C keeps
    n * imbalance^(-i / (C - 1)) rows, rounded down, where n is the mean class size.

    Raises:
      UserError: a class would be left with nothing.
    """
    largest = len(labels) / num_classes
    exponents = np.arange(num_classes) / max(1, num_classes - 1)
    # The last class is to have n / imbalance rows even where the power falls short of it by
    # one rounding.
    counts = np.floor(largest * float(imbalance) ** -exponents + 1e-9).astype(int)
    if counts[-1] < 1:
        raise UserError(
            f"config.data.imbalance={imbalance:g} leaves less than one image of the last class, "
            f"out of {largest:g}. The most that {len(labels):,} training images allow is "
            f"{int(largest)}."
        )
    return _first_of_each(labels, dict(enumerate(counts.tolist())), seed, _TAIL)


def _first_of_each(
    labels: Int32[np.ndarray, "rows"], counts: Mapping[int, int], seed: int, stream: int
) -> Int64[np.ndarray, "kept"]:
    shuffled = order.permutation(len(labels), (seed, stream))
    kept = [shuffled[labels[shuffled] == label][:count] for label, count in counts.items()]
    return np.sort(np.concatenate(kept))


def noisy(
    labels: Int32[np.ndarray, "rows"],
    rate: float,
    targets: Mapping[int, int] | None,
    num_classes: int,
    seed: int,
) -> Int32[np.ndarray, "rows"]:
    """The labels with a share of them wrong.

    Args:
      labels: the right ones.
      rate: share of each class that gets a wrong label, to within one row; of a class that
        is no key of `targets`, none.
      targets: what each class is taken for (asymmetric noise); None for any other class,
        equally likely (symmetric noise: a wrong label is never the right one by chance).
      num_classes: labels are below it.
      seed: decides which; a higher rate keeps all the wrong labels of a lower one.
    """
    shuffled = order.permutation(len(labels), (seed, _NOISE_WHICH))
    words = order.words(len(labels), (seed, _NOISE_WHERE))
    result = labels.copy()
    for label in np.unique(labels).tolist():
        if targets is not None and label not in targets:
            continue
        members = shuffled[labels[shuffled] == label]
        wrong = members[: int(rate * len(members) + 0.5)]
        if targets is not None:
            result[wrong] = targets[label]
        else:
            step = 1 + (words[wrong] % np.uint64(num_classes - 1)).astype(np.int32)
            result[wrong] = (label + step) % num_classes
    return result


def confusions(name: str, class_names: tuple[str, ...]) -> dict[int, int]:
    """What asymmetric noise takes each class for.

    CIFAR-10 and MNIST have the pairs of Patrini et al. (2017), as far as both classes are
    there; in any other data set every class is taken for the next one, the last for the first.
    """
    if name in _CONFUSED:
        of = {class_name: label for label, class_name in enumerate(class_names)}
        pairs = _CONFUSED[name].items()
        return {of[right]: of[wrong] for right, wrong in pairs if right in of and wrong in of}
    return {label: (label + 1) % len(class_names) for label in range(len(class_names))}


class Relabelled:
    """A source with other labels; the right ones are its column "clean_label"."""

    def __init__(self, source: Source, labels: Int32[np.ndarray, "rows"]):
        """Wraps a source; `labels` has one for each of its rows."""
        self._source = source
        self._labels = labels

    def __len__(self) -> int:
        return len(self._source)

    @property
    def residency(self) -> str:
        """As of the source."""
        return self._source.residency

    def __getitem__(self, row: int) -> Example:
        return {**self._source[row], "label": self._labels[row]}

    def gather(
        self, rows: Int64[np.ndarray, "batch"], words: UInt64[np.ndarray, "batch"] | None = None
    ) -> Batch:
        """As of the source, with the other labels."""
        return {**self._source.gather(rows, words), "label": self._labels[rows]}

    def labels(self) -> Int32[np.ndarray, "rows"]:
        """The other labels."""
        return self._labels

    def columns(self) -> Mapping[str, Shaped[np.ndarray, "rows"]]:
        """As of the source, and "clean_label" where it has none that is cleaner yet."""
        return {"clean_label": self._source.labels(), **self._source.columns()}
