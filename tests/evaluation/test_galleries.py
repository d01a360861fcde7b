import json

import numpy as np
import pytest

from imgrec.data import Split
from imgrec.data.dataset import ArraySource
from imgrec.evaluation import galleries

LISTS = ("confidently_wrong", "confidently_right", "least_certain")


def answers(n=200, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(0, 2, (n, classes)) + 2 * np.eye(classes)[labels]
    return logits.astype(np.float32), labels


def softmax(logits):
    values = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return values / values.sum(axis=1, keepdims=True)


def indices(examples):
    return [example["index"] for example in examples]


def every_example(found):
    lists = [found[name] for name in LISTS]
    lists += [each["examples"] for name in ("prototypes", "hardest") for each in found[name]]
    return [example for examples in lists for example in examples]


@pytest.mark.parametrize("features", [None, np.random.default_rng(1).normal(size=(200, 7))])
def test_every_example_is_told_as_it_is(features):
    logits, labels = answers()
    probabilities = softmax(logits)
    found = galleries.galleries(logits, labels, features=features)
    assert json.loads(json.dumps(found)) == found
    for example in every_example(found):
        i = example["index"]
        assert example["true"] == labels[i]
        assert example["predicted"] == probabilities[i].argmax()
        assert example["confidence"] == pytest.approx(probabilities[i].max())
        assert example["confidence_in_true"] == pytest.approx(probabilities[i, labels[i]])
    assert found["prototypes_by"] == ("confidence" if features is None else "features")
    assert (found["n"], found["n_not_finite"]) == (200, 0)
    assert (found["n_classes"], found["n_classes_shown"]) == (5, 5)


def test_lists_hold_the_extremes_in_their_order():
    logits, labels = answers()
    found = galleries.galleries(logits, labels, count=10, per_class=3)
    probabilities = softmax(logits)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    by_confidence = np.argsort(-confidence, kind="stable")
    wrong_first = [i for i in by_confidence if not right[i]]
    right_first = [i for i in by_confidence if right[i]]
    assert indices(found["confidently_wrong"]) == wrong_first[:10]
    assert indices(found["confidently_right"]) == right_first[:10]
    assert indices(found["least_certain"]) == list(np.argsort(confidence, kind="stable")[:10])
    for c in range(5):
        prototypes, hardest = (found[name][c] for name in ("prototypes", "hardest"))
        assert prototypes["class"] == hardest["class"] == c
        assert indices(prototypes["examples"]) == [i for i in right_first if labels[i] == c][:3]
        own = np.flatnonzero(labels == c)
        order = np.argsort(probabilities[own, c], kind="stable")
        assert indices(hardest["examples"]) == list(own[order][:3])


def test_prototypes_are_nearest_to_the_mean_of_their_class():
    logits, labels = answers()
    features = np.random.default_rng(2).normal(size=(200, 3)).astype(np.float32)
    found = galleries.galleries(logits, labels, features=features, per_class=2)
    for c, each in enumerate(found["prototypes"]):
        own = np.flatnonzero(labels == c)
        mean = features[own].astype(np.float64).mean(axis=0)
        far = np.linalg.norm(features[own] - mean, axis=1)
        assert indices(each["examples"]) == list(own[np.argsort(far)[:2]])


def test_the_surest_are_told_apart_where_the_confidence_rounds_to_one():
    logits = np.zeros((4, 2))
    logits[:, 1] = [50, 900, 40, 60]
    found = galleries.galleries(logits, np.array([1, 1, 1, 1]))
    assert indices(found["confidently_right"]) == [1, 3, 0, 2]
    assert indices(found["least_certain"]) == [2, 0, 3, 1]
    assert found["confidently_right"][0]["confidence"] == 1


def test_equals_come_in_the_order_of_the_split():
    found = galleries.galleries(np.zeros((6, 3)), np.array([0, 1, 2, 0, 1, 2]), count=3)
    assert indices(found["confidently_right"]) == [0, 3]
    assert indices(found["confidently_wrong"]) == [1, 2, 4]
    assert indices(found["least_certain"]) == [0, 1, 2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_answers_that_are_no_numbers_are_counted_and_left_out(bad):
    logits, labels = answers()
    logits[[3, 50]] = bad
    features = np.random.default_rng(2).normal(size=(200, 3))
    features[7] = np.nan
    found = galleries.galleries(logits, labels, features=features, count=200, per_class=200)
    assert found["n_not_finite"] == 2
    assert not {3, 50} & {example["index"] for example in every_example(found)}
    prototypes = [i for each in found["prototypes"] for i in indices(each["examples"])]
    assert set(prototypes) == set(range(200)) - {3, 7, 50}
    nothing = galleries.galleries(np.full((5, 3), bad), np.zeros(5, int))
    assert every_example(nothing) == []


def test_a_label_that_is_no_class_is_a_mistake_of_unknown_truth():
    found = galleries.galleries(np.eye(3)[[0, 1]], np.array([-1, 7]))
    assert [example["confidence_in_true"] for example in found["confidently_wrong"]] == [None, None]
    assert found["confidently_right"] == []
    assert found["prototypes"] == found["hardest"] == []
    assert found["n_classes_shown"] == 0


def test_one_class_alone_is_never_wrong():
    found = galleries.galleries(np.array([[0.5], [2.0]]), np.array([0, 0]))
    assert indices(found["confidently_right"]) == [0, 1]
    assert found["confidently_wrong"] == []
    assert found["least_certain"][0]["confidence"] == 1


def test_of_many_classes_the_hardest_are_shown(monkeypatch):
    monkeypatch.setattr(galleries, "MOST_CLASSES", 2)
    labels = np.array([0, 0, 1, 1, 2, 2, 3])
    predicted = np.array([0, 1, 1, 1, 0, 0, 3])  # recall 1/2, 1, 0, 1; class 4 is absent
    found = galleries.galleries(np.eye(5)[predicted], labels)
    assert [each["class"] for each in found["hardest"]] == [0, 2]
    assert (found["n_classes"], found["n_classes_shown"]) == (5, 2)


def test_pictures_are_those_of_the_positions():
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1).repeat(4, axis=1).repeat(4, axis=2)
    split = Split("test", ArraySource(images, np.arange(6)), rows=np.array([5, 3, 1, 0]))
    chosen = [{"index": 2}, {"index": 0}, {"index": 2}]
    np.testing.assert_array_equal(galleries.pictures(split, chosen)[:, 0, 0, 0], [1, 5, 1])
    assert galleries.pictures(split, []).shape == (0, 4, 4, 1)


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="0 logits do not fit 2 labels"):
        galleries.galleries(np.zeros((2, 0)), np.zeros(2, int))
