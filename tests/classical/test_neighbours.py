"""Exact neighbours: against scikit-learn, against everyone compared with everyone, and ties."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from imgrec.classical import neighbours
from imgrec.classical.classifiers import Neighbours

X = load_digits().data.astype(np.float32)
Y = load_digits().target.astype(np.int32)


def brute(known, queries, k):
    """By numpy, of equal distances the lower row."""
    squared = ((queries[:, None].astype(np.float64) - known[None]) ** 2).sum(-1)
    rows = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return np.sqrt(np.take_along_axis(squared, rows, axis=1)), rows


@pytest.mark.parametrize("devices", [1, 8])
def test_as_scikit_learn(devices, monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:devices])
    known, queries = X[:1000], X[1000:1300]
    distances, rows = neighbours.nearest(known, queries, 5)
    theirs = NearestNeighbors(n_neighbors=6, algorithm="brute").fit(known.astype(np.float64))
    expected, found = theirs.kneighbors(queries.astype(np.float64))
    np.testing.assert_allclose(distances, expected[:, :5], rtol=1e-12)
    plain = np.all(np.diff(expected, axis=1) > 0, axis=1)  # no ties
    assert plain.sum() > 100
    np.testing.assert_array_equal(rows[plain], found[plain, :5])
    np.testing.assert_array_equal(rows, brute(known, queries, 5)[1])  # ties, too


def test_equal_distances_go_by_the_row():
    # Thirty at the same place are more than the devices propose.
    known = np.concatenate([np.ones((1, 3)), np.zeros((30, 3)), np.ones((9, 3))]).astype("f4")
    distances, rows = neighbours.nearest(known, np.zeros((2, 3), np.float32), 4)
    np.testing.assert_array_equal(rows, [[1, 2, 3, 4]] * 2)
    np.testing.assert_array_equal(distances, np.zeros((2, 4)))


def test_rounding_decides_nothing():
    # Far from the origin, |a|^2 - 2 q.a in float32 cannot tell any of these apart.
    rng = np.random.default_rng(0)
    known = (1000 + rng.integers(0, 3, (300, 16))).astype(np.float32)
    queries = (1000 + rng.integers(0, 3, (20, 16))).astype(np.float32)
    distances, rows = neighbours.nearest(known, queries, 3)
    expected, right = brute(known, queries, 3)
    np.testing.assert_array_equal(rows, right)
    np.testing.assert_array_equal(distances, expected)


def test_blocks_are_put_together_in_order(monkeypatch):
    monkeypatch.setattr(neighbours, "_QUERIES", 16)
    done = []
    _, rows = neighbours.nearest(X[:200], X[200:557], 2, shown=lambda *told: done.append(told))
    np.testing.assert_array_equal(rows, brute(X[:200], X[200:557], 2)[1])
    assert done == [(128, 357), (256, 357), (357, 357)]


@pytest.mark.parametrize("k", [0, 201])
def test_as_many_neighbours_as_there_are(k):
    with pytest.raises(ValueError, match="of 200 rows"):
        neighbours.nearest(X[:200], X[:1], k)
    assert neighbours.nearest(X[:200], X[:1], 200)[1].shape == (1, 200)


def test_votes():
    rows = np.array([[0.0], [1.0], [2.0], [4.0]], np.float32)
    labels = np.array([0, 1, 1, 2], np.int32)
    query = np.array([[0.5]], np.float32)  # distances 0.5, 0.5, 1.5, 3.5
    uniform = Neighbours(k=3).fit(rows, labels).predict_proba(query)
    np.testing.assert_allclose(uniform, [[1 / 3, 2 / 3, 0]])
    weighted = Neighbours(k=3, weights="distance").fit(rows, labels).predict_proba(query)
    np.testing.assert_allclose(weighted, [[2, 2 + 2 / 3, 0]] / np.float64(4 + 2 / 3))


def test_cosine_looks_at_directions_alone():
    rows = np.array([[9.0, 0.1], [0.1, 0.1]], np.float32)
    found = Neighbours(k=1, metric="cosine").fit(rows, np.array([0, 1], np.int32))
    np.testing.assert_array_equal(found.predict_proba(np.array([[5.0, 5.1]], "f4")), [[0, 1]])
