import json
import math

import numpy as np
import pytest

from imgrec.evaluation.confidence import conformal
from imgrec.evaluation.confidence.calibration import softmax

METHODS = ("lac", "lac_class_conditional", "aps", "aps_deterministic", "raps")


def draw(seed, n, classes, signal=1.5, hard=None):
    """Logits of classes that are equally easy, but for one of them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n).astype(np.int32)
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), labels] += np.where(labels == hard, signal / 3, signal)
    return logits, labels


def names(logits):
    return [f"class {i}" for i in range(logits.shape[1])]


def sections(logits, labels, validation_logits, validation_labels, seed=0):
    return conformal.conformal(
        logits, labels, validation_logits, validation_labels, names(logits), seed
    )


CASES = {
    "two classes": (*draw(0, 60, 2), *draw(1, 80, 2)),
    "ten classes": (*draw(2, 300, 10), *draw(3, 400, 10)),
    "three hundred classes": (*draw(4, 150, 300), *draw(5, 200, 300)),
    "one example": (*draw(6, 1, 10), *draw(7, 1, 10)),
    "few to calibrate on": (*draw(8, 50, 4), *draw(9, 14, 4)),
    "one class of labels": (draw(10, 30, 5)[0], np.full(30, 3), draw(11, 60, 5)[0], np.full(60, 3)),
    "one class of logits": (np.ones((6, 1)), np.zeros(6, int), np.ones((60, 1)), np.zeros(60, int)),
    "constant predictions": (np.zeros((20, 4)), np.arange(20) % 4) * 2,
    "all right": (10 * np.eye(5), np.arange(5)) * 2,
    "all wrong": (10 * np.eye(5), (np.arange(5) + 1) % 5) * 2,
}


@pytest.mark.parametrize("case", list(CASES))
def test_every_case_gives_plain_numbers_that_fit_together(case):
    found = sections(*CASES[case])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert sections(*CASES[case]) == found
    logits, labels, _, validation_labels = CASES[case]
    assert found["n"] == len(labels)
    assert found["n_validation"] == found["n_tuning"] + found["n_calibration"]
    assert found["n_validation"] == len(validation_labels)
    assert list(found["levels"]) == ["0.1", "0.05"]
    for methods in found["levels"].values():
        assert tuple(methods) == METHODS
        for method, entry in methods.items():
            sizes = entry["size_histogram"]
            assert sizes["count"][0] == 0  # no set is empty
            assert sum(sizes["count"]) + sizes["larger"] == len(labels)
            assert 1 <= entry["mean_set_size"] <= logits.shape[1]
            assert sum(s["n"] for s in entry["size_stratified"]) == len(labels)
            held = sum(s["n"] * (s["coverage"] or 0) for s in entry["size_stratified"])
            assert held == pytest.approx(len(labels) * entry["coverage"])
            counts = np.bincount(labels, minlength=logits.shape[1])
            of_class = [c or 0.0 for c in entry["class_coverage"]]
            assert counts @ of_class == pytest.approx(len(labels) * entry["coverage"])
            assert [c is None for c in entry["class_coverage"]] == (counts == 0).tolist()
            low, high = entry["intervals"]["coverage"]
            assert low <= entry["coverage"] <= high
            assert ("halves" in entry) == (method != "lac_class_conditional")
            assert ("k_reg" in entry) == (method == "raps")


@pytest.fixture(scope="module")
def fifty_splits():
    """Sections of fifty draws of ten classes, one of which is hard."""
    return [
        sections(*draw(2 * seed, 2000, 10, hard=3), *draw(2 * seed + 1, 2500, 10, hard=3), seed)
        for seed in range(50)
    ]


@pytest.mark.parametrize("alpha", conformal.ALPHAS)
@pytest.mark.parametrize("method", METHODS)
def test_what_was_promised_is_covered(fifty_splits, method, alpha):
    entries = [found["levels"][str(alpha)][method] for found in fifty_splits]
    covered = np.mean([entry["coverage"] for entry in entries])
    assert 1 - alpha - 0.015 <= covered <= 1 - alpha + 0.015
    held = [
        entry["intervals"]["coverage"][0] - 0.01
        <= 1 - alpha
        <= entry["intervals"]["coverage"][1] + 0.01
        for entry in entries
    ]
    assert np.mean(held) > 0.8
    if method != "lac_class_conditional":
        halves = np.mean([entry["halves"]["coverage_mean"] for entry in entries])
        assert halves == pytest.approx(covered, abs=0.01)
        assert all(0 < entry["halves"]["coverage_std"] < 0.03 for entry in entries)


@pytest.mark.parametrize("alpha", conformal.ALPHAS)
def test_a_hard_class_is_covered_only_by_its_own_threshold(fifty_splits, alpha):
    worst = {}
    for method in ("lac", "lac_class_conditional"):
        entries = [found["levels"][str(alpha)][method] for found in fifty_splits]
        worst[method] = np.mean([entry["class_coverage"] for entry in entries], axis=0).min()
        assert sum(entry["worst_class"] == "class 3" for entry in entries) == (
            50 if method == "lac" else pytest.approx(5, abs=10)
        )
    assert worst["lac"] < 1 - alpha - 0.05 <= worst["lac_class_conditional"]


def test_a_penalty_makes_smaller_sets():
    # Much probability in a long tail of classes: what RAPS is for.
    parts = [*draw(20, 1000, 100, signal=3), *draw(21, 1500, 100, signal=3)]
    for methods in sections(*parts)["levels"].values():
        assert methods["raps"]["mean_set_size"] < methods["aps"]["mean_set_size"]
        assert methods["raps"]["penalty"] in conformal.PENALTIES
        assert methods["lac"]["mean_set_size"] <= methods["aps"]["mean_set_size"]


@pytest.mark.parametrize("percent", [5, 10, 25])
def test_the_quantile_is_the_one_counted_out(percent):
    for n in range(1, 200):
        scores = np.random.default_rng(n).permutation(n).astype(float)
        # In whole numbers: the least k with 100 k >= (n + 1)(100 - percent).
        k = -(-(n + 1) * (100 - percent) // 100)
        expected = k - 1 if k <= n else math.inf
        assert conformal.quantile(scores, percent / 100) == expected
        assert (expected == math.inf) == (n + 1 < 100 / percent)


def test_each_class_has_the_quantile_of_its_own_scores():
    rng = np.random.default_rng(0)
    scores, labels = rng.random(200), rng.choice([0, 1, 3], 200, p=[0.7, 0.28, 0.02])
    found = conformal.class_quantiles(scores, labels, 5, 0.1)
    for c in range(5):
        assert found[c] == conformal.quantile(scores[labels == c], 0.1)
    assert np.isinf(found).tolist() == [False, False, True, True, True]


PROBABILITIES = np.array([[0.1, 0.6, 0.25, 0.05], [0.4, 0.1, 0.1, 0.4]])


def test_scores_worked_out_by_hand():
    def close(found, expected):
        np.testing.assert_allclose(found, expected, atol=1e-12)

    close(conformal.lac_scores(PROBABILITIES), [[0.9, 0.4, 0.75, 0.95], [0.6, 0.9, 0.9, 0.6]])
    # Of equal probabilities the first class comes first.
    mass = np.array([[0.95, 0.6, 0.85, 1.0], [0.4, 0.9, 1.0, 0.8]])
    before = mass - PROBABILITIES
    close(conformal.aps_scores(PROBABILITIES), before)
    close(conformal.aps_scores(PROBABILITIES, np.zeros(2)), mass)
    uniforms = np.array([0.5, 0.1])
    less = np.array([[0.05, 0.3, 0.125, 0.025], [0.04, 0.01, 0.01, 0.04]])
    close(conformal.aps_scores(PROBABILITIES, uniforms), mass - less)
    beyond = np.array([[2, 0, 1, 3], [0, 2, 3, 1]])
    close(conformal.aps_scores(PROBABILITIES, uniforms, 1, 0.2), mass - less + 0.2 * beyond)
    close(
        conformal.aps_scores(PROBABILITIES, None, 3, 0.2),
        before + np.array([[0, 0, 0, 0.2], [0, 0, 0.2, 0]]),
    )


def test_sets_worked_out_by_hand():
    scores = conformal.lac_scores(PROBABILITIES)

    def sets(threshold, **options):
        found = conformal.prediction_sets(scores, threshold, **options)
        return [np.flatnonzero(row).tolist() for row in found]

    assert sets(0.8) == [[1, 2], [0, 3]]
    assert sets(0.5) == [[1], [0]]  # filled with the first of the top classes
    assert sets(0.5, allow_empty=True) == [[1], []]
    assert sets(None) == sets(math.inf) == [[0, 1, 2, 3], [0, 1, 2, 3]]
    assert sets([0.9, 0.1, 0.8, None]) == [[0, 2, 3], [0, 3]]
    assert sets(np.array([0.5, 0.1, 0.1, math.inf])) == [[3], [3]]


def golden(seed, n):
    rng = np.random.default_rng(seed)
    labels, logits = rng.integers(0, 4, n), rng.normal(size=(n, 4))
    logits[np.arange(n), labels] += 1
    return softmax(logits), labels


# MAPIE 1.6.0, SplitConformalClassifier, prefit, calibrated on golden(0, 200): score, confidence
# level and the quantile it found; of golden(1, 100), sets of each size from 0 and sets that
# hold each class and the true one. Its "aps" draws random numbers to calibrate, so there the
# sets are compared at its quantile (include_last_label=True).
@pytest.mark.parametrize(
    ("score", "alpha", "threshold", "sizes", "classes", "held"),
    [
        ("lac", 0.1, 0.86573347, [0, 14, 41, 35, 10], [60, 60, 58, 63], 89),
        ("lac", 0.05, 0.92551032, [0, 2, 16, 43, 39], [82, 78, 80, 79], 96),
        ("aps", None, 0.92363392, [0, 0, 7, 54, 39], [87, 80, 84, 81], 96),
        ("aps", None, 0.96672774, [0, 0, 2, 24, 74], [95, 89, 93, 95], 100),
    ],
)
def test_it_agrees_with_mapie(score, alpha, threshold, sizes, classes, held):
    scores = {"lac": conformal.lac_scores, "aps": conformal.aps_scores}[score]
    probabilities, labels = golden(0, 200)
    if alpha:
        own = scores(probabilities)[np.arange(200), labels]
        assert conformal.quantile(own, alpha) == pytest.approx(threshold, abs=1e-8)
        threshold = conformal.quantile(own, alpha)
    probabilities, labels = golden(1, 100)
    sets = conformal.prediction_sets(scores(probabilities), threshold)
    assert np.bincount(sets.sum(axis=1), minlength=5).tolist() == sizes
    assert sets.sum(axis=0).tolist() == classes
    assert sets[np.arange(100), labels].sum() == held


def test_a_saved_threshold_gives_the_sets_that_were_measured():
    logits, labels, *validation = CASES["ten classes"]
    found = json.loads(json.dumps(sections(logits, labels, *validation)))
    probabilities = softmax(logits, found["temperature"])
    for methods in found["levels"].values():
        for method, scores in (
            ("lac", conformal.lac_scores(probabilities)),
            ("lac_class_conditional", conformal.lac_scores(probabilities)),
            ("aps_deterministic", conformal.aps_scores(probabilities)),
        ):
            sets = conformal.prediction_sets(scores, methods[method]["threshold"])
            assert methods[method]["coverage"] == sets[np.arange(len(labels)), labels].mean()
            assert methods[method]["mean_set_size"] == sets.sum(axis=1).mean()
            empty = ~conformal.prediction_sets(
                scores, methods[method]["threshold"], allow_empty=True
            ).any(axis=1)
            assert methods[method]["share_filled"] == empty.mean()


def test_nothing_depends_on_how_the_examples_are_cut(monkeypatch):
    found = sections(*CASES["ten classes"])
    monkeypatch.setattr("imgrec.evaluation.confidence.calibration.BLOCK", 130)
    cut = sections(*CASES["ten classes"])
    assert cut["temperature"] == pytest.approx(found["temperature"], rel=1e-9)
    for alpha, methods in found["levels"].items():
        for method, entry in methods.items():
            assert cut["levels"][alpha][method]["coverage"] == entry["coverage"]
            assert cut["levels"][alpha][method]["mean_set_size"] == entry["mean_set_size"]


def test_test_labels_choose_nothing():
    logits, labels, *validation = CASES["ten classes"]
    found = sections(logits, labels, *validation)
    poisoned = sections(logits, (labels + 1) % 10, *validation)
    assert poisoned["temperature"] == found["temperature"]
    chosen = ("threshold", "k_reg", "penalty", "halves", "mean_set_size", "size_histogram")
    for alpha, methods in found["levels"].items():
        for method, entry in methods.items():
            other = poisoned["levels"][alpha][method]
            assert [other.get(c) for c in chosen] == [entry.get(c) for c in chosen]
            assert other["coverage"] < entry["coverage"]


def test_tuning_examples_set_no_quantile():
    logits, labels, validation_logits, validation_labels = CASES["ten classes"]
    found = sections(logits, labels, validation_logits, validation_labels)
    assert (found["n_tuning"], found["n_calibration"]) == (80, 320)
    order = np.random.default_rng((0, conformal._PARTS)).permutation(400)
    kept = order[80:]
    probabilities = softmax(validation_logits[kept], found["temperature"])
    own = conformal.lac_scores(probabilities)[np.arange(320), validation_labels[kept]]
    assert found["levels"]["0.1"]["lac"]["threshold"] == conformal.quantile(own, 0.1)


def test_too_few_to_calibrate_on_is_every_class_in_words():
    found = sections(*CASES["few to calibrate on"])
    assert found["n_calibration"] == 12
    levels = found["levels"]
    assert levels["0.1"]["lac"]["threshold"] is not None
    for method in METHODS:
        assert levels["0.05"][method]["coverage"] == 1
        assert levels["0.05"][method]["mean_set_size"] == 4
    assert levels["0.05"]["lac"]["threshold"] is None
    assert levels["0.05"]["lac_class_conditional"]["threshold"] == [None] * 4
    text = " ".join(found["notes"])
    assert "At alpha = 0.05 at least 19 calibration examples are needed and there are 12" in text
    assert "At alpha = 0.1 at least" not in text
    assert "At alpha = 0.1 each class needs at least 9" in text


def test_a_model_that_is_right_more_often_covers_more_in_words():
    found = sections(*draw(30, 500, 4, signal=6), *draw(31, 500, 4, signal=6))
    lac = found["levels"]["0.1"]["lac"]
    assert lac["coverage"] > 0.97
    assert lac["share_filled"] > 0.02
    assert lac["mean_set_size"] == pytest.approx(1, abs=0.01)
    assert "more is covered than was asked" in " ".join(found["notes"])


def test_logits_that_are_not_finite_are_left_out_in_words():
    logits, labels, *validation = CASES["two classes"]
    broken = np.concatenate([logits, np.full((2, 2), np.nan, np.float32)])
    broken_labels = np.append(labels, [0, 0])
    found = sections(broken, broken_labels, *validation)
    assert found["levels"] == sections(logits, labels, *validation)["levels"]
    assert found["notes"][0].startswith("2 of 62 examples")
    for parts, which in (
        ((logits * np.nan, labels, *validation), "No example"),
        ((logits, labels, logits * np.nan, labels), "No validation example"),
    ):
        nothing = sections(*parts)
        assert nothing["levels"] is None
        assert nothing["reasons"]["levels"].startswith(which)


def test_what_does_not_fit_is_refused():
    fits = np.zeros((2, 3)), np.zeros(2, int)
    with pytest.raises(ValueError, match=r"2 class names .* 3 logits"):
        conformal.conformal(*fits, *fits, ["a", "b"])
    with pytest.raises(ValueError, match="0 validation examples"):
        sections(*fits, np.zeros((0, 3)), np.zeros(0, int))
    with pytest.raises(ValueError, match=r"validation examples do not fit 3 logits"):
        sections(*fits, np.zeros((1, 3)), np.array([3]))
    with pytest.raises(ValueError, match="alpha"):
        conformal.quantile(np.zeros(3), 1.5)
