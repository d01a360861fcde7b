import json

import numpy as np
import pytest
from scipy.stats import binom

from imgrec.evaluation import bootstrap
from imgrec.evaluation.confidence import selective
from imgrec.evaluation.confidence.calibration import fit_temperature, softmax

COVERAGES = (50, 70, 80, 90, 95, 99, 100)


def draw(seed, n, classes, scale=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n).astype(np.int32)
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), labels] += 1.5
    return (scale * logits).astype(np.float32), labels


CASES = {
    "two classes": draw(0, 60, 2),
    "ten classes": draw(1, 500, 10, 3.0),
    "one example": draw(2, 1, 10),
    "one class of labels": (draw(3, 30, 5)[0], np.full(30, 3, np.int32)),
    "one class of logits": (np.ones((6, 1), np.float32), np.zeros(6, np.int32)),
    "constant predictions": (np.zeros((20, 4), np.float32), np.arange(20, dtype=np.int32) % 4),
    "all right": (10 * np.eye(5, dtype=np.float32), np.arange(5, dtype=np.int32)),
    "all wrong": (10 * np.eye(5, dtype=np.float32), (np.arange(5, dtype=np.int32) + 1) % 5),
    "ties": (np.repeat(draw(5, 9, 3)[0], 5, axis=0), np.arange(45, dtype=np.int32) % 3),
}


def curve(confidence, right):
    """Coverage and risk at each confidence that occurs, one threshold at a time."""
    thresholds = sorted(set(confidence.tolist()), reverse=True)
    kept = [confidence >= t for t in thresholds]
    return (
        thresholds,
        np.array([k.mean() for k in kept]),
        np.array([1 - right[k].mean() for k in kept]),
    )


@pytest.mark.parametrize("case", list(CASES))
def test_it_agrees_with_a_loop_over_thresholds(case):
    logits, labels = CASES[case]
    found = selective.selective(logits, labels, logits, labels)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["n"] == found["n_validation"] == len(labels)
    assert found["temperature"] == fit_temperature(logits, labels)
    right = logits.argmax(axis=1) == labels
    for name, confidence in (
        ("max_softmax", softmax(logits, found["temperature"]).max(axis=1)),
        ("max_logit", logits.max(axis=1)),
    ):
        scores = found[name]
        thresholds, coverage, risk = curve(confidence, right)
        # Every example has the risk of what is at least as confident.
        of_examples = [risk[thresholds.index(value)] for value in confidence.tolist()]
        assert scores["aurc"] == pytest.approx(np.mean(of_examples), abs=1e-12)
        for percent in COVERAGES:
            at = np.flatnonzero(coverage >= percent / 100 - 1e-9)[0]
            expected = pytest.approx(1 - risk[at], abs=1e-12)
            assert scores[f"accuracy_at_coverage_{percent}"] == expected
        for percent in (1, 5):
            expected = max(coverage[risk <= percent / 100], default=0)
            assert scores[f"coverage_at_risk_{percent}"] == pytest.approx(expected)
        assert scores["accuracy_at_coverage_100"] == right.mean()
        assert 0 <= scores["e_aurc"] <= scores["aurc"] <= 1
        assert scores["e_aurc"] == pytest.approx(scores["aurc"] - scores["aurc_optimal"], abs=1e-9)
        for metric, (low, high) in scores["intervals"].items():
            assert low <= scores[metric] + 1e-9, metric
            assert high >= scores[metric] - 1e-9 or metric == "e_aurc", metric
        if len(thresholds) <= 200:
            assert scores["curve"]["threshold"] == pytest.approx(thresholds)
            assert scores["curve"]["coverage"] == pytest.approx(coverage)
            assert scores["curve"]["risk"] == pytest.approx(risk)


@pytest.mark.parametrize("case", list(CASES))
def test_the_order_of_the_examples_does_not_matter(case):
    logits, labels = CASES[case]
    order = np.random.default_rng(0).permutation(len(labels))
    found = selective.selective(logits, labels)
    permuted = selective.selective(logits[order], labels[order])
    for name in ("max_softmax", "max_logit"):
        assert permuted[name]["curve"] == found[name]["curve"]
        assert permuted[name]["aurc"] == found[name]["aurc"]


