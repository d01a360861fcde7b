import numpy as np
from sklearn.neighbors import NearestNeighbors

from imgrec.transfer import neighbours


def random(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 7)).astype(np.float32)


def test_the_nearest_are_scikit_learns():
    train, queries = random(200), random(30, 1)
    similarity, rows = neighbours.nearest(train, queries, 9)
    distance, expected = (
        NearestNeighbors(n_neighbors=9, metric="cosine").fit(train).kneighbors(queries)
    )
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(similarity, 1 - distance, atol=1e-6)


def test_more_queries_than_fit_at_once(monkeypatch):
    train, queries = random(50), random(23, 1)
    whole = neighbours.nearest(train, queries, 3)
    monkeypatch.setattr(neighbours, "_QUERIES", 10)
    for found, expected in zip(neighbours.nearest(train, queries, 3), whole, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_of_equals_the_first_wins():
    train = np.float32([[0, 1], [1, 0], [2, 0], [1, 0]])
    _, rows = neighbours.nearest(train, np.float32([[3, 0]]), 3)
    np.testing.assert_array_equal(rows, [[1, 2, 3]])


def test_a_row_of_zeros_is_near_nothing():
    assert np.isfinite(neighbours.normalised(np.zeros((2, 3), np.float32))).all()
    similarity, _ = neighbours.nearest(random(4), np.zeros((1, 7), np.float32), 2)
    np.testing.assert_array_equal(similarity, [[0, 0]])


def test_the_vote_by_hand():
    similarity = np.float32([[0.9, 0.8, 0.5, 0.4]])
    labels = np.int32([[1, 0, 0, 2]])
    found = neighbours.logits(similarity, labels, 4, k=3, temperature=0.5)
    votes = np.exp(np.array([0.9, 0.8, 0.5]) / 0.5)
    shares = np.array([votes[1] + votes[2], votes[0]]) / votes.sum()
    np.testing.assert_allclose(found[0, :2], np.log(shares), rtol=1e-5)
    np.testing.assert_allclose(found[0, 2:], np.log(1e-6), rtol=1e-5)  # the fourth has no vote
    cold = neighbours.logits(similarity, labels, 4, k=3, temperature=1e-3)
    assert cold[0].argmax() == 1
    assert np.isfinite(cold).all()
