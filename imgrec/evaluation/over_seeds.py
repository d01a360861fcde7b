"""Whether a change of the recipe matters, judged over seeds: the same seeds with and without it.

Seeds are few, since each is a whole training run, and a handful says little. So two tests are
given. Student's paired t assumes that differences are normally distributed, which a handful
cannot show. The sign-flip test assumes only that without an effect a difference is as likely
positive as negative; of n seeds it cannot give less than 2 / 2^n, which is 0.25 for three.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from imgrec.evaluation import bootstrap

_RESAMPLES = 10_000
_MOST_FLIPS = 2**16


def paired(values: Sequence[float], base: Sequence[float]) -> dict[str, Any]:
    """How much more a metric is with a change than without it, seed by seed.

    Args:
      values: with the change, one a seed.
      base: without it, for the same seeds in the same order.

    Returns:
      differences, difference (their mean), n, std (over n - 1), intervals {"difference"} of 95 %
      by the bootstrap over seeds, p_t and p_sign_flip, both two-sided. Of a single seed std,
      interval and tests are None, and so is p_t where all differences are the same but not 0.

    Raises:
      ValueError: there are no seeds, or not as many of both.
    """
    a, b = np.asarray(values, np.float64), np.asarray(base, np.float64)
    found = bootstrap.paired_difference(a, b, count=_RESAMPLES)
    differences, n = a - b, len(a)
    few = n < 2
    return {
        "differences": differences.tolist(),
        "difference": found["difference"],
        "n": n,
        "std": None if few else float(differences.std(ddof=1)),
        "intervals": {"difference": None if few else found["intervals"]["difference"]},
        "p_t": None if few else _paired_t(differences),
        "p_sign_flip": None if few else _sign_flip(differences),
    }


def least_p(n: int) -> float:
    """The smallest p that the sign-flip test can give for so many seeds."""
    return min(1.0, 2.0 ** (1 - n))


def _paired_t(differences: np.ndarray) -> float | None:
    """Student 1908, two-sided."""
    from scipy import special  # takes a moment, which no other verb waits for

    n, spread = len(differences), float(differences.std(ddof=1))
    mean = float(differences.mean())
    if spread <= 1e-12 * abs(mean):  # no more than rounding
        return 1.0 if mean == 0 else None
    return float(2 * special.stdtr(n - 1, -abs(mean) * math.sqrt(n) / spread))


def _sign_flip(differences: np.ndarray) -> float:
    """Share of the ways to choose the signs whose mean is at least as far from 0 (Fisher 1935)."""
    n = len(differences)
    if 2**n <= _MOST_FLIPS:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
    else:  # a sample of them, what was seen included
        drawn = np.random.default_rng(bootstrap.STREAM).integers(2, size=(_MOST_FLIPS, n))
        signs = np.concatenate([np.ones((1, n)), 1.0 - 2.0 * drawn])
    sums = np.abs(signs @ differences)
    return float(np.mean(sums >= sums[0] * (1 - 1e-9)))
