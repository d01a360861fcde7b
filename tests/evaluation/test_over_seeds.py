"""Differences over seeds, beside scipy and counting by hand."""

import numpy as np
import pytest
from scipy import stats

from imgrec.evaluation import over_seeds

BASE = [0.90, 0.92, 0.91, 0.93, 0.90]
CHANGED = [0.93, 0.93, 0.95, 0.96, 0.91]


def test_the_t_test_is_scipys():
    found = over_seeds.paired(CHANGED, BASE)
    expected = stats.ttest_rel(CHANGED, BASE)
    assert found["p_t"] == pytest.approx(expected.pvalue, rel=1e-9)
    assert found["difference"] == pytest.approx(0.024)
    assert found["std"] == pytest.approx(np.std(np.subtract(CHANGED, BASE), ddof=1))


def test_the_sign_flip_test_is_scipys():
    found = over_seeds.paired([0.93, 0.91, 0.95, 0.96, 0.91], BASE)
    expected = stats.permutation_test(
        (np.subtract([0.93, 0.91, 0.95, 0.96, 0.91], BASE),),
        lambda d, axis: abs(np.mean(d, axis=axis)),
        permutation_type="samples",
        alternative="greater",
    )
    assert found["p_sign_flip"] == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("n", [2, 3, 6])
def test_of_few_seeds_no_sign_flip_can_say_much(n):
    found = over_seeds.paired([1.0 + i for i in range(n)], [0.0] * n)
    assert found["p_sign_flip"] == over_seeds.least_p(n) == 2 / 2**n


def test_many_seeds_are_flipped_at_random_and_all_the_same_alike():
    rng = np.random.default_rng(0)
    values = rng.normal(0.35, 1.0, 30).tolist()
    found = over_seeds.paired(values, [0.0] * 30)
    assert found == over_seeds.paired(values, [0.0] * 30)
    assert found["p_sign_flip"] == pytest.approx(found["p_t"], abs=0.02)


def test_the_interval_of_three_seeds_is_no_wider_than_what_was_seen():
    found = over_seeds.paired([0.93, 0.93, 0.95], [0.90, 0.92, 0.91])
    low, high = found["intervals"]["difference"]
    assert (low, high) == (pytest.approx(0.01), pytest.approx(0.04))


def test_one_seed_has_a_difference_and_no_more():
    found = over_seeds.paired([0.9], [0.8])
    assert found["difference"] == pytest.approx(0.1)
    assert found["n"] == 1
    assert found["std"] is found["p_t"] is found["p_sign_flip"] is None
    assert found["intervals"]["difference"] is None


def test_without_any_spread_there_is_no_t():
    same = over_seeds.paired([0.5, 0.6], [0.5, 0.6])
    assert (same["p_t"], same["p_sign_flip"]) == (1.0, 1.0)
    assert over_seeds.paired([0.75, 0.875], [0.5, 0.625])["p_t"] is None


def test_seeds_have_to_fit():
    with pytest.raises(ValueError, match="cannot be paired"):
        over_seeds.paired([0.5, 0.6], [0.5])
