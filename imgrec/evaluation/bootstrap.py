"""How sure a number is: intervals from resampling the examples it was computed on.

The percentile bootstrap (Efron & Tibshirani 1993, section 13.3). A resample is kept as how
often each example occurs in it, so that a metric which is a mean, or is made of counts, costs
one matrix product for all resamples at once. The resamples depend on the number of examples
and the seed alone: metrics of the same examples are resampled alike, and two models on the
same examples are compared pair by pair.
"""

import functools
import math
import weakref
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Integer, Num
from scipy import sparse

# The constant in the seed keeps these draws apart from others that start from the same seed.
STREAM = 0xB007
# Weights are widened to float64 this many values at a time (32 MB), not all at once.
CHUNK = 4_000_000

Values = Num[np.ndarray, " n"] | Bool[np.ndarray, " n"]


def resamples(n: int, *, seed: int = 0, count: int = 1000) -> Float32[np.ndarray, "count n"]:
    """How often each of n examples occurs in each of `count` resamples of n with replacement.

    Every row sums to n. The first rows are the same whatever the count, so fewer resamples
    are a part of more. The array is read-only, and the last one is remembered: 1000 resamples
    of 10,000 examples take 40 MB and a tenth of a second.

    Raises:
      ValueError: there are no examples, or no resamples are asked for.
    """
    if n < 1 or count < 1:
        raise ValueError(f"{count} resamples of {n} examples were asked for; both must be >= 1.")
    return _resamples(n, seed, count)


@functools.lru_cache(maxsize=1)  # all sections of a report ask for the same
def _resamples(n: int, seed: int, count: int) -> Float32[np.ndarray, "count n"]:
    rng = np.random.default_rng((seed, STREAM))
    weights = np.empty((count, n), np.float32)
    for row in weights:
        row[:] = np.bincount(rng.integers(n, size=n, dtype=np.int32), minlength=n)
    weights.flags.writeable = False
    return weights


def by_example(weights: Float32[np.ndarray, "count n"]) -> Float32[np.ndarray, "n count"]:
    """The resamples of each example side by side in memory, as products with sparse matrices
    read them.

    Of read-only weights, as `resamples` makes them, the last ones are remembered: the sections of
    a report ask for the same one after the other.
    """
    if weights.flags.writeable:
        return np.ascontiguousarray(weights.T)
    if not (_TURNED and _TURNED[0][0]() is weights):
        _TURNED[:] = [(weakref.ref(weights), np.ascontiguousarray(weights.T))]
    return _TURNED[0][1]


_TURNED: list[tuple[weakref.ref[np.ndarray], np.ndarray]] = []


