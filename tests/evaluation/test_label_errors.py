import json

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from imgrec.evaluation import label_errors
from imgrec.evaluation.confidence import calibration

NAMES = {k: [f"class {i}" for i in range(k)] for k in (1, 2, 3, 4, 10, 101)}


def case(seed, n, classes, noise, skill):
    """Logits of a model that knows the truth, and labels some of which are the next class."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, n)
    given = np.where(rng.random(n) < noise, (true + 1) % classes, true)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), true] += skill
    return logits, given, true


def test_a_case_by_hand():
    """Thresholds: of a (.9 + .8 + .1) / 3 = .6, of b (.7 + .6 + .2) / 3 = .5."""
    p = np.array([0.9, 0.8, 0.1, 0.3, 0.4, 0.8])
    labels = np.array([0, 0, 0, 1, 1, 1])
    logits = np.log(np.stack([p, 1 - p], axis=1))
    found = label_errors.label_errors(logits, labels, ["a", "b"], np.array([0, 0, 1, 1, 1, 1]))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [c["threshold"] for c in found["per_class"]] == pytest.approx([0.6, 0.5])
    assert found["confident_joint"] == [[2, 1], [1, 2]]
    assert found["estimated_errors"] == pytest.approx(2)
    assert found["estimated_share"] == pytest.approx(1 / 3)
    np.testing.assert_allclose(found["noise_matrix"], [[2 / 3, 1 / 3], [1 / 3, 2 / 3]])
    first, second = found["suspects"]
    assert (first["index"], first["given"], first["suggested"]) == (2, "a", "b")
    assert first["score"] == pytest.approx(-0.8)
    assert first["probability"] == pytest.approx(0.9)
    assert first["given_probability"] == pytest.approx(0.1)
    assert (second["index"], second["score"]) == (5, pytest.approx(-0.6))
    assert found["truth"]["wrong"] == 1
    assert found["truth"]["precision"] == 0.5 and found["truth"]["recall"] == 1
    pairs = [(pair["given"], pair["suggested"], pair["suspects"]) for pair in found["pairs"]]
    assert pairs == [("a", "b", 1), ("b", "a", 1)]


def test_only_what_the_model_contradicts_is_suspected():
    """Class b is rare and unsure, and much of a reaches its threshold, without being likelier."""
    p = np.array([0.99] * 40 + [0.6] * 20 + [0.5, 0.3])
    labels = np.repeat([0, 1], [60, 2])
    found = label_errors.label_errors(np.log(np.stack([p, 1 - p], axis=1)), labels, ["a", "b"])
    assert found["per_class"][1]["threshold"] == pytest.approx(0.6)
    p[40:60] = 0.35
    found = label_errors.label_errors(np.log(np.stack([p, 1 - p], axis=1)), labels, ["a", "b"])
    assert found["estimated_errors"] > 10
    assert found["n_suspects"] == round(found["estimated_errors"])
    assert all(suspect["score"] < 0 for suspect in found["suspects"])


def test_what_reaches_no_threshold_counts_for_nothing():
    p = np.array([0.9, 0.9, 0.55, 0.1, 0.1, 0.45])
    labels = np.array([0, 0, 0, 1, 1, 1])
    found = label_errors.label_errors(np.log(np.stack([p, 1 - p], axis=1)), labels, ["a", "b"])
    # Thresholds 0.783 both: the third and the sixth are too unsure for either class.
    assert found["confident_joint"] == [[2, 0], [0, 2]]
    assert found["n_suspects"] == 0 and found["estimated_share"] == 0
    assert found["truth"] is None


# What cleanlab 2.9.0 says of `case`, by compute_confident_joint (not calibrated), estimate_joint
# and find_label_issues (filter_by="low_normalized_margin", ranked by that margin).
CLEANLAB = [
    (
        (0, 300, 3, 0.15, 3.0),
        [[70, 0, 14], [8, 65, 0], [0, 9, 77]],
        [0.7379896821155134, 0.7230605332484138, 0.7842356005571509],
        0.1266666666666667,
        [253, 117, 107, 98, 165, 215, 84, 204, 252, 141, 190, 62],
    ),
    (
        (1, 400, 4, 0.1, 4.0),
        [[64, 0, 0, 7], [9, 78, 0, 0], [0, 9, 63, 0], [0, 0, 15, 94]],
        [0.8394349028487709, 0.7994461185523595, 0.8086501628046524, 0.768975805462622],
        0.11499999999999999,
        [159, 47, 214, 119, 360, 161, 301, 213, 98, 42, 309, 258],
    ),
]


@pytest.mark.parametrize(("arguments", "joint", "thresholds", "share", "first"), CLEANLAB)
def test_it_finds_what_cleanlab_finds(arguments, joint, thresholds, share, first):
    logits, given, _ = case(*arguments)
    found = label_errors.label_errors(logits, given, NAMES[logits.shape[1]])
    assert found["confident_joint"] == joint
    np.testing.assert_allclose([c["threshold"] for c in found["per_class"]], thresholds)
    assert found["n_suspects"] == round(found["estimated_errors"])
    assert [suspect["index"] for suspect in found["suspects"][:12]] == first
    # cleanlab rounds the joint to whole examples.
    assert found["estimated_share"] == pytest.approx(share, abs=2 / len(given))
    low, high = found["intervals"]["estimated_share"]
    assert low < found["estimated_share"] < high
    np.testing.assert_allclose(np.sum(found["noise_matrix"], axis=0), 1)


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_errors_among_digits_are_found(seed):
    images, true = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(true)) < 0.1
    given = np.where(wrong, (true + rng.integers(1, 10, len(true))) % 10, true)
    model = KNeighborsClassifier(10)
    p = cross_val_predict(model, images, given, cv=4, method="predict_proba") + 1e-9
    found = label_errors.label_errors(np.log(p), given, NAMES[10], true)
    truth = found["truth"]
    assert truth["wrong"] == wrong.sum()
    assert truth["recall"] >= 0.85 and truth["precision"] >= 0.5
    low, high = truth["intervals"]["recall"]
    assert low < truth["recall"] <= high
    assert found["estimated_share"] == pytest.approx(0.1, abs=0.04)
    assert len(found["suspects"]) == label_errors.MOST_SUSPECTS
    scores = [suspect["score"] for suspect in found["suspects"]]
    assert scores == sorted(scores)
    assert wrong[[suspect["index"] for suspect in found["suspects"]]].mean() > 0.9


def test_clean_labels_of_a_good_model_are_not_suspected():
    logits, given, true = case(3, 500, 3, 0.0, 12.0)
    found = label_errors.label_errors(logits, given, NAMES[3], true)
    assert found["n_suspects"] == 0 and found["suspects"] == [] and found["pairs"] == []
    assert found["intervals"]["estimated_share"] == [0, 0]
    assert found["truth"] == {
        "wrong": 0,
        "precision": None,
        "recall": None,
        "intervals": {"precision": None, "recall": None},
    }


def test_a_model_that_always_says_the_same_suspects_nobody():
    found = label_errors.label_errors(np.zeros((60, 3)), np.arange(60) % 3, NAMES[3])
    assert found["n_suspects"] == 0 and found["estimated_share"] == 0


def test_nothing_counts_for_a_class_without_labels():
    logits, given, _ = case(4, 200, 3, 0.1, 3.0)
    given = np.where(given == 2, 0, given)
    found = label_errors.label_errors(logits, given, NAMES[3])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["per_class"][2]["threshold"] is None
    assert [row[2] for row in found["confident_joint"]] == [0, 0, 0]
    assert [row[2] for row in found["noise_matrix"]] == [None, None, None]
    assert found["notes"] == ["No example is labelled class 2, so nothing counts for it."]


@pytest.mark.parametrize("fill", [np.nan, np.inf])
def test_examples_without_finite_logits_are_left_out(fill):
    logits, given, _ = case(0, 300, 3, 0.15, 3.0)
    whole = label_errors.label_errors(logits, given, NAMES[3])
    before = np.full((7, 3), fill)
    found = label_errors.label_errors(
        np.concatenate([before, logits]), np.concatenate([np.zeros(7, int), given]), NAMES[3]
    )
    assert found["confident_joint"] == whole["confident_joint"]
    assert found["n"] == 307 and len(found["notes"]) == 1
    shifted = [suspect["index"] - 7 for suspect in found["suspects"]]
    assert shifted == [suspect["index"] for suspect in whole["suspects"]]
    nothing = label_errors.label_errors(before, np.zeros(7, int), NAMES[3])
    assert nothing["n_suspects"] == 0 and nothing["estimated_share"] is None


def test_degenerate_sizes_are_no_failure():
    one = label_errors.label_errors(np.zeros((1, 2)), np.array([1]), NAMES[2])
    assert one["n_suspects"] == 0 and one["estimated_share"] == 0
    only = label_errors.label_errors(np.zeros((5, 1)), np.zeros(5, int), NAMES[1])
    assert only["confident_joint"] == [[5]] and only["n_suspects"] == 0


def test_nothing_depends_on_blocks_and_matrices_of_many_classes_are_left_out(monkeypatch):
    logits, given, _ = case(5, 700, 101, 0.1, 8.0)
    whole = label_errors.label_errors(logits, given, NAMES[101])
    assert whole["confident_joint"] is None and whole["noise_matrix"] is None
    assert 40 < whole["n_suspects"] < 120
    monkeypatch.setattr(calibration, "BLOCK", 1010)
    assert label_errors.label_errors(logits, given, NAMES[101]) == whole


@pytest.mark.parametrize(
    ("logits", "labels", "names", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0, int), NAMES[2], "0 examples"),
        (np.zeros((3, 2)), np.zeros(3, int), NAMES[3], "3 class names"),
        (np.zeros((3, 2)), np.full(3, 2), NAMES[2], "from 2 to 2"),
    ],
)
def test_what_does_not_fit_is_refused(logits, labels, names, message):
    with pytest.raises(ValueError, match=message):
        label_errors.label_errors(logits, labels, names)
