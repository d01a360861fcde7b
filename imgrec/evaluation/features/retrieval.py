"""Image retrieval by features: every image asks for others of its class among all the rest."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32

from imgrec.evaluation import bootstrap
from imgrec.transfer.neighbours import normalised

RECALL_AT = (1, 5, 10)
PRECISION_AT = 10

_STREAM = 0x9E7  # of the random numbers, beside the seed
_BLOCK = 500_000  # pairs of a query and another image at a time

Features = Float32[np.ndarray, "n features"]
Labels = Int32[np.ndarray, " n"]


def retrieval(
    features: Features, labels: Labels, *, queries: int = 0, seed: int = 0
) -> dict[str, Any]:
    """Rankings of all other images by the cosine of their features with each image's.

    An image is relevant to another of its class. Of equally near ones the first in the split is
    ranked first. An image that is alone in its class has nothing to find, and asks nothing.

    Args:
      features: of the images.
      labels: their classes.
      queries: images, at most, that ask, drawn by the seed; 0 for all. Each is answered from
        the whole split.
      seed: of the draw and the resamples.

    Returns:
      n (queries), n_without (images alone in their class); map_at_all, the mean over queries of
      average precision, its ranking the whole rest of the split; recall_at_1, _5 and _10, the
      share of queries with a relevant image among the first so many; precision_at_10, the mean
      share of relevant images among the first ten; intervals (bootstrap over queries); reasons,
      which says in words why these are None.
    """
    names = ("map_at_all", *(f"recall_at_{k}" for k in RECALL_AT), f"precision_at_{PRECISION_AT}")
    sizes = np.bincount(labels)[labels] if len(labels) else np.zeros(0, int)
    asking = np.flatnonzero(sizes > 1)
    without = len(labels) - len(asking)
    if 0 < queries < len(asking):
        rng = np.random.default_rng((seed, _STREAM))
        asking = np.sort(rng.choice(asking, queries, replace=False))
    report = {"n": len(asking), "n_without": without, "reasons": {}}
    if not len(asking):
        reason = "No image has another of its class."
    elif not np.isfinite(features).all():
        reason = "The features are not all finite numbers."
    else:
        values = _of_queries(normalised(features), labels, asking)
        weights = bootstrap.resamples(len(asking), seed=seed)
        return {
            **report,
            **{name: float(values[name].mean()) for name in names},
            "intervals": {n: bootstrap.mean_interval(values[n], weights) for n in names},
        }
    nothing = dict.fromkeys(names)
    return {**report, **nothing, "intervals": nothing, "reasons": dict.fromkeys(names, reason)}


def _of_queries(
    features: Features, labels: Labels, asking: np.ndarray
) -> dict[str, Float64[np.ndarray, " queries"]]:
    rows = max(1, _BLOCK // len(labels))
    parts = []
    for start in range(0, len(asking), rows):
        queries = asking[start : start + rows]
        similarity = features[queries] @ features.T
        parts.append(_of_rankings(_ranked(similarity, queries, labels)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _ranked(
    similarity: Float32[np.ndarray, "queries n"], queries: np.ndarray, labels: Labels
) -> Bool[np.ndarray, "queries others"]:
    """Whether the other images are relevant, by falling similarity, of equals the first first."""
    similarity[np.arange(len(queries)), queries] = -np.inf
    # A float's bits order as the float does once those of negative ones are turned over, but for
    # the sign. With the row and the answer below them, keys are sorted several times faster than
    # by an argsort, and tell what is asked for without looking it up again.
    bits = (np.float32(0) - similarity).view(np.int32)  # no -0, which would come before 0
    bits ^= (bits >> 31) & np.int32(2**31 - 1)
    keys = bits.astype(np.int64) << 32
    keys |= np.arange(len(labels)) << 1
    keys |= labels == labels[queries, None]
    keys.sort(axis=1)
    return (keys[:, :-1] & 1).astype(bool)


def _of_rankings(relevant: Bool[np.ndarray, "queries others"]) -> dict[str, np.ndarray]:
    """Each query's own value of every metric."""
    queries, others = relevant.shape
    found = np.flatnonzero(relevant)
    sizes = np.bincount(found // others, minlength=queries)
    before = np.cumsum(sizes) - sizes
    # Of each relevant one: how many are at least as near, and of them relevant.
    rank = 1 + found - np.repeat(others * np.arange(queries), sizes)
    nearer = 1 + np.arange(len(found)) - np.repeat(before, sizes)
    first = relevant.argmax(axis=1)
    values = {"map_at_all": np.add.reduceat(nearer / rank, before) / sizes}
    values |= {f"recall_at_{k}": (first < k).astype(np.float64) for k in RECALL_AT}
    share = relevant[:, :PRECISION_AT].sum(axis=1) / PRECISION_AT
    return values | {f"precision_at_{PRECISION_AT}": share}