def interval(
    values: Float[np.ndarray, " count"],
    level: float = 0.95,
    *,
    estimate: float | None = None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> list[float] | None:
    """[low, high] between which the middle `level` of a metric's resampled values lies.

    Args:
      values: of the metric in each resample. Where it is not defined (nan or infinite: a class
        that did not get into the resample) it is left out; where that is more than half of
        them the interval is None.
      level: share of the values inside.
      estimate: the metric of the examples themselves, for one that is not a mean. Resampling
        may shift such a metric as a whole: average precision rises since the copies of an
        example rank side by side, and over 1000 classes the shift outgrows the interval. With
        the estimate, a shift that is more than chance (three standard errors of the mean of the
        values) is taken back.
      bounds: between which the metric can lie at all; a shifted interval is cut there.
    """
    defined = values[np.isfinite(values)].astype(np.float64)
    if 2 * len(defined) < len(values) or not len(defined):
        return None
    ends = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    shift = 0.0 if estimate is None else estimate - defined.mean()
    if abs(shift) > 3 * defined.std() / math.sqrt(len(defined)):
        ends = np.clip(ends + shift, *bounds)
    return ends.tolist()


def reflected_interval(
    value: float,
    resampled: Float[np.ndarray, " count"],
    noise: Float[np.ndarray, " some"],
    most: float = math.inf,
) -> list[float] | None:
    """95 % for a quantity of at least 0 that noise alone makes larger than it is.

    Such are differences between extremes and binned errors. Resampling adds the same noise once
    more: where the true value is 0, no percentile interval holds it. So the interval is reflected
    about the estimate (the basic bootstrap, Davison & Hinkley 1997, section 5.2), which takes
    that bias off, and begins at 0 where noise alone would often make such a value.

    Args:
      value: of the sample; where it is not finite there is no interval.
      resampled: in every resample. Where it is not defined it is left out; where that is more
        than half of them there is no interval.
      noise: what it is in resamples in which the truth is 0.
      most: the largest that it can be.
    """
    defined, alone = (of[np.isfinite(of)].astype(np.float64) for of in (resampled, noise))
    if not np.isfinite(value) or 2 * len(defined) < len(resampled) or not len(defined):
        return None
    low, high = 2 * value - np.quantile(defined, [0.975, 0.025])
    if len(alone) and value <= np.quantile(alone, 0.975):
        low = 0
    return [float(np.clip(low, 0, value)), float(np.clip(high, value, most))]


def mean_interval(
    values: Values, weights: Float32[np.ndarray, "count n"], level: float = 0.95
) -> list[float] | None:
    """[low, high] for the mean of one value an example, such as whether it was right.

    None where the mean is not defined because a value is nan or infinite.
    """
    return interval(resampled_sums(values, weights) / len(values), level)


def resampled_sums(
    values: Num[np.ndarray, "n ..."] | Bool[np.ndarray, "n ..."],
    weights: Float32[np.ndarray, "count n"],
) -> Float64[np.ndarray, "count ..."]:
    """The sum over the examples in each resample, in float64: `weights @ values`.

    Further axes of the values stay. A mean is this over n; the mean of a group is the sum of
    `values * member` over the sum of `member`.
    """
    exact = values.astype(np.float64)
    rows = max(CHUNK // weights.shape[1], 1)
    sums = np.empty((len(weights), *values.shape[1:]))
    with np.errstate(invalid="ignore"):  # 0 x inf of a model that diverged: the sum is nan
        for start in range(0, len(weights), rows):
            part = slice(start, start + rows)
            sums[part] = np.tensordot(weights[part].astype(np.float64), exact, axes=1)
    return sums


def resampled_counts(
    group: Integer[np.ndarray, " n"], groups: int, weights: Float32[np.ndarray, "count n"]
) -> Float64[np.ndarray, "count groups"]:
    """How many examples of each group are in each resample; the group -1 is counted nowhere."""
    member = np.flatnonzero(group >= 0)
    ones = np.ones(len(member), np.float32)
    membership = sparse.csr_array((ones, (group[member], member)), shape=(groups, len(group)))
    return np.ascontiguousarray((membership @ by_example(weights)).T, np.float64)


def paired_difference(
    values_a: Values,
    values_b: Num[np.ndarray, " m"] | Bool[np.ndarray, " m"],
    *,
    seed: int = 0,
    count: int = 1000,
    level: float = 0.95,
) -> dict[str, Any]:
    """How much larger the mean of a is than that of b, on the same examples in the same order.

    Both are resampled together, so that what makes an example hard for both cancels.

    Returns:
      difference (mean of a minus mean of b; None where a value is nan or infinite), n, and
      intervals: {"difference": [low, high]}.

    Raises:
      ValueError: there are no examples, or the two are not of the same length.
    """
    if len(values_a) != len(values_b):
        raise ValueError(
            f"{len(values_a)} values cannot be paired with {len(values_b)}: "
            "both must be of the same examples in the same order."
        )
    weights = resamples(len(values_a), seed=seed, count=count)
    with np.errstate(invalid="ignore"):  # inf - inf: not a difference
        differences = values_a.astype(np.float64) - values_b.astype(np.float64)
        mean = float(differences.mean())
    return {
        "difference": mean if math.isfinite(mean) else None,
        "n": len(differences),
        "intervals": {"difference": mean_interval(differences, weights, level)},
    }


def wilson(successes: int, n: int, level: float = 0.95) -> list[float] | None:
    """[low, high] for a rate of successes among n (Wilson 1927), None for n = 0.

    It holds its level in small groups and for rates near 0 and 1, where every resample of a
    group without a single error would be without error too.

    Raises:
      ValueError: there are more successes than examples, or fewer than 0.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} were given.")
    if n == 0:
        return None
    z = NormalDist().inv_cdf((1 + level) / 2)
    rate = successes / n
    centre = rate + z**2 / (2 * n)
    half = z * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    # Rounding must not put the bound of 0 or all successes on the far side of the rate.
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return [low, high]
