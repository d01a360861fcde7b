import json

import numpy as np
import pytest

from imgrec.evaluation.confidence import coverage


def test_the_worst_are_of_at_least_twenty_examples():
    size = np.array([1] * 30 + [2] * 25 + [4] * 5)
    covered = np.array([True] * 30 + [True] * 20 + [False] * 10)
    labels = np.array([0] * 40 + [1] * 20)
    found = coverage.summary(size, size < 0, covered, labels, ["a", "b", "c", "d"], 0)
    assert found["coverage"] == 50 / 60
    assert [(s["smallest"], s["largest"], s["n"]) for s in found["size_stratified"]] == [
        (1, 1, 30),
        (2, 3, 25),
        (4, 4, 5),
    ]
    assert [s["coverage"] for s in found["size_stratified"]] == [1.0, 0.8, 0.0]
    assert found["worst_size_coverage"] == 0.8
    assert found["class_coverage"] == [1.0, 0.5, None, None]
    assert (found["worst_class"], found["worst_class_coverage"], found["worst_class_n"]) == (
        "b",
        0.5,
        20,
    )
    assert found["size_histogram"] == {
        "size": [0, 1, 2, 3, 4],
        "count": [0, 30, 25, 0, 5],
        "larger": 0,
    }
    low, high = found["intervals"]["mean_set_size"]
    # The normal interval of the mean, which is near.
    half = 1.96 * size.std() / np.sqrt(60)
    assert (low, high) == pytest.approx((size.mean() - half, size.mean() + half), abs=0.05)

    few = coverage.summary(size[:10], size[:10] < 0, covered[:10], labels[:10], ["a", "b"], 0)
    assert few["worst_class"] is few["worst_class_coverage"] is few["worst_size_coverage"] is None


def test_sizes_above_a_hundred_are_counted_together():
    size = np.array([1, 100, 101, 250, 1000] * 20)
    found = coverage.summary(size, size < 0, size > 1, size % 7, list(map(str, range(1200))), 0)
    assert json.loads(json.dumps(found)) == found
    sizes = found["size_histogram"]
    assert sizes["size"] == list(range(101))
    assert (sizes["count"][1], sizes["count"][100], sizes["larger"]) == (20, 20, 60)
    assert [(s["smallest"], s["largest"], s["n"]) for s in found["size_stratified"]] == [
        (1, 1, 20),
        (2, 3, 0),
        (4, 10, 0),
        (11, 100, 20),
        (101, 1000, 60),
        (1001, 1200, 0),
    ]
    assert found["worst_size_coverage"] == 0
    assert found["size_stratified"][1]["coverage"] is None
