import numpy as np
import pytest

from imgrec.evaluation.groups import gaps
from imgrec.evaluation.groups.gaps import Counts


def counts(n, support, predicted, correct):
    return Counts(*(np.array(values, float) for values in (n, support, predicted, correct)))


TWO = counts([10, 20], [[4, 6], [10, 10]], [[5, 5], [8, 12]], [[3, 4], [8, 10]])
EVERY = np.ones((2, 2), bool)


def test_rates_by_hand():
    found = gaps.rates(TWO)
    np.testing.assert_allclose(found["share_of_labels"], [[0.4, 0.6], [0.5, 0.5]])
    np.testing.assert_allclose(found["selection_rate"], [[0.5, 0.5], [0.4, 0.6]])
    np.testing.assert_allclose(found["precision"], [[0.6, 0.8], [1, 10 / 12]])
    np.testing.assert_allclose(found["true_positive_rate"], [[0.75, 4 / 6], [0.8, 1]])
    np.testing.assert_allclose(found["false_positive_rate"], [[2 / 6, 1 / 4], [0, 0.2]])
    np.testing.assert_allclose(found["false_negative_rate"], [[0.25, 2 / 6], [0.2, 0]])


def test_differences_by_hand():
    found = gaps.differences(TWO, EVERY, EVERY)
    np.testing.assert_allclose(found["label_share_difference"], [0.1, 0.1])
    np.testing.assert_allclose(found["demographic_parity_difference"], [0.1, 0.1])
    np.testing.assert_allclose(found["demographic_parity_ratio"], [0.8, 5 / 6])
    np.testing.assert_allclose(found["true_positive_rate_difference"], [0.05, 1 / 3])
    np.testing.assert_allclose(found["false_positive_rate_difference"], [1 / 3, 0.05])
    np.testing.assert_allclose(found["equalised_odds_difference"], [1 / 3, 1 / 3])


def test_resamples_are_an_axis_like_any_other():
    more = Counts(*(np.stack([v, v], axis=-1) for v in vars(TWO).values()))
    for function in (gaps.rates, gaps.macro, lambda c: gaps.differences(c, EVERY, EVERY)):
        one, two = function(TWO), function(more)
        for name, values in one.items():
            np.testing.assert_array_equal(two[name][..., 0], values)
            np.testing.assert_array_equal(two[name][..., 1], values)


def test_what_is_not_defined_is_not_a_number():
    empty = counts([3, 3], [[3, 0], [3, 0]], [[3, 0], [3, 0]], [[3, 0], [3, 0]])
    found = gaps.rates(empty)
    assert np.isnan(found["true_positive_rate"][:, 1]).all()
    assert np.isnan(found["false_positive_rate"][:, 0]).all()
    assert np.isnan(gaps.differences(empty, EVERY, EVERY)["equalised_odds_difference"]).all()
    macro = gaps.macro(empty)
    np.testing.assert_allclose(macro["recall"], [1, 1])  # of the one class that occurs
    np.testing.assert_allclose(macro["false_positive_rate"], [0, 0])


def test_a_masked_rate_takes_no_part():
    mask = np.array([[True, True], [True, False]])
    found = gaps.differences(TWO, mask, EVERY)
    np.testing.assert_allclose(found["true_positive_rate_difference"], [0.05, np.nan])
    np.testing.assert_allclose(found["equalised_odds_difference"], [1 / 3, np.nan])


def test_around_the_sample_only_noise_is_left():
    assert all(
        np.allclose(values, 1 if name == "demographic_parity_ratio" else 0)
        for name, values in gaps.differences(TWO, EVERY, EVERY, around=gaps.rates(TWO)).items()
    )


def resampled(seed, truth, n, count=300):
    """Rates of groups and classes drawn from the true ones, and resamples of them."""
    rng = np.random.default_rng(seed)
    rate = rng.binomial(n, truth) / n
    return rate, rng.binomial(n, rate, (count, *truth.shape)) / n


ALIKE = np.full((4, 10), 0.8)
UNLIKE = np.clip(np.random.default_rng(0).normal(0.8, 0.08, (4, 10)), 0, 1)


@pytest.mark.parametrize("truth", [ALIKE, UNLIKE], ids=["alike", "unlike"])
@pytest.mark.parametrize("of", [lambda x: x[..., 0], lambda x: x.max(-1), lambda x: x.mean(-1)])
def test_intervals_hold_the_true_difference(truth, of):
    """About as often as they say: for one class, the worst class and the mean over classes."""
    held, expected = 0, float(of(np.ptp(truth, axis=0)))
    for seed in range(100):
        rate, again = resampled(seed, truth, 1000)
        gap, noise = np.ptp(again, axis=1), np.ptp(again - rate, axis=1)
        value = float(of(np.ptp(rate, axis=0)))
        low, high = gaps.gap_interval(value, of(gap), of(noise))
        assert 0 <= low <= value <= high <= 1
        held += low <= expected <= high
    assert held >= 88


def test_intervals_of_a_ratio_hold_1_where_groups_are_alike():
    held = 0
    for seed in range(100):
        rate, again = resampled(seed, ALIKE[:, 0], 500)
        ratio, noise = (of.min(-1) / of.max(-1) for of in (again, again / rate))
        value = float(rate.min() / rate.max())
        low, high = gaps.gap_interval(value, ratio, noise, noise_widens=False)
        assert 0 <= low <= value <= high <= 1
        held += high == 1
    assert held >= 90


def test_an_interval_needs_a_gap_and_resamples_that_have_one():
    ten, none = np.ones(10), np.full(10, np.nan)
    assert gaps.gap_interval(float("nan"), ten, ten) is None
    assert gaps.gap_interval(0.1, none, ten) is None
    assert gaps.gap_interval(0.1, ten * 0.1, none) == [0.1, 0.1]
    assert gaps.plain(float("nan")) is None and gaps.plain(np.float32(2)) == pytest.approx(2)