def test_values_worked_out_by_hand():
    right = np.array([True, False, True, True, False])
    ranked = selective.rank(np.array([0.9, 0.8, 0.8, 0.7, 0.6]), right)
    assert ranked.threshold.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert ranked.accepted.tolist() == [1, 3, 4, 5]  # the two of 0.8 at once
    assert ranked.errors.tolist() == [0, 1, 1, 2]
    assert ranked.risk.tolist() == [0, 1 / 3, 1 / 4, 2 / 5]
    scores = selective._scores(ranked, bootstrap.resamples(5))
    assert scores["aurc"] == pytest.approx((0 + 2 / 3 + 1 / 4 + 2 / 5) / 5)
    # Both errors last: risks of 0, 0, 0, 1/4 and 2/5.
    assert scores["aurc_optimal"] == pytest.approx((1 / 4 + 2 / 5) / 5)
    assert scores["e_aurc"] == pytest.approx((2 / 3) / 5)
    assert scores["accuracy_at_coverage_50"] == pytest.approx(2 / 3)
    assert scores["coverage_at_risk_5"] == pytest.approx(1 / 5)


@pytest.mark.parametrize("n", [1, 2, 30])
def test_errors_that_rank_last_are_optimal(n):
    optimal = selective._optimal_areas(n)
    for errors in range(n + 1):
        right = np.arange(n) < n - errors
        scores = selective._scores(
            selective.rank(-np.arange(n, dtype=float), right), bootstrap.resamples(n, count=20)
        )
        assert scores["aurc"] == pytest.approx(optimal[errors], abs=1e-12)
        assert scores["e_aurc"] == pytest.approx(0, abs=1e-12)


def test_a_confidence_that_says_nothing_has_the_risk_of_all():
    right = np.arange(20) % 4 > 0
    scores = selective._scores(selective.rank(np.ones(20), right), bootstrap.resamples(20))
    assert scores["aurc"] == 0.25
    assert scores["curve"] == {"coverage": [1.0], "risk": [0.25], "threshold": [1.0]}
    assert all(scores[f"accuracy_at_coverage_{c}"] == 0.75 for c in COVERAGES)
    assert scores["coverage_at_risk_5"] == 0


def test_areas_are_resampled_as_if_computed_on_each_resample(monkeypatch):
    rng = np.random.default_rng(0)
    confidence = -np.sort(-rng.integers(0, 15, 40) / 15)
    ranked = selective.rank(confidence, right := rng.random(40) < confidence)
    weights = bootstrap.resamples(40, count=7)
    monkeypatch.setattr(selective, "BLOCK", 100)  # so that they come in several parts
    areas, failures, coverages = selective._resampled(ranked, weights)
    for i, weight in enumerate(weights):
        rows = np.repeat(np.arange(40), weight.astype(int))
        resample = selective.rank(confidence[rows], right[rows])
        scores = selective._scores(resample, weights[:, :40])
        assert areas[i] == pytest.approx(scores["aurc"])
        assert failures[i] == (~right[rows]).sum()
        assert coverages[0.05][i] == pytest.approx(scores["coverage_at_risk_5"])


def test_what_a_threshold_gives_is_counted_on_the_test_examples():
    logits, labels = draw(6, 400, 4, 2.0)
    validation = draw(7, 300, 4, 2.0)
    found = selective.selective(logits, labels, *validation)
    right = logits.argmax(axis=1) == labels
    confidence = softmax(logits, found["temperature"]).max(axis=1)
    chosen = found["max_softmax"]["thresholds"]
    assert [(c["target_risk"], c["chosen"]) for c in chosen] == [
        (0.01, "empirical"),
        (0.01, "guaranteed"),
        (0.05, "empirical"),
        (0.05, "guaranteed"),
    ]
    for entry in chosen:
        if entry["threshold"] is None:
            assert entry["reason"]
            continue
        kept = confidence >= entry["threshold"]
        assert entry["coverage"] == kept.mean()
        assert entry["risk"] == pytest.approx(1 - right[kept].mean())
        assert entry["intervals"]["risk"] == bootstrap.wilson(
            int((~right[kept]).sum()), int(kept.sum())
        )
        assert entry["validation"]["risk"] <= entry["target_risk"]
    empirical, guaranteed = chosen[2:]
    assert empirical["threshold"] is not None
    if guaranteed["threshold"] is not None:
        assert guaranteed["validation"]["coverage"] <= empirical["validation"]["coverage"]


