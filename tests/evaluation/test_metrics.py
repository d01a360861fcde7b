import json
import math

import numpy as np
import pytest
from sklearn import metrics as sklearn

from imgrec.evaluation import metrics


def random_case(seed, n, classes, present):
    """Logits that say something about labels drawn from the `present` classes."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(present, n).astype(np.int32)
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), labels] += 1
    return logits, labels


CASES = {
    "two classes": random_case(0, 50, 2, [0, 1]),
    "three classes": random_case(1, 200, 3, [0, 1, 2]),
    "ten classes": random_case(2, 500, 10, range(10)),
    "labels without some classes": random_case(3, 80, 10, [1, 4, 5]),
    "one example": random_case(4, 1, 10, [7]),
    "classes in neither labels nor predictions": random_case(5, 12, 40, [3, 20, 39]),
    "one class": random_case(6, 5, 1, [0]),
}


def names(logits):
    return [f"class {i}" for i in range(logits.shape[1])]


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize("case", list(CASES))
def test_it_agrees_with_scikit_learn(case):
    logits, labels = CASES[case]
    found = metrics.classification(logits, labels, names(logits))
    classes = logits.shape[1]
    every, predicted = np.arange(classes), logits.argmax(axis=1)

    def close(value, expected):
        np.testing.assert_allclose(value, expected, rtol=1e-12)

    close(found["accuracy"], sklearn.accuracy_score(labels, predicted))
    assert found["n"] == len(labels)
    matrix = sklearn.confusion_matrix(labels, predicted, labels=every)
    assert found["confusion_matrix"] == matrix.tolist()

    scores = sklearn.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0
    )
    for name, expected in zip(("precision", "recall", "f1", "support"), scores, strict=True):
        close([of_class[name] for of_class in found["per_class"]], expected)
    assert [of_class["name"] for of_class in found["per_class"]] == names(logits)
    for average in ("macro", "weighted"):
        expected = sklearn.precision_recall_fscore_support(
            labels, predicted, average=average, zero_division=0
        )
        close([found[average][name] for name in ("precision", "recall", "f1")], expected[:3])

    exact = logits.astype(np.float64)
    probabilities = np.exp(exact) / np.exp(exact).sum(axis=1, keepdims=True)
    if classes > 1:
        close(found["loss"], sklearn.log_loss(labels, probabilities, labels=every))
    if classes > 5:
        top_5 = sklearn.top_k_accuracy_score(labels, exact, k=5, labels=every)
        close(found["top_5_accuracy"], top_5)


@pytest.mark.parametrize("case", list(CASES))
def test_it_is_plain_json(case):
    found = metrics.classification(*CASES[case], names(CASES[case][0]))
    assert json.loads(json.dumps(found)) == found


def test_values_worked_out_by_hand():
    logits = np.log(np.array([[3, 1, 4], [1, 2, 1], [1, 2, 5], [2, 1, 1]], np.float32))
    labels = np.array([0, 1, 1, 0], np.int32)
    found = metrics.classification(logits, labels, ["a", "b", "c"])
    assert found["confusion_matrix"] == [[1, 0, 1], [0, 1, 1], [0, 0, 0]]
    assert found["accuracy"] == 0.5
    assert found["loss"] == pytest.approx(-np.log([3 / 8, 1 / 2, 1 / 4, 1 / 2]).mean(), rel=1e-6)
    assert found["top_5_accuracy"] == 1.0  # of three classes, none comes after the fifth
    assert found["per_class"] == [
        {"name": "a", "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2},
        {"name": "b", "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2},
        {"name": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0},
    ]
    assert found["macro"]["precision"] == pytest.approx(2 / 3)
    assert found["weighted"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3)}


def test_the_loss_is_stable_where_logits_are_large():
    logits = np.array([[1e4, 0], [-1e4, 1e4], [3e38, -3e38]], np.float32)
    losses = metrics.negative_log_likelihood(logits, np.array([0, 0, 0]))
    np.testing.assert_allclose(losses, [0, 2e4, 0])


def test_of_equal_logits_the_first_class_is_predicted_and_ranked_first():
    logits = np.zeros((8, 8), np.float32)
    found = metrics.classification(logits, np.arange(8), names(logits))
    assert found["accuracy"] == 1 / 8
    assert found["top_5_accuracy"] == 5 / 8
    assert np.array(found["confusion_matrix"])[:, 0].sum() == 8


def test_a_diverged_model_is_not_right():
    logits = np.full((6, 8), np.nan, np.float32)
    found = metrics.classification(logits, np.arange(2, 8), names(logits))
    assert found["accuracy"] == 0
    assert found["top_5_accuracy"] == 0.5  # the classes 2, 3 and 4 come before 5, 6 and 7
    assert math.isnan(found["loss"])
    infinite = metrics.classification(logits * 0 + np.inf, np.arange(2, 8), names(logits))
    assert math.isnan(infinite["loss"])


@pytest.mark.parametrize(
    ("logits", "labels", "class_names", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), ["a", "b", "c"], "0 predictions"),
        (np.zeros((2, 3)), np.array([0, 1]), ["a", "b"], "2 class names .* 3 logits"),
        (np.zeros((2, 3)), np.array([0, 3]), ["a", "b", "c"], "from 0 to 3 .* 3 logits"),
        (np.zeros((2, 3)), np.array([-1, 1]), ["a", "b", "c"], "from -1 to 1 .* 3 logits"),
    ],
)
def test_what_does_not_fit_is_refused(logits, labels, class_names, message):
    with pytest.raises(ValueError, match=message):
        metrics.classification(logits, labels, class_names)
