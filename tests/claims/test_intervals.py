"""Intervals against scipy's own and against simulation; verdicts by each rule."""

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from imgrec import claims
from imgrec.claims import Interval


def result(values, metric="test accuracy", **more):
    base = {"metric": metric, "values": list(values), "n": 10_000, "reached": True}
    return {**base, "rule": "seeds", **more}


def test_of_seeds_it_is_students_prediction_interval():
    values = [0.9, 0.91, 0.93]
    for again in (1, 3):
        scale = statistics.stdev(values) * math.sqrt(1 / 3 + 1 / again)
        low, high = stats.t.interval(0.95, df=2, loc=statistics.fmean(values), scale=scale)
        found = claims.interval(result(values), again)
        assert (found.low, found.high) == (pytest.approx(low), pytest.approx(min(high, 1.0)))


def test_it_holds_as_often_as_it_says():
    """Of measurements from one distribution 95 % lie inside, also from three seeds."""
    rng = np.random.default_rng(0)
    draws = rng.normal(0.5, 0.02, (2000, 4)).tolist()
    inside = sum(row[3] in claims.interval(result(row[:3]), 1) for row in draws)
    assert abs(inside / 2000 - 0.95) < 0.015


def test_seeds_that_agree_leave_room_for_an_image():
    found = claims.interval(result([0.99, 0.99, 0.99], n=1000), 1)
    assert 0.989 in found and 0.991 in found and 0.98 not in found


def test_a_single_seed_has_the_binomial_error_and_no_accuracy_is_above_1():
    found = claims.interval(result([0.9]), 1)
    half = 1.959964 * math.sqrt(0.9 * 0.1 / 10_000) * math.sqrt(2)
    assert found.low == pytest.approx(0.9 - half) and found.high == pytest.approx(0.9 + half)
    assert claims.interval(result([0.9999]), 1).high == 1.0
    assert 1.0 in claims.interval(result([1.0]), 1)


def test_a_gain_may_be_negative():
    found = claims.interval(result([-0.05, -0.04, -0.045], metric="gain in test accuracy"), 3)
    assert found.low < -0.045 < found.high < 0


def test_rounds_have_a_tenth_of_room_or_what_they_spread():
    steady = claims.interval(result([2.0] * 5, rule="rounds"), 5)
    assert steady.low == pytest.approx(2 / 1.1) and steady.high == pytest.approx(2.2)
    values = [1.0, 2.0, 4.0]
    wild = claims.interval(result(values, rule="rounds"), 3)
    half = stats.t.ppf(0.975, 2) * math.log(2) * math.sqrt(2 / 3)
    assert wild.low == pytest.approx(2 * math.exp(-half))
    assert wild.high == pytest.approx(2 * math.exp(half))


@pytest.mark.parametrize(
    "recorded, again, inside, said",
    [
        (result([0.9, 0.91]), result([0.905]), True, "inside the interval"),
        (result([0.9, 0.91]), result([0.5]), False, "OUTSIDE the interval"),
        (result([2.0, 2.1], rule="rounds"), result([2.0]), True, "inside"),
        (result([2.0, 2.1], rule="rounds"), result([0.9]), False, "OUTSIDE"),
        (result([0, 1], rule="exact"), result([0, 1]), True, "same numbers"),
        (result([0, 1], rule="exact"), result([0, 2]), False, "0, 2 beside 0, 1"),
        (result([7], rule="target"), result([9]), True, "recorded reached, now reached"),
        (result([7], rule="target"), result([1], reached=False), False, "now missed"),
        (result([7], rule="target", reached=False), result([9]), False, "recorded missed"),
    ],
)
def test_verdicts(recorded, again, inside, said):
    verdict = claims.compare(recorded, again)
    assert verdict.inside is inside and said in verdict.said


def test_rounding_does_not_lead_out():
    assert 0.1 + 0.2 in Interval(0.0, 0.3)
    assert 0.3001 not in Interval(0.0, 0.3)


@pytest.mark.parametrize(
    "old, rule",
    [
        ({"metric": "test accuracy", "values": [0.9], "n": 100, "seeds": [0]}, "seeds"),
        ({"metric": "mean accuracy", "values": [0.9], "n": 100}, "seeds"),
        ({"metric": "gain", "values": [1, 2], "mean": 1.5, "n": 9, "seeds": [0, 1]}, "seeds"),
        ({"metric": "ratio", "values": [1, 2], "median": 1.5, "n": 2}, "rounds"),
        ({"metric": "ratio", "values": [1, 2], "median": 1, "n": 8}, "target"),
        ({"metric": "operations", "values": [0, 1], "median": 1, "n": 2}, "exact"),
        ({"metric": "AUROC", "values": [0.9], "n": 100}, "target"),
    ],
)
def test_older_results_have_the_rule_of_what_they_measured(old, rule):
    assert claims.rule(old) == rule
