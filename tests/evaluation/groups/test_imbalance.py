import json

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn

from imgrec.evaluation import bootstrap
from imgrec.evaluation.groups import imbalance


def gaussians(seed, n, means, prior):
    """(log of the densities, labels) of points around the means, drawn with the prior."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(means), n, p=prior)
    points = means[labels] + rng.normal(size=(n, means.shape[1]))
    return -((points[:, None] - means) ** 2).sum(axis=2) / 2, labels


MEANS = np.array([[0.0, 0], [2, 0], [0, 2]])
TRAIN_COUNTS = np.array([900, 90, 10])
EVEN = np.full(3, 1 / 3)


def posterior(densities):
    """Logits of a model that has learnt the training set's posterior exactly."""
    return (densities + np.log(TRAIN_COUNTS / 1000)).astype(np.float32)


def names(classes):
    return [f"class {i}" for i in range(classes)]


def corrections(found):
    return {entry["name"]: entry for entry in found["corrections"]}


@pytest.mark.parametrize("counts", [TRAIN_COUNTS, np.array([1, 1, 1]), np.array([0, 5, 0])])
@pytest.mark.parametrize("n", [1, 5, 200])
def test_it_is_plain_json(counts, n):
    densities, labels = gaussians(0, n, MEANS, EVEN)
    validation = gaussians(1, 50, MEANS, EVEN)
    found = imbalance.imbalance(densities, labels, names(3), counts, *validation, resamples=9)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["n"], found["resamples"]) == (n, 9)
    assert sum(group["n"] for group in found["groups"]) == n


def test_the_correction_is_the_rule_of_bayes():
    densities, _ = gaussians(0, 2000, MEANS, EVEN)
    logits = posterior(densities)
    chosen = imbalance.corrected(logits, TRAIN_COUNTS).argmax(axis=1)
    np.testing.assert_array_equal(chosen, densities.argmax(axis=1))
    assert np.mean(chosen != logits.argmax(axis=1)) > 0.2
    np.testing.assert_array_equal(imbalance.corrected(logits, TRAIN_COUNTS, 0.0), logits)


def test_the_corrected_accuracy_is_that_of_bayes():
    """Two classes whose means are 2 apart are told apart in Phi(1) of all cases at best."""
    counts = np.array([980, 20])
    densities, labels = gaussians(0, 20_000, MEANS[:2], [0.5, 0.5])
    logits = densities + np.log(counts / 1000)
    found = corrections(imbalance.imbalance(logits, labels, names(2), counts))
    low, high = found["tau_1"]["intervals"]["balanced_accuracy"]
    assert low < stats.norm.cdf(1) < high
    assert high - low < 0.012
    # Without, the boundary is log(49) / 2 further on.
    shift = np.log(49) / 2
    expected = (stats.norm.cdf(1 + shift) + stats.norm.cdf(1 - shift)) / 2
    low, high = found["uncorrected"]["intervals"]["balanced_accuracy"]
    assert low < expected < high
    low, high = found["tau_1"]["intervals"]["balanced_accuracy_gain"]
    assert low < stats.norm.cdf(1) - expected < high


@pytest.mark.parametrize(("scale", "tau"), [(0.5, 0.5), (1, 1), (2, 2)])
def test_validation_chooses_the_strength_that_suits_the_model(scale, tau):
    """Logits that are all too large by a factor need the correction times that factor."""
    test, validation = gaussians(0, 50, MEANS, EVEN), gaussians(1, 40_000, MEANS, EVEN)
    found = imbalance.imbalance(
        scale * posterior(test[0]),
        test[1],
        names(3),
        TRAIN_COUNTS,
        scale * posterior(validation[0]),
        validation[1],
        resamples=2,
    )
    chosen = found["validation"]
    assert chosen["tau"] == pytest.approx(tau, abs=0.2 * scale)
    assert chosen["n"] == 40_000
    best = chosen["taus"].index(chosen["tau"])
    assert chosen["balanced_accuracy"][best] == max(chosen["balanced_accuracy"])
    assert corrections(found)["tau_validation"]["tau"] == chosen["tau"]


def test_the_test_split_chooses_nothing():
    densities, labels = gaussians(0, 300, MEANS, EVEN)
    validation = gaussians(1, 300, MEANS, EVEN)
    logits = posterior(densities)
    found = [
        imbalance.imbalance(
            logits, of_test, names(3), TRAIN_COUNTS, posterior(validation[0]), validation[1]
        )
        for of_test in (labels, (labels + 1) % 3)
    ]
    assert found[0]["validation"] == found[1]["validation"]
    assert found[0]["corrections"] != found[1]["corrections"]


