import itertools
import json

import numpy as np
import pytest
from scipy import stats

from imgrec.evaluation import bootstrap


@pytest.mark.parametrize("n", [1, 2, 7, 300])
def test_every_resample_has_as_many_examples_as_there_are(n):
    weights = bootstrap.resamples(n, count=50)
    assert weights.shape == (50, n)
    np.testing.assert_array_equal(weights.sum(axis=1), n)
    assert np.all(weights == weights.astype(int))
    assert np.all(weights >= 0)


def test_resamples_depend_on_the_number_the_seed_and_nothing_else():
    weights = bootstrap.resamples(40, seed=3, count=20)
    np.testing.assert_array_equal(weights, bootstrap.resamples(40, seed=3, count=20))
    np.testing.assert_array_equal(weights[:7], bootstrap.resamples(40, seed=3, count=7))
    assert np.any(weights != bootstrap.resamples(40, seed=4, count=20))


def test_weights_are_turned_once_for_all_who_ask_and_never_stale():
    weights = bootstrap.resamples(30, seed=5, count=9)
    turned = bootstrap.by_example(weights)
    assert turned.flags.c_contiguous and bootstrap.by_example(weights) is turned
    np.testing.assert_array_equal(turned, weights.T)
    others = bootstrap.resamples(30, seed=6, count=9)
    np.testing.assert_array_equal(bootstrap.by_example(others), others.T)
    mine = weights.copy()
    bootstrap.by_example(mine)
    mine[0, 0] += 7
    np.testing.assert_array_equal(bootstrap.by_example(mine), mine.T)


def test_every_resample_is_as_likely_as_it_should_be():
    """Of 3 examples, each of the 27 draws has the same chance."""
    weights = bootstrap.resamples(3, count=20_000).astype(int)
    expected = {}
    for draw in itertools.product(range(3), repeat=3):
        key = tuple(np.bincount(draw, minlength=3))
        expected[key] = expected.get(key, 0) + 20_000 / 27
    found = [np.sum(np.all(weights == key, axis=1)) for key in expected]
    assert stats.chisquare(found, list(expected.values())).pvalue > 1e-3


def test_the_interval_holds_the_middle_of_the_values():
    assert bootstrap.interval(np.arange(101.0)) == pytest.approx([2.5, 97.5])
    assert bootstrap.interval(np.arange(101.0), level=0.5) == pytest.approx([25, 75])


def test_undefined_resamples_are_left_out_unless_most_are():
    values = np.arange(101.0)
    some = np.concatenate([values, np.full(90, np.nan), [np.inf, -np.inf]])
    assert bootstrap.interval(some) == pytest.approx([2.5, 97.5])
    assert bootstrap.interval(np.concatenate([values, np.full(102, np.nan)])) is None
    assert bootstrap.interval(np.full(10, np.nan)) is None


def test_a_shift_of_all_resamples_is_taken_back_unless_it_is_chance():
    values = np.random.default_rng(0).normal(0.5, 0.1, 1000)
    low, high = bootstrap.interval(values)
    chance = values.mean() + 0.008  # two and a half standard errors
    assert bootstrap.interval(values, estimate=chance) == [low, high]
    shift = 0.6 - values.mean()
    found = bootstrap.interval(values, estimate=0.6)
    assert found == pytest.approx([low + shift, high + shift])
    cut = bootstrap.interval(values, estimate=0.9, bounds=(0.0, 1.0))
    assert cut == pytest.approx([low + 0.9 - values.mean(), 1])
    assert bootstrap.interval(np.full(9, 1.0), estimate=1.0) == [1, 1]


def test_an_interval_is_reflected_about_what_noise_makes_larger():
    spread = np.linspace(0.1, 0.5, 1001)  # its middle 95 % is from 0.11 to 0.49
    silent, loud = np.full(10, 0.01), np.full(10, 0.5)
    reflected = bootstrap.reflected_interval
    assert reflected(0.4, spread, silent) == pytest.approx([0.31, 0.69])
    # Where noise alone would make as much, the truth may be 0.
    assert reflected(0.4, spread, loud) == pytest.approx([0, 0.69])
    # It stays on [0, most], with the estimate inside.
    assert reflected(0.4, spread, silent, most=0.6) == pytest.approx([0.31, 0.6])
    assert reflected(0.2, spread, silent) == pytest.approx([0, 0.29])
    assert reflected(0.8, spread - 0.1, silent, most=0.9) == [0.8, 0.9]