def test_an_empirical_threshold_covers_the_most():
    ranked = selective.rank(np.arange(9.0), np.array([0, 1, 1, 1, 0, 1, 1, 1, 1], bool))
    assert selective._empirical(ranked, 0.0) == 3
    assert selective._empirical(ranked, 0.2) == 7  # past 4, where it is higher
    assert selective._empirical(ranked, 1.0) == 8
    assert selective._empirical(selective.rank(np.arange(3.0), np.zeros(3, bool)), 0.5) is None


def test_a_guaranteed_threshold_keeps_its_promise():
    # The risk at a confidence c is 1 - c, so above a threshold t it is (1 - t) / 2.
    exceeded, found, empirical = 0, 0, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        confidence = rng.random(1000)
        ranked = selective.rank(confidence, rng.random(1000) < confidence)
        group = selective._guaranteed(ranked, 0.2)
        if group is not None:
            found += 1
            exceeded += (1 - ranked.threshold[group]) / 2 > 0.2
        empirical += (1 - ranked.threshold[selective._empirical(ranked, 0.2)]) / 2 > 0.2
    assert found > 150
    assert exceeded <= 0.05 * 200
    assert empirical > 0.3 * 200  # what the guarantee is for


def test_the_bound_of_the_guarantee_is_the_exact_binomial_one():
    # 150 right of 150: of a single group one look is made, at the whole of DELTA.
    right = np.ones(150, bool)
    ranked = selective.rank(np.ones(150), right)
    bound = 1 - 0.05 ** (1 / 150)
    assert binom.cdf(0, 150, bound) == pytest.approx(0.05)
    assert selective._guaranteed(ranked, bound + 1e-6) == 0
    assert selective._guaranteed(ranked, bound - 1e-6) is None


def test_test_labels_choose_nothing():
    logits, labels = draw(8, 300, 5, 2.0)
    validation = draw(9, 300, 5, 2.0)
    found = selective.selective(logits, labels, *validation)
    poisoned = selective.selective(logits, (labels + 1) % 5, *validation)
    assert poisoned["temperature"] == found["temperature"]
    for name in ("max_softmax", "max_logit"):
        for clean, other in zip(
            found[name]["thresholds"], poisoned[name]["thresholds"], strict=True
        ):
            assert other["threshold"] == clean["threshold"]
            assert other["validation"] == clean["validation"]
            assert other["coverage"] == clean["coverage"]


def test_without_validation_nothing_is_chosen():
    found = selective.selective(*CASES["ten classes"])
    assert found["temperature"] is None
    assert found["max_softmax"]["thresholds"] == found["max_logit"]["thresholds"] == []
    assert "validation" in found["reasons"]["thresholds"]
    assert found["n_validation"] == 0


def test_a_curve_has_at_most_two_hundred_points():
    logits, labels = draw(10, 3000, 4)
    of_softmax = selective.selective(logits, labels)["max_softmax"]["curve"]
    assert len(of_softmax["coverage"]) == len(of_softmax["risk"]) == 200
    assert of_softmax["coverage"][-1] == 1
    assert of_softmax["coverage"] == sorted(of_softmax["coverage"])


def test_a_threshold_may_accept_nothing_in_words():
    logits, labels = draw(11, 50, 3)
    found = selective.selective(logits * 1e-3, labels, 100 * np.eye(3), np.arange(3))
    empirical = found["max_logit"]["thresholds"][0]
    assert empirical["threshold"] == 100
    assert (empirical["coverage"], empirical["risk"]) == (0, None)
    assert empirical["reason"] == "No example is as confident."


def test_logits_that_are_not_finite_are_left_out_in_words():
    logits, labels = draw(12, 40, 4)
    broken = np.concatenate([logits, np.full((2, 4), np.nan, np.float32)])
    found = selective.selective(broken, np.append(labels, [0, 0]))
    assert found["max_softmax"] == selective.selective(logits, labels)["max_softmax"]
    assert found["notes"][0].startswith("2 of 42 examples")
    nothing = selective.selective(logits * np.nan, labels, logits * np.nan, labels)
    assert nothing["max_softmax"] is nothing["max_logit"] is None
    assert set(nothing["reasons"]) == {"temperature", "thresholds", "max_softmax", "max_logit"}
    assert nothing["n"] == 0


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="0 examples"):
        selective.selective(np.zeros((0, 3)), np.zeros(0, int))
    with pytest.raises(ValueError, match=r"from 0 to 3 .* 3 logits"):
        selective.selective(np.zeros((1, 3)), np.array([0]), np.zeros((2, 3)), np.array([0, 3]))