def test_without_a_difference_the_correction_is_the_weakest():
    logits = 100 * np.eye(3)[[0, 1, 2]]
    labels = np.arange(3)
    found = imbalance.imbalance(logits, labels, names(3), TRAIN_COUNTS, logits, labels)
    assert found["validation"]["tau"] == 0
    assert corrections(found)["tau_validation"]["accuracy_gain"] == 0


def test_values_worked_out_by_hand():
    logits = np.log(
        np.array([[8, 1, 1], [8, 1, 1], [1, 8, 1], [6, 3, 1], [5, 4, 1], [9, 0.5, 0.5]])
    )
    labels = np.array([0, 0, 1, 1, 2, 2])
    counts = np.array([150, 50, 10])
    found = imbalance.imbalance(logits, labels, ["a", "b", "c"], counts, resamples=20)
    assert found["train"] == {
        "n": 210,
        "largest": 150,
        "smallest": 10,
        "ratio": 15,
        "imbalanced": True,
    }
    assert found["grouping"]["rule"] == "liu_2019"
    assert found["groups"] == [
        {"name": "head", "classes": ["a"], "train_images": [150, 150], "n": 2},
        {"name": "medium", "classes": ["b"], "train_images": [50, 50], "n": 2},
        {"name": "tail", "classes": ["c"], "train_images": [10, 10], "n": 2},
    ]
    # a, a, b, a, a, a before; divided by 15 : 5 : 1 the largest are those of c, c, b, c, c, a.
    first, second = found["corrections"]
    assert (first["name"], first["tau"]) == ("uncorrected", 0)
    assert first["accuracy"] == first["balanced_accuracy"] == 0.5
    assert "accuracy_gain" not in first
    assert [group["accuracy"] for group in first["groups"]] == [1, 0.5, 0]
    assert (second["name"], second["tau"]) == ("tau_1", 1)
    assert [group["mean_recall"] for group in second["groups"]] == [0, 0.5, 0.5]
    assert second["accuracy_gain"] == pytest.approx(-1 / 6)
    assert [entry["recall_uncorrected"] for entry in found["per_class"]] == [1, 0.5, 0]
    assert [entry["recall_tau_1"] for entry in found["per_class"]] == [0, 0.5, 0.5]
    assert [entry["group"] for entry in found["per_class"]] == ["head", "medium", "tail"]
    assert [entry["train_images"] for entry in found["per_class"]] == [150, 50, 10]
    assert found["validation"] is None
    assert found["notes"] == [
        "Without validation images, the strength of the correction is not chosen."
    ]


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_numbers_and_intervals_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.choice(6, 120, p=[0.4, 0.3, 0.1, 0.1, 0.1, 0])  # the last never occurs
    logits = rng.normal(size=(120, 6)) + 1.5 * np.eye(6)[labels]
    counts = np.array([500, 300, 70, 60, 8, 3])
    found = imbalance.imbalance(logits, labels, names(6), counts, resamples=30, seed=4)
    groups = {"head": [0, 1], "medium": [2, 3], "tail": [4]}
    prior = counts / counts.sum()
    for entry, tau in zip(found["corrections"], (0, 1), strict=True):
        predicted = (logits - tau * np.log(prior)).argmax(axis=1)

        def numbers(drawn, predicted=predicted):
            y, p = labels[drawn], predicted[drawn]
            values = [sklearn.accuracy_score(y, p), sklearn.balanced_accuracy_score(y, p)]
            for classes in groups.values():
                inside = np.isin(y, classes)
                values.append(sklearn.accuracy_score(y[inside], p[inside]))
                values.append(sklearn.balanced_accuracy_score(y[inside], p[inside]))
            return values

        of_groups = [
            (group[key], group["intervals"][key])
            for group in entry["groups"]
            for key in ("accuracy", "mean_recall")
        ]
        shown = [(entry[key], entry["intervals"][key]) for key in ("accuracy", "balanced_accuracy")]
        assert [group["name"] for group in entry["groups"]] == list(groups)
        values, intervals = zip(*shown, *of_groups, strict=True)
        np.testing.assert_allclose(values, numbers(np.arange(120)))
        resampled = [
            numbers(np.repeat(np.arange(120), weights.astype(int)))
            for weights in bootstrap.resamples(120, seed=4, count=30)
        ]
        expected = np.quantile(resampled, [0.025, 0.975], axis=0).T
        np.testing.assert_allclose(intervals, expected)
    last = found["per_class"][5]
    assert last["recall_tau_1"] is last["intervals"]["recall_tau_1"] is None
    recalls = sklearn.recall_score(labels, logits.argmax(axis=1), average=None, labels=range(5))
    np.testing.assert_allclose(
        [entry["recall_uncorrected"] for entry in found["per_class"][:5]], recalls
    )


