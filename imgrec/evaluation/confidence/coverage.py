"""What sets of classes hold: how often the true class, of which sizes, and for whom.

A share of right sets over all examples can hide a class or a kind of example that is never
covered, so the worst class and the worst size of set stand beside it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, Integer

from imgrec.evaluation import bootstrap

# Sizes are grouped as in Angelopoulos et al. 2021, section 4.
STRATA = ((1, 1), (2, 3), (4, 10), (11, 100), (101, 1000), (1001, None))
# Of fewer examples of a class or of a size, a coverage says too little to be the worst.
FEWEST = 20
LARGEST_SIZE = 100
_STREAM = 0xC0F3  # keeps these draws apart from others that start from the same seed


def summary(
    size: Int64[np.ndarray, " n"],
    filled: Bool[np.ndarray, " n"],
    covered: Bool[np.ndarray, " n"],
    labels: Integer[np.ndarray, " n"],
    class_names: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """What is to be known of the sets of n examples.

    Args:
      size: of each set, from 1 to the number of classes.
      filled: whether the set got its class because it would have been empty.
      covered: whether the set holds the true class.
      labels: the true classes.
      class_names: of all classes.
      seed: of the bootstrap.

    Returns:
      n; coverage; mean_set_size; share_filled;
      size_histogram: {size, count, larger}, sets of each size from 0 to 100 and above;
      size_stratified: [{smallest, largest, n, coverage, interval}] by size of set;
      worst_size_coverage, the least of those with 20 examples;
      class_coverage, a list in the order of the classes, with None for an absent one;
      worst_class_coverage, the least of those with 20 examples, worst_class, its name, and
      worst_class_n, its number of examples;
      intervals: the bootstrap for mean_set_size, Wilson for the rest; those of the worst are of
      that class or size alone, as if nothing had been selected.
      What is the worst is None where no class, or no size, has 20 examples.
    """
    n, classes = len(size), len(class_names)
    counts = np.bincount(size, minlength=classes + 1)
    # The sizes are resampled by how often each occurs, which is the same as by example.
    drawn = np.random.default_rng((seed, _STREAM)).multinomial(n, counts / n, size=1000)
    shown = min(classes, LARGEST_SIZE) + 1
    by_size = [_share(covered[(size >= low) & (size <= high)]) for low, high in _strata(classes)]
    by_class = [_share(covered[examples]) for examples in _positions(labels, classes)]
    worst_size, worst_class = _worst(by_size), _worst(by_class)
    found: dict[str, Any] = {
        "n": n,
        "coverage": float(covered.mean()),
        "mean_set_size": float(size.mean()),
        "share_filled": float(filled.mean()),
        "size_histogram": {
            "size": list(range(shown)),
            "count": counts[:shown].tolist(),
            "larger": int(counts[shown:].sum()),
        },
        "size_stratified": [
            {"smallest": low, "largest": high} | share
            for (low, high), share in zip(_strata(classes), by_size, strict=True)
        ],
        "class_coverage": [share["coverage"] for share in by_class],
        "worst_size_coverage": None,
        "worst_class_coverage": None,
        "worst_class": None,
        "worst_class_n": None,
        "intervals": {
            "coverage": bootstrap.wilson(int(covered.sum()), n),
            "mean_set_size": bootstrap.interval(drawn @ np.arange(len(counts)) / n),
            "share_filled": bootstrap.wilson(int(filled.sum()), n),
            "worst_size_coverage": None,
            "worst_class_coverage": None,
        },
    }
    if worst_size is not None:
        found["worst_size_coverage"] = by_size[worst_size]["coverage"]
        found["intervals"]["worst_size_coverage"] = by_size[worst_size]["interval"]
    if worst_class is not None:
        found["worst_class"] = class_names[worst_class]
        found["worst_class_n"] = by_class[worst_class]["n"]
        found["worst_class_coverage"] = by_class[worst_class]["coverage"]
        found["intervals"]["worst_class_coverage"] = by_class[worst_class]["interval"]
    return found


def _share(covered: Bool[np.ndarray, " n"]) -> dict[str, Any]:
    n, held = len(covered), int(covered.sum())
    return {
        "n": n,
        "coverage": held / n if n else None,
        "interval": bootstrap.wilson(held, n),
    }


def _strata(classes: int) -> list[tuple[int, int]]:
    return [(low, min(high or classes, classes)) for low, high in STRATA if low <= classes]


def _positions(labels: Integer[np.ndarray, " n"], classes: int) -> list[Int64[np.ndarray, " k"]]:
    """Where each class is."""
    ends = np.cumsum(np.bincount(labels, minlength=classes))[:-1]
    return np.split(np.argsort(labels, kind="stable"), ends)


def _worst(shares: list[dict[str, Any]]) -> int | None:
    common = [i for i, share in enumerate(shares) if share["n"] >= FEWEST]
    return min(common, key=lambda i: shares[i]["coverage"], default=None)
