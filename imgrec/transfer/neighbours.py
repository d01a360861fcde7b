"""Classification by the nearest neighbours among the features of training images.

The weighted vote of Wu et al. 2018 (section 3.4), as DINO (Caron et al. 2021) uses it: the cosine
similarities of the k nearest, as exp(similarity / temperature), are summed by class.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32

# What a class without a vote is given, so that the loss of a surprise is finite.
_FLOOR = 1e-6
_QUERIES = 256  # at a time: larger tables of similarities cost more to be given than to be searched


def normalised(features: Float32[np.ndarray, "n features"]) -> Float32[np.ndarray, "n features"]:
    """Each row at length 1; a row of zeros stays."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(length, np.finfo(np.float32).tiny)


def nearest(
    train: Float32[np.ndarray, "n features"], queries: Float32[np.ndarray, "m features"], k: int
) -> tuple[Float32[np.ndarray, "m k"], Int32[np.ndarray, "m k"]]:
    """Cosine similarities of the k nearest, falling, and their rows; of equals the first wins."""
    known, asked = jnp.asarray(normalised(train)), normalised(queries)
    parts = [_search(known, asked[i : i + _QUERIES], k) for i in range(0, len(asked), _QUERIES)]
    similarity, rows = (np.concatenate([np.asarray(p[j]) for p in parts]) for j in (0, 1))
    return similarity, rows.astype(np.int32)


@functools.partial(jax.jit, static_argnames="k")
def _search(known: Array, some: Array, k: int) -> tuple[Array, Array]:
    found, rows = jax.lax.top_k(some @ known.T, k)
    return found, rows


def logits(
    similarity: Float32[np.ndarray, "m most"],
    labels: Int32[np.ndarray, "m most"],
    num_classes: int,
    *,
    k: int,
    temperature: float,
) -> Float32[np.ndarray, "m classes"]:
    """Logarithms of each class's share of the vote; of a class that has none, of a millionth.

    Args:
      similarity: of `nearest`, of at least k neighbours.
      labels: of these neighbours.
      num_classes: that there are.
      k: how many vote.
      temperature: the smaller, the more the nearest count.
    """
    similarity = similarity[:, :k].astype(np.float64)
    # A factor common to all votes of a query, so that exp does not overflow.
    votes = np.exp((similarity - similarity[:, :1]) / temperature)
    shares = np.zeros((len(votes), num_classes))
    rows = np.arange(len(votes))[:, None]
    np.add.at(shares, (rows, labels[:, :k]), votes)
    shares /= shares.sum(axis=1, keepdims=True)
    return np.log(np.maximum(shares, _FLOOR)).astype(np.float32)
