import functools
import json
import math
import operator

import numpy as np
import pytest
from sklearn import metrics as sklearn

from imgrec.evaluation import bootstrap, metrics


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
    "labels of one class": random_case(7, 30, 4, [2]),
    "constant predictions": (np.tile(np.eye(4, dtype=np.float32)[1], (30, 1)), np.arange(30) % 4),
    "labels and predictions of one class": (np.eye(4, dtype=np.float32)[[1] * 9], np.full(9, 1)),
}


def names(logits):
    return [f"class {i}" for i in range(logits.shape[1])]


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
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
    for average in ("macro", "weighted", "micro"):
        expected = sklearn.precision_recall_fscore_support(
            labels, predicted, average=average, zero_division=0
        )
        close([found[average][name] for name in ("precision", "recall", "f1")], expected[:3])

    close(found["balanced_accuracy"], sklearn.balanced_accuracy_score(labels, predicted))
    close(found["matthews"], sklearn.matthews_corrcoef(labels, predicted))
    if len({*labels, *predicted}) > 1:
        close(found["cohen_kappa"], sklearn.cohen_kappa_score(labels, predicted))
    else:  # where scikit-learn has nan
        assert found["cohen_kappa"] is None

    exact = logits.astype(np.float64)
    probabilities = np.exp(exact) / np.exp(exact).sum(axis=1, keepdims=True)
    if classes > 1:
        close(found["loss"], sklearn.log_loss(labels, probabilities, labels=every))
    if classes > 5:
        top_5 = sklearn.top_k_accuracy_score(labels, exact, k=5, labels=every)
        close(found["top_5_accuracy"], top_5)


@pytest.mark.parametrize("case", list(CASES))
def test_it_is_plain_json(case):
    found = metrics.classification(*CASES[case], names(CASES[case][0]), resamples=10)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("case", list(CASES))
def test_intervals_add_to_the_report_and_change_nothing_in_it(case):
    logits, labels = CASES[case]
    plain = metrics.classification(logits, labels, names(logits))
    found = metrics.classification(logits, labels, names(logits), resamples=20)
    assert found.pop("resamples") == 20
    scalars = {name for name, value in plain.items() if value is None or isinstance(value, float)}
    assert found.pop("intervals").keys() == scalars
    for scores in [found["macro"], found["weighted"], found["micro"], *found["per_class"]]:
        assert scores.pop("intervals").keys() == {"precision", "recall", "f1"}
    assert found == plain


SCORES = ("precision", "recall", "f1")


def scikit_learn(labels, predicted, classes):
    """Metrics by where they are in a report; nan where a class has no precision or recall."""
    found = {
        ("accuracy",): sklearn.accuracy_score(labels, predicted),
        ("balanced_accuracy",): sklearn.balanced_accuracy_score(labels, predicted),
        ("cohen_kappa",): sklearn.cohen_kappa_score(labels, predicted),
        ("matthews",): sklearn.matthews_corrcoef(labels, predicted),
    }
    for average in ("macro", "weighted", "micro"):
        scores = sklearn.precision_recall_fscore_support(
            labels, predicted, average=average, zero_division=0
        )
        found |= {(average, name): scores[i] for i, name in enumerate(SCORES)}
    scores = sklearn.precision_recall_fscore_support(
        labels, predicted, labels=range(classes), zero_division=np.nan
    )
    for i, name in enumerate(SCORES):
        found |= {("per_class", c, name): scores[i][c] for c in range(classes)}
    return found


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("case", ["three classes", "labels without some classes"])
def test_intervals_are_those_of_scikit_learn_on_every_resample(case):
    logits, labels = CASES[case]
    found = metrics.classification(logits, labels, names(logits), resamples=25, seed=5)
    losses = metrics.negative_log_likelihood(logits, labels)
    in_top_5 = np.any(np.argsort(-logits)[:, :5] == labels[:, None], axis=1)
    resampled = []
    for weights in bootstrap.resamples(len(labels), seed=5, count=25).astype(int):
        drawn = np.repeat(np.arange(len(labels)), weights)
        of_labels = scikit_learn(labels[drawn], logits[drawn].argmax(axis=1), logits.shape[1])
        of_logits = {
            ("loss",): losses[drawn].mean(),
            ("top_5_accuracy",): in_top_5[drawn].mean(),
        }
        resampled.append(of_labels | of_logits)
    for path in resampled[0]:
        values = np.array([each[path] for each in resampled])
        *where, name = path
        scores = functools.reduce(operator.getitem, where, found)
        bounds = (-1.0, 1.0) if name in ("cohen_kappa", "matthews") else (0.0, 1.0)
        expected = bootstrap.interval(
            values, estimate=scores[name], bounds=(0.0, np.inf) if name == "loss" else bounds
        )
        if expected is None:
            assert scores["intervals"][name] is None
        else:
            np.testing.assert_allclose(
                scores["intervals"][name], expected, atol=1e-12, err_msg=str(path)
            )


