"""Separation of two sets of scores: the definitions, counted out, on scores with many ties."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from imgrec.evaluation.unknown import ood_metrics
from imgrec.evaluation.unknown.ood_metrics import Ranked

METRICS = ("auroc", "aupr_in", "aupr_out", "fpr95_id_positive", "fpr95_ood_positive")


def drawn(seed, n=60, m=43, ties=True):
    rng = np.random.default_rng(seed)
    inside, outside = rng.normal(0.7, 1, n), rng.normal(0, 1, m)
    return (np.round(2 * inside), np.round(2 * outside)) if ties else (inside, outside)


def brute(inside, outside):
    """Every metric by its definition, going through all pairs or all thresholds."""
    pairs = inside[:, None] - outside[None]
    thresholds = np.unique(np.concatenate([inside, outside]))
    accepting = [t for t in thresholds if np.mean(inside >= t) >= 0.95 - 1e-12]
    rejecting = [t for t in thresholds if np.mean(outside <= t) >= 0.95 - 1e-12]
    return {
        "auroc": np.mean((pairs > 0) + 0.5 * (pairs == 0)),
        "aupr_in": precision(inside, outside),
        "aupr_out": precision(-outside, -inside),
        "fpr95_id_positive": min(np.mean(outside >= t) for t in accepting),
        "fpr95_ood_positive": min(np.mean(inside <= t) for t in rejecting),
    }


def precision(positive, negative):
    total, recall = 0.0, 0.0
    for t in np.unique(np.concatenate([positive, negative]))[::-1]:
        found, wrong = np.sum(positive >= t), np.sum(negative >= t)
        total += (found / len(positive) - recall) * found / (found + wrong)
        recall = found / len(positive)
    return total


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_every_metric_is_what_its_definition_counts(seed, ties):
    inside, outside = drawn(seed, ties=ties)
    found = ood_metrics.separation(inside, outside)
    for name, expected in brute(inside, outside).items():
        assert found[name] == pytest.approx(expected, abs=1e-12), name


@pytest.mark.parametrize("ties", [True, False])
def test_they_are_scikit_learns(ties):
    inside, outside = drawn(9, 400, 300, ties)
    found = ood_metrics.separation(inside, outside)
    truth = np.repeat([1, 0], [400, 300])
    scores = np.concatenate([inside, outside])
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert found["aupr_in"] == pytest.approx(average_precision_score(truth, scores))
    assert found["aupr_out"] == pytest.approx(average_precision_score(1 - truth, -scores))
    for name, positive, sign in (("id", truth, 1), ("ood", 1 - truth, -1)):
        fpr, tpr, _ = roc_curve(positive, sign * scores, drop_intermediate=False)
        assert found[f"fpr95_{name}_positive"] == pytest.approx(fpr[tpr >= 0.95][0])


def test_the_two_conventions_are_two_numbers_and_trade_places():
    inside, outside = drawn(2)
    one, other = ood_metrics.separation(inside, outside), ood_metrics.separation(-outside, -inside)
    assert one["fpr95_id_positive"] != one["fpr95_ood_positive"]
    assert one["fpr95_id_positive"] == other["fpr95_ood_positive"]
    assert one["aupr_in"] == pytest.approx(other["aupr_out"])
    assert one["auroc"] == pytest.approx(other["auroc"])


def test_apart_alike_and_the_wrong_way_round():
    apart = ood_metrics.separation(np.arange(20.0) + 100, np.arange(7.0))
    assert [apart[name] for name in METRICS] == [1, 1, 1, 0, 0]
    alike = ood_metrics.separation(np.zeros(30), np.zeros(10))
    assert [alike[name] for name in METRICS] == [0.5, 0.75, 0.25, 1, 1]
    wrong = ood_metrics.separation(np.arange(7.0), np.arange(20.0) + 100)
    assert (wrong["auroc"], wrong["fpr95_id_positive"], wrong["fpr95_ood_positive"]) == (0, 1, 1)
    assert ood_metrics.separation(np.ones(1), np.zeros(1))["auroc"] == 1


def test_exactly_95_percent_is_enough():
    # Of 20 scores 19 are accepted at 1, and no image outside is; at 0 all of both are.
    found = ood_metrics.separation(np.arange(20.0), np.full(5, 0.5))
    assert found["fpr95_id_positive"] == 0


def test_resampled_values_are_those_of_the_resampled_scores(monkeypatch):
    """The counting of resamples against sets that are really drawn with replacement."""
    inside, outside = drawn(4)
    weights = ood_metrics.resampled(len(inside), len(outside), count=7)
    kept = []
    monkeypatch.setattr(ood_metrics.bootstrap, "interval", lambda values: kept.append(values))
    ood_metrics.separation(inside, outside, weights)
    for name, values in zip(METRICS, kept, strict=True):
        for i in range(7):
            some, others = (
                np.repeat(scores, w[i].astype(int))
                for scores, w in zip((inside, outside), weights, strict=True)
            )
            assert values[i] == pytest.approx(brute(some, others)[name], abs=1e-12), name


def test_intervals_hold_the_estimate_and_shrink_with_more_images():
    widths = []
    for n in (100, 1600):
        inside, outside = drawn(6, n, n, ties=False)
        found = ood_metrics.separation(inside, outside, ood_metrics.resampled(n, n, count=300))
        for name in METRICS:
            low, high = found["intervals"][name]
            assert 0 <= low <= found[name] <= high <= 1
        low, high = found["intervals"]["auroc"]
        widths.append(high - low)
    assert widths[1] < widths[0] / 2.5  # a quarter, but for chance
    # Hanley & McNeil (1982), equation 2, for scores of two normal distributions.
    area = found["auroc"]
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + (1600 - 1) * (q1 + q2 - 2 * area**2)) / 1600**2
    assert widths[1] == pytest.approx(2 * 1.96 * variance**0.5, rel=0.15)


def test_both_sets_are_resampled_apart():
    inside, outside = ood_metrics.resampled(50, 50, count=20)
    assert not (inside == outside).all()
    correlation = np.corrcoef(inside.ravel(), outside.ravel())[0, 1]
    assert abs(correlation) < 0.15


@pytest.mark.parametrize(
    ("inside", "outside", "why"),
    [
        (np.ones(3), np.ones(0), "no images to compare"),
        (np.ones(0), np.ones(3), "no images to compare"),
        (np.array([1, np.nan]), np.array([np.inf, 0, 1]), "2 of 5 scores are not finite"),
    ],
)
def test_what_is_not_defined_says_why(inside, outside, why):
    found = ood_metrics.separation(inside, outside)
    assert [found[name] for name in METRICS] == [None] * 5
    assert found["intervals"] == dict.fromkeys(METRICS)
    assert all(why in found["reasons"][name] for name in METRICS)
    assert (found["n"], found["n_ood"]) == (len(inside), len(outside))


@pytest.mark.parametrize("n", [1, 19, 20, 21, 1000])
def test_the_threshold_is_the_highest_that_keeps_95_percent(n):
    scores = np.random.default_rng(n).normal(size=n)
    threshold = ood_metrics.threshold(scores)
    assert np.mean(scores >= threshold) >= 0.95
    higher = np.sort(scores)[np.sort(scores) > threshold]
    assert not len(higher) or np.mean(scores >= higher[0]) < 0.95
    assert ood_metrics.threshold(np.array([])) is None
    assert ood_metrics.threshold(np.array([1.0, np.nan])) is None


@pytest.mark.parametrize("n", [3, 2000])
def test_the_curve_runs_from_nothing_to_everything(n):
    inside, outside = drawn(1, n, n, ties=n == 3)
    curve = ood_metrics.roc(Ranked.of(inside, outside))
    assert list(curve) == ["accepted_ood", "accepted_id"]
    for values in curve.values():
        assert len(values) <= ood_metrics.CURVE_POINTS + 1
        assert values[0] == 0 and values[-1] == 1 and (np.diff(values) >= 0).all()
    area = np.trapezoid(curve["accepted_id"], curve["accepted_ood"])
    assert area == pytest.approx(ood_metrics.separation(inside, outside)["auroc"], abs=1e-3)


def test_histograms_count_everything_once():
    inside, outside = drawn(3, 500, 400, ties=False)
    inside[0] = -1e9  # a stray one does not squeeze the others into one bin
    found = ood_metrics.histograms(inside, outside)
    assert len(found["edges"]) == 41 and found["edges"][0] > -10
    assert (sum(found["id"]), sum(found["ood"])) == (500, 400)
    assert sum(count > 0 for count in found["id"]) > 20
    same = ood_metrics.histograms(np.full(4, 2.0), np.full(3, 2.0))
    assert (sum(same["id"]), sum(same["ood"])) == (4, 3) and (np.diff(same["edges"]) > 0).all()
