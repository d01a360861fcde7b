import numpy as np
import pytest

from imgrec.evaluation import bootstrap
from imgrec.evaluation.groups import tallies


def test_sums_are_those_of_the_resampled_examples():
    rng = np.random.default_rng(0)
    weights = bootstrap.resamples(60, count=7)
    resampled = tallies.Resampled(weights)
    key, values = rng.integers(-1, 4, 60), rng.normal(size=60)
    for row, weight in enumerate(weights.astype(int)):
        drawn = np.repeat(np.arange(60), weight)
        inside = drawn[key[drawn] >= 0]
        expected = np.bincount(key[inside], minlength=5)
        np.testing.assert_array_equal(resampled.sums(key, 5)[:, row], expected)
        expected = np.bincount(key[inside], weights=values[inside], minlength=5)
        np.testing.assert_allclose(resampled.sums(key, 5, values)[:, row], expected, atol=1e-5)
    part = resampled.sums(key, 5, part=slice(2, 5))
    np.testing.assert_array_equal(part, resampled.sums(key, 5)[:, 2:5])


def test_counts_by_hand():
    logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 2]]
    answers = tallies.answers(logits, np.array([0, 0, 1, 2]), ["a", "b", "c"], {})
    found = tallies.counts(answers, np.array([0, 0, 1, -1]), 2, tallies.count)
    assert found.n.tolist() == [2, 1]
    assert found.support.tolist() == [[2, 0, 0], [0, 1, 0]]
    assert found.predicted.tolist() == [[1, 1, 0], [0, 1, 0]]
    assert found.correct.tolist() == [[1, 0, 0], [0, 1, 0]]
    whole = tallies.Resampled(np.ones((1, 4), np.float32))
    again = tallies.counts(answers, np.array([0, 0, 1, -1]), 2, whole.sums)
    np.testing.assert_array_equal(again.support[..., 0], found.support)


def test_confidence_is_the_softmax_probability():
    answers = tallies.answers(
        np.log(np.array([[3.0, 1.0], [1.0, 1.0]])), np.array([0, 1]), ["a", "b"], {}
    )
    np.testing.assert_allclose(answers.confidence, [0.75, 0.5])
    assert answers.right.tolist() == [True, False] and answers.notes == []


def test_a_column_of_another_length_is_refused():
    # Annotations catch it in tests, and this check without them.
    with pytest.raises((ValueError, TypeError), match="site"):
        tallies.answers(np.zeros((3, 2)), np.zeros(3, int), ["a", "b"], {"site": np.zeros(4)})
