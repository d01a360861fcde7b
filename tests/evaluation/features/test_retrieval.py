"""Rankings counted out query by query."""

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from imgrec.evaluation.features import retrieval as module
from imgrec.evaluation.features.retrieval import retrieval

NUMBERS = ("map_at_all", "recall_at_1", "recall_at_5", "recall_at_10", "precision_at_10")


def drawn(n=61, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n).astype(np.int32)
    centres = rng.normal(size=(classes, 6))
    return (centres[labels] + rng.normal(size=(n, 6))).astype(np.float32), labels


def brute(features, labels):
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-30)
    rows = {name: [] for name in NUMBERS}
    for query in range(len(labels)):
        others = [i for i in range(len(labels)) if i != query]
        near = sorted(others, key=lambda i: (-np.float32(unit[query] @ unit[i]), i))
        relevant = labels[near] == labels[query]
        if not relevant.any():
            continue
        places = np.flatnonzero(relevant)
        rows["map_at_all"].append(np.mean((np.arange(len(places)) + 1) / (places + 1)))
        for k in (1, 5, 10):
            rows[f"recall_at_{k}"].append(float(relevant[:k].any()))
        rows["precision_at_10"].append(relevant[:10].sum() / 10)
    return {name: np.mean(values) for name, values in rows.items()}, len(rows["map_at_all"])


@pytest.mark.parametrize("block", [1, 300, 2_000_000])
def test_every_number_is_what_its_definition_counts(block, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", block)
    features, labels = drawn()
    labels[7] = 5  # alone in its class
    found = retrieval(features, labels)
    expected, queries = brute(features, labels)
    assert (found["n"], found["n_without"]) == (queries, 1) == (60, 1)
    for name in NUMBERS:
        assert found[name] == pytest.approx(expected[name], abs=1e-12), name
        low, high = found["intervals"][name]
        assert low <= found[name] <= high
    assert found["reasons"] == {} and json.loads(json.dumps(found)) == found


def test_average_precision_is_scikit_learns():
    features, labels = drawn(seed=1)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    similarity = unit @ unit.T
    values = [
        average_precision_score(np.delete(labels == labels[q], q), np.delete(similarity[q], q))
        for q in range(len(labels))
    ]
    assert retrieval(features, labels)["map_at_all"] == pytest.approx(np.mean(values), abs=1e-9)


def test_of_equally_near_ones_the_first_is_ranked_first():
    """Similarities 1, 0 (of both signs) and -1, many times each."""
    features = np.float32([[1, 0], [0, 1], [1, 0], [-1, 0], [0, -1], [2, 0], [-0.0, 3], [0, 0]])
    features = np.concatenate([features] * 3)
    labels = np.random.default_rng(0).integers(0, 3, 24).astype(np.int32)
    expected, _ = brute(features, labels)
    found = retrieval(features, labels)
    for name in NUMBERS:
        assert found[name] == pytest.approx(expected[name], abs=1e-12), name
    for place, row in enumerate([6, 2, 3, 5, 1, 4]):
        similarity = np.float32([[9, -0.5, 0, -0.0, -1, 0, 0.5]])
        alike = np.isin(np.arange(7), [0, row]).astype(np.int32)
        relevant = module._ranked(similarity, np.array([0]), alike)
        assert np.flatnonzero(relevant[0]).tolist() == [place]


def test_perfect_features():
    labels = np.repeat(np.arange(3, dtype=np.int32), 20)
    found = retrieval(np.eye(3, dtype=np.float32)[labels], labels)
    assert [found[name] for name in NUMBERS] == [1] * 5


def test_fewer_images_than_ranks():
    found = retrieval(np.float32([[1, 0], [0, 1], [1, 1]]), np.int32([0, 1, 0]))
    assert (found["n"], found["n_without"]) == (2, 1)
    assert found["recall_at_1"] == 1 and found["precision_at_10"] == 0.1


@pytest.mark.parametrize(
    ("features", "labels", "why"),
    [
        (np.ones((3, 2)), [0, 1, 2], "No image has another of its class."),
        (np.ones((0, 2)), [], "No image has another of its class."),
        (np.full((3, 2), np.nan), [0, 0, 1], "The features are not all finite numbers."),
    ],
)
def test_what_is_not_defined_says_why(features, labels, why):
    found = retrieval(features.astype(np.float32), np.array(labels, np.int32))
    assert all(found[name] is None and found["reasons"][name] == why for name in NUMBERS)
    assert found["intervals"] == dict.fromkeys(NUMBERS)
    json.dumps(found, allow_nan=False)


def test_some_queries_are_answered_as_among_all():
    rng = np.random.default_rng(3)
    features = rng.normal(size=(60, 5)).astype(np.float32)
    labels = rng.integers(0, 4, 60).astype(np.int32)
    some = retrieval(features, labels, queries=20, seed=1)
    assert some["n"] == 20
    assert some == retrieval(features, labels, queries=20, seed=1)
    everyone = retrieval(features, labels)
    assert everyone["n"] == 60 == retrieval(features, labels, queries=99)["n"]
    draws = [retrieval(features, labels, queries=20, seed=i) for i in range(60)]
    mean = np.mean([draw["map_at_all"] for draw in draws])
    assert mean == pytest.approx(everyone["map_at_all"], abs=0.01)