def test_a_reflected_interval_needs_a_value_and_resamples_that_have_one():
    some = np.array([0.1, 0.1, np.nan])
    assert bootstrap.reflected_interval(0.1, some, some) == [0, pytest.approx(0.1)]
    assert bootstrap.reflected_interval(0.1, some[1:].repeat([1, 2]), some) is None
    assert bootstrap.reflected_interval(np.nan, some, some) is None
    assert bootstrap.reflected_interval(0.1, np.empty(0), some) is None


def test_the_interval_of_a_mean_agrees_with_scipy():
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = bootstrap.mean_interval(values, bootstrap.resamples(400, count=4000))
    reference = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    # The bounds of 4000 resamples scatter by about 0.03 standard errors, which is 0.1 here.
    np.testing.assert_allclose(found, [reference.low, reference.high], atol=0.02)


@pytest.mark.parametrize("kind", [np.float32, np.int32, bool])
def test_values_may_be_numbers_or_hits(kind):
    values = np.array([0, 1, 1, 0, 1]).astype(kind)
    weights = bootstrap.resamples(5, count=300)
    expected = np.quantile(weights @ values.astype(float) / 5, [0.025, 0.975])
    np.testing.assert_allclose(bootstrap.mean_interval(values, weights), expected)


def test_sums_are_exact_in_parts_and_keep_further_axes(monkeypatch):
    values = np.random.default_rng(0).normal(size=(30, 2, 3))
    weights = bootstrap.resamples(30, count=11)
    whole = bootstrap.resampled_sums(values, weights)
    np.testing.assert_allclose(whole, np.einsum("cn,nij->cij", weights, values))
    monkeypatch.setattr(bootstrap, "CHUNK", 100)  # 3 resamples at a time
    np.testing.assert_allclose(bootstrap.resampled_sums(values, weights), whole, rtol=1e-12)


def test_counts_are_of_each_group_in_each_resample():
    group = np.array([2, 0, -1, 2, 4, 0, 0])
    weights = bootstrap.resamples(7, count=30)
    found = bootstrap.resampled_counts(group, 5, weights)
    expected = [np.bincount(np.maximum(group, 0), row * (group >= 0), 5) for row in weights]
    np.testing.assert_array_equal(found, expected)


def test_one_example_has_a_value_and_no_spread():
    assert bootstrap.mean_interval(np.array([0.25]), bootstrap.resamples(1)) == [0.25, 0.25]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_mean_of_what_is_not_a_number_has_no_interval(bad):
    values = np.array([bad, *np.zeros(20)])
    assert bootstrap.mean_interval(values, bootstrap.resamples(21, count=200)) is None
    found = bootstrap.paired_difference(values, values, count=200)
    assert found == {"difference": None, "n": 21, "intervals": {"difference": None}}


def test_pairs_are_resampled_together():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 10, 500)
    better = hard + 0.5 + rng.normal(0, 0.1, 500)
    found = bootstrap.paired_difference(better, hard)
    assert json.loads(json.dumps(found)) == found
    low, high = found["intervals"]["difference"]
    assert found["difference"] == pytest.approx((better - hard).mean())
    assert 0.48 < low < found["difference"] < high < 0.52
    other_way = bootstrap.paired_difference(hard, better)
    np.testing.assert_allclose(other_way["intervals"]["difference"], [-high, -low])


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 30), (1, 4)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_agrees_with_scipy(successes, n, level):
    expected = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    low, high = bootstrap.wilson(successes, n, level)
    np.testing.assert_allclose([low, high], [expected.low, expected.high], atol=1e-12)
    assert low <= successes / n <= high


def test_an_empty_group_has_no_rate():
    assert bootstrap.wilson(0, 0) is None


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="of 0 examples"):
        bootstrap.resamples(0)
    with pytest.raises(ValueError, match="0 resamples"):
        bootstrap.resamples(3, count=0)
    with pytest.raises(ValueError, match="5 successes of 4"):
        bootstrap.wilson(5, 4)
    with pytest.raises(ValueError, match="3 values cannot be paired with 2"):
        bootstrap.paired_difference(np.zeros(3), np.zeros(2))