def test_what_no_example_can_tell_has_no_interval():
    logits = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 1, 0]]
    found = metrics.classification(
        logits, np.array([0, 0, 0, 1, 1, 1]), ["a", "b", "c"], resamples=100
    )
    assert found["per_class"][2]["intervals"] == {"precision": None, "recall": None, "f1": None}
    assert None not in found["intervals"].values()
    constant = metrics.classification(logits[:2], np.array([0, 0]), ["a", "b", "c"], resamples=9)
    assert constant["intervals"]["cohen_kappa"] is None
    assert constant["intervals"]["accuracy"] == [1, 1]
    assert constant["matthews"] == 0
    assert len(constant["notes"]) == 1 and "kappa" in constant["notes"][0]


def test_the_interval_of_the_accuracy_covers_the_truth_as_often_as_it_says():
    """Of 200 test sets with a true accuracy of 0.8, about 95 % of the intervals hold it."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        labels = rng.integers(0, 2, 200)
        logits = np.eye(2, dtype=np.float32)[np.where(rng.random(200) < 0.8, labels, 1 - labels)]
        found = metrics.classification(logits, labels, ["a", "b"], resamples=200)
        low, high = found["intervals"]["accuracy"]
        covered.append(low <= 0.8 <= high)
    assert 0.90 < np.mean(covered) < 0.98


def test_the_most_confused_pairs_come_first():
    matrix = np.array([[9, 2, 0], [2, 4, 0], [5, 1, 0]])
    labels, predicted = np.repeat(np.indices((3, 3)).reshape(2, 9), matrix.ravel(), axis=1)
    found = metrics.classification(np.eye(3)[predicted], labels, ["a", "b", "c"])["most_confused"]
    assert found == [
        {"true": "c", "predicted": "a", "count": 5, "share_of_true": pytest.approx(5 / 6)},
        {"true": "b", "predicted": "a", "count": 2, "share_of_true": pytest.approx(2 / 6)},
        {"true": "a", "predicted": "b", "count": 2, "share_of_true": pytest.approx(2 / 11)},
        {"true": "c", "predicted": "b", "count": 1, "share_of_true": pytest.approx(1 / 6)},
    ]
    many = metrics.most_confused(np.arange(100).reshape(10, 10), [str(i) for i in range(10)])
    assert [pair["count"] for pair in many] == [*range(98, 88, -1), *range(87, 77, -1)]


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
    assert found["notes"] == [
        "The loss is not defined: 6 of 6 examples have logits that are nan or infinite, "
        "which make no probabilities."
    ]
    infinite = metrics.classification(logits * 0 + np.inf, np.arange(2, 8), names(logits))
    assert math.isnan(infinite["loss"])


def test_a_class_that_is_ruled_out_costs_an_infinite_loss():
    logits = np.array([[0, -np.inf], [0, -np.inf], [0, 1]], np.float32)
    found = metrics.classification(logits, np.array([0, 1, 1]), ["a", "b"], resamples=200)
    assert found["loss"] == math.inf
    assert found["intervals"]["loss"] is None
    assert found["notes"] == [
        "The loss is infinite: 1 of 3 examples have a true class of probability 0."
    ]


def test_the_loss_is_the_same_in_parts(monkeypatch):
    logits, labels = CASES["ten classes"]
    whole = metrics.negative_log_likelihood(logits, labels)
    monkeypatch.setattr(metrics, "CHUNK", 70)  # 7 examples at a time
    np.testing.assert_array_equal(metrics.negative_log_likelihood(logits, labels), whole)


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