@pytest.mark.parametrize(
    ("counts", "rule", "groups"),
    [
        ([101, 100, 20, 19], "liu_2019", ["head", "medium", "medium", "tail"]),
        ([101, 3, 2, 1], "liu_2019", ["head", "tail", "tail", "tail"]),
        (
            [200, 900, 300, 400, 800, 500],
            "terciles",
            ["tail", "head", "tail", "medium", "head", "medium"],
        ),
        (
            [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 101],
            "terciles",
            [*["head"] * 3, *["medium"] * 4, *["tail"] * 3],
        ),
        ([5, 5, 5, 5, 5, 6], "terciles", [*["medium"] * 5, "head"]),
        ([40, 60], "terciles", ["tail", "head"]),
        ([30, 30, 30], "none", ["all", "all", "all"]),
        ([9], "none", ["all"]),
    ],
)
def test_classes_are_grouped_by_their_training_images(counts, rule, groups):
    labels = np.arange(len(counts))
    logits = np.eye(len(counts))
    found = imbalance.imbalance(logits, labels, names(len(counts)), np.array(counts), resamples=2)
    assert found["grouping"]["rule"] == rule
    assert [entry["group"] for entry in found["per_class"]] == groups
    for group in found["groups"]:
        inside = [c for c, name in enumerate(groups) if name == group["name"]]
        assert group["classes"] == [f"class {c}" for c in inside]
        of_group = [counts[c] for c in inside]
        assert group["train_images"] == [min(of_group), max(of_group)]
    present = [name for name in ("all", "head", "medium", "tail") if name in groups]
    assert [group["name"] for group in found["groups"]] == present


@pytest.mark.parametrize(
    ("counts", "ratio", "imbalanced"),
    [([6742, 5421], 6742 / 5421, False), ([10, 5], 2, True), ([7, 0], None, True)],
)
def test_a_training_set_is_imbalanced_from_a_ratio_of_two(counts, ratio, imbalanced):
    found = imbalance.imbalance(np.eye(2), np.arange(2), ["a", "b"], np.array(counts), resamples=2)
    assert found["train"]["ratio"] == ratio
    assert found["train"]["imbalanced"] is imbalanced


def test_a_class_without_training_images_is_named():
    found = imbalance.imbalance(
        np.eye(2), np.arange(2), ["a", "b"], np.array([7, 0]), np.eye(2), np.arange(2), resamples=2
    )
    assert found["notes"] == [
        "There are no training images of b; the correction counts one for each."
    ]


def test_a_group_without_examples_has_no_numbers():
    labels = np.zeros(4, int)
    found = imbalance.imbalance(np.eye(3)[labels], labels, names(3), TRAIN_COUNTS, resamples=5)
    head, medium, tail = found["corrections"][0]["groups"]
    assert head["accuracy"] == 1
    assert medium["n"] == tail["n"] == 0
    assert medium["accuracy"] is medium["intervals"]["mean_recall"] is None


def test_a_diverged_model_is_not_right():
    logits = np.full((6, 3), np.nan, np.float32)
    labels = np.arange(6) % 3
    found = imbalance.imbalance(logits, labels, names(3), TRAIN_COUNTS, logits, labels)
    assert [entry["accuracy"] for entry in found["corrections"]] == [1 / 3] * 3
    assert found["validation"]["tau"] == 0


@pytest.mark.parametrize(
    ("labels", "counts", "message"),
    [
        ([0, 1], [0, 0, 0], r"\[0, 0, 0\] cannot be"),
        ([0, 1], [3, -1, 1], r"-1, 1\] cannot be"),
        ([0, 3], [1, 1, 1], "Labels from 0 to 3"),
    ],
)
def test_what_does_not_fit_is_refused(labels, counts, message):
    with pytest.raises(ValueError, match=message):
        imbalance.imbalance(np.zeros((2, 3)), np.array(labels), names(3), np.array(counts))
