import json

import numpy as np
import pytest
from scipy import special
from sklearn import metrics as sklearn

from imgrec.evaluation import bootstrap, ranking


def random_case(seed, n, classes, *, present=None, decimals=2):
    """Logits so coarse that many are equal, of labels drawn from the `present` classes."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes if present is None else present, n).astype(np.int32)
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    return logits.round(decimals).astype(np.float32), labels


# Of two classes, equal differences of logits may round to different probabilities, so none.
CASES = {
    "two classes": random_case(0, 60, 2, decimals=7),
    "five classes": random_case(1, 300, 5),
    "coarse": random_case(2, 200, 3, decimals=0),
    "ten classes": random_case(3, 400, 10, decimals=1),
    "labels without some classes": random_case(4, 90, 10, present=[1, 4, 5]),
    "a class of one example": random_case(5, 40, 3, present=[0, 1, *[2] * 38]),
    "all equal": (np.zeros((30, 3), np.float32), np.arange(30) % 3),
    "certain": (100 * np.eye(4, dtype=np.float32)[np.arange(40) % 4], np.arange(40) % 4),
}
DEGENERATE = {
    "one class": (np.zeros((5, 1), np.float32), np.zeros(5, np.int32)),
    "labels of one class": (np.eye(3, dtype=np.float32), np.full(3, 1)),
    "one example": (np.array([[0, 1]], np.float32), np.array([1])),
}


def names(logits):
    return [f"class {i}" for i in range(logits.shape[1])]


def scikit_learn(labels, probabilities, classes):
    """(ROC-AUC, average precision) of each class, nan where it or the rest has no examples."""
    found = np.full((classes, 2), np.nan)
    for c in np.unique(labels):
        positive = labels == c
        if not positive.all():
            found[c] = (
                sklearn.roc_auc_score(positive, probabilities[:, c]),
                sklearn.average_precision_score(positive, probabilities[:, c]),
            )
    return found


@pytest.mark.parametrize("case", [*CASES, *DEGENERATE])
def test_it_is_plain_json(case):
    logits, labels = (CASES | DEGENERATE)[case]
    found = ranking.ranking(logits, labels, names(logits), resamples=10)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["n"] == len(labels)
    assert found["resamples"] == 10


@pytest.mark.parametrize("case", list(CASES))
def test_it_agrees_with_scikit_learn(case):
    logits, labels = CASES[case]
    classes = logits.shape[1]
    found = ranking.ranking(logits, labels, names(logits), resamples=3)
    probabilities = special.softmax(logits.astype(float), axis=1)
    expected = scikit_learn(labels, probabilities, classes)
    numbers = [[entry[name] for name in ranking.METRICS] for entry in found["per_class"]]
    np.testing.assert_allclose(np.array(numbers, float), expected, rtol=1e-12)

    truth = np.eye(classes)[labels]
    support = truth.sum(axis=0)
    assert [entry["support"] for entry in found["per_class"]] == support.tolist()
    present = support > 0
    functions = (sklearn.roc_auc_score, sklearn.average_precision_score)
    for name, function, values in zip(ranking.METRICS, functions, expected.T, strict=True):
        of_all = {
            "macro": values[present].mean(),
            "weighted": np.average(values[present], weights=support[present]),
            "micro": function(truth.ravel(), probabilities.ravel()),
        }
        for average, value in of_all.items():
            assert found[average][name] == pytest.approx(value, rel=1e-12)
    if classes > 2 and present.all():
        for average in ("macro", "weighted"):
            value = sklearn.roc_auc_score(labels, probabilities, multi_class="ovr", average=average)
            assert found[average]["roc_auc"] == pytest.approx(value, rel=1e-12)


@pytest.mark.filterwarnings("ignore:No positive class found in y_true")
@pytest.mark.parametrize("case", ["five classes", "coarse", "a class of one example"])
def test_intervals_are_those_of_scikit_learn_on_every_resample(case):
    logits, labels = CASES[case]
    n, classes = logits.shape
    found = ranking.ranking(logits, labels, names(logits), resamples=20, seed=2)
    probabilities = special.softmax(logits.astype(float), axis=1)
    values, supports, pooled = [], [], []
    for weights in bootstrap.resamples(n, seed=2, count=20).astype(int):
        drawn = np.repeat(np.arange(n), weights)
        values.append(scikit_learn(labels[drawn], probabilities[drawn], classes))
        supports.append(np.bincount(labels[drawn], minlength=classes))
        truth = np.eye(classes)[labels[drawn]].ravel()
        scores = probabilities[drawn].ravel()
        pooled.append(
            (sklearn.roc_auc_score(truth, scores), sklearn.average_precision_score(truth, scores))
        )
    values, supports, pooled = np.array(values), np.array(supports), np.array(pooled)
    shares = supports[:, :, None] / supports.sum(axis=1)[:, None, None]
    where = [
        *((found["per_class"][c], values[:, c]) for c in range(classes)),
        (found["macro"], np.nanmean(values, axis=1)),
        (found["weighted"], np.nansum(values * shares, axis=1)),
        (found["micro"], pooled),
    ]
    for entry, resampled in where:
        for i, name in enumerate(ranking.METRICS):
            expected = bootstrap.interval(resampled[:, i], estimate=entry[name], bounds=(0.0, 1.0))
            np.testing.assert_allclose(entry["intervals"][name], expected, rtol=1e-9)


def test_values_worked_out_by_hand():
    """By falling score: a positive, a negative, one of each with equal scores, a negative."""
    logits = np.log(np.array([[9, 1], [8, 2], [7, 3], [7, 3], [1, 9]]))
    labels = np.array([0, 1, 0, 1, 1])
    first = ranking.ranking(logits, labels, ["a", "b"], resamples=2)["per_class"][0]
    assert first["roc_auc"] == pytest.approx((3 + 1.5) / 6)
    assert first["average_precision"] == pytest.approx((1 / 1 + 2 / 4) / 2)


def test_resampling_does_not_move_the_interval_away_from_the_number():
    """Of classes with few examples, average precision is larger in every single resample."""
    logits, labels = random_case(0, 600, 60, decimals=7)
    macro = ranking.ranking(logits, labels, names(logits), resamples=200)["macro"]
    low, high = macro["intervals"]["average_precision"]
    assert low < macro["average_precision"] < high
    assert high - low < 0.1


@pytest.mark.parametrize("case", list(CASES))
def test_the_areas_under_the_curves_are_the_numbers(case):
    """These curves are short enough to be drawn whole, but for the micro average."""
    logits, labels = CASES[case]
    found = ranking.ranking(logits, labels, names(logits), resamples=2)
    numbers = {entry["name"]: entry for entry in found["per_class"]}
    curves = found["curves"]
    for roc, curve in zip(curves["roc"], curves["precision_recall"], strict=True):
        assert (roc["kind"], roc["name"]) == (curve["kind"], curve["name"])
        entry = numbers[roc["name"]] if roc["kind"] == "class" else found[roc["kind"]]
        x, y = roc["false_positive_rate"], roc["true_positive_rate"]
        assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
        assert np.all(np.diff(x) >= 0) and np.all(np.diff(y) >= 0)
        recall, precision = curve["recall"], curve["precision"]
        assert (recall[0], recall[-1]) == (0, 1)
        assert np.all(np.diff(recall) >= 0)
        assert len(x) == len(y) <= 200 and len(recall) == len(precision) <= 200
        exact = 1e-12 if roc["kind"] == "class" and len(labels) < 200 else 0.01
        assert np.trapezoid(y, x) == pytest.approx(entry["roc_auc"], abs=exact)
        area = np.diff(recall) @ precision[1:]
        assert area == pytest.approx(entry["average_precision"], abs=exact)


def test_long_curves_are_thinned_to_points_that_are_on_them():
    logits, labels = random_case(0, 3000, 3, decimals=7)
    found = ranking.ranking(logits, labels, names(logits), resamples=2)["curves"]
    assert found["shown"] == "all classes"
    assert [roc["kind"] for roc in found["roc"]] == ["class"] * 3 + ["micro", "macro"]
    scores = special.softmax(logits.astype(float), axis=1)[:, 1]
    roc, curve = found["roc"][1], found["precision_recall"][1]
    false, true, _ = sklearn.roc_curve(labels == 1, scores, drop_intermediate=False)
    points = set(zip(false, true, strict=True))
    assert points > set(zip(roc["false_positive_rate"], roc["true_positive_rate"], strict=True))
    assert 150 < len(roc["true_positive_rate"]) <= 200
    precision, recall, _ = sklearn.precision_recall_curve(labels == 1, scores)
    points = set(zip(recall, precision, strict=True))
    assert points > set(zip(curve["recall"][1:], curve["precision"][1:], strict=True))
    assert curve["base_rate"] == np.mean(labels == 1)
    assert found["precision_recall"][3]["base_rate"] == pytest.approx(1 / 3)


def test_of_many_classes_the_hardest_have_curves():
    logits, labels = random_case(0, 500, 25)
    found = ranking.ranking(logits, labels, names(logits), resamples=2)
    hardest = sorted(found["per_class"], key=lambda entry: entry["average_precision"])[:10]
    shown = [roc["name"] for roc in found["curves"]["roc"] if roc["kind"] == "class"]
    assert sorted(shown) == sorted(entry["name"] for entry in hardest)
    expected = "the 10 of 25 classes with the lowest average precision"
    assert found["curves"]["shown"] == expected


@pytest.mark.parametrize("case", list(DEGENERATE))
def test_without_positives_and_negatives_there_is_nothing_to_rank(case):
    logits, labels = DEGENERATE[case]
    found = ranking.ranking(logits, labels, names(logits), resamples=2)
    nothing = {
        "roc_auc": None,
        "average_precision": None,
        "intervals": {"roc_auc": None, "average_precision": None},
    }
    assert found["macro"] == found["weighted"] == nothing
    for c, entry in enumerate(found["per_class"]):
        support = int(np.sum(labels == c))
        assert entry == {"name": f"class {c}", "support": support} | nothing
    assert len(found["notes"]) == 1
    assert found["notes"][0].startswith("There are no numbers for class 0")


def test_absent_classes_are_named_but_not_all_of_them():
    logits, labels = CASES["labels without some classes"]
    found = ranking.ranking(logits, labels, names(logits), resamples=2)
    assert found["notes"] == [
        "There are no numbers for class 0, class 2, class 3, class 6, class 7 and 2 more: to be "
        "ranked, a class needs examples of it and of others."
    ]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_diverged_model_is_not_ranked(bad):
    logits, labels = CASES["five classes"]
    logits = logits.copy()
    logits[[4, 9], 1] = bad
    found = ranking.ranking(logits, labels, names(logits), resamples=2)
    assert found["notes"][0] == (
        "Nothing is ranked: 2 of 300 examples have logits that are nan or infinite, "
        "which make no probabilities."
    )
    assert found["macro"]["roc_auc"] is found["micro"]["average_precision"] is None
    assert found["curves"]["roc"] == []
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_class_that_is_ruled_out_ranks_last():
    logits, labels = CASES["five classes"]
    ruled_out, low = logits.copy(), logits.copy()
    ruled_out[labels == 0, 1], low[labels == 0, 1] = -np.inf, -100
    of_ruled_out = ranking.ranking(ruled_out, labels, names(logits), resamples=2)
    of_low = ranking.ranking(low, labels, names(logits), resamples=2)
    assert of_ruled_out["per_class"][1] == of_low["per_class"][1]


def test_work_that_grows_too_large_is_left_out_and_said(monkeypatch):
    logits, labels = CASES["five classes"]
    monkeypatch.setattr(ranking, "MOST_POOLED", 1000)
    monkeypatch.setattr(ranking, "MOST_VALUES", 1500 * 150)
    found = ranking.ranking(logits, labels, names(logits))
    assert found["resamples"] == 150
    assert found["micro"]["roc_auc"] is None
    assert "no micro average, which would rank 1,500 probabilities" in found["notes"][0]
    assert {roc["kind"] for roc in found["curves"]["roc"]} == {"class", "macro"}
    monkeypatch.setattr(ranking, "MOST_VALUES", 1)
    assert ranking.ranking(logits, labels, names(logits))["resamples"] == 100


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"from 0 to 3 .* 3 logits"):
        ranking.ranking(np.zeros((2, 3)), np.array([0, 3]), ["a", "b", "c"])
