import json

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from imgrec.errors import UserError
from imgrec.evaluation import comparison
from imgrec.evaluation.predictions import Predictions


def run(seed, n=200, classes=4, skill=1.5, labels=None):
    rng = np.random.default_rng(seed)
    if labels is None:
        labels = np.random.default_rng(99).integers(0, classes, n)
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), labels] += skill
    return Predictions(np.arange(n), labels.astype(np.int32), logits)


PAIRS = [(0, 0), (0, 1), (5, 0), (3, 3), (4, 9), (10, 25), (200, 150), (3000, 3300)]


@pytest.mark.parametrize("one_way", [False, True])
@pytest.mark.parametrize(("first", "other"), PAIRS)
def test_mcnemar_is_the_binomial_test(first, other, one_way):
    a, b = (first, other) if one_way else (other, first)
    found = comparison.mcnemar(a, b)
    expected = binomtest(a, a + b, 0.5).pvalue if a + b else 1
    assert found["mcnemar_p_exact"] == pytest.approx(expected, rel=1e-10)
    mid = 2 * binom.cdf(min(a, b), a + b, 0.5) - binom.pmf(min(a, b), a + b, 0.5) if a + b else 1
    assert found["mcnemar_p_mid"] == pytest.approx(mid, rel=1e-9)


def test_holm_by_hand():
    # Sorted .01 .02 .03 .04 times 4, 3, 2, 1, never falling.
    assert comparison.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert comparison.holm([0.5, 0.9]) == [1.0, 1.0]
    assert comparison.holm([0.3]) == [0.3]
    assert comparison.holm([]) == []


def test_holm_rejects_what_the_sequential_procedure_rejects():
    rng = np.random.default_rng(0)
    for _ in range(50):
        p_values = (rng.random(6) ** 3).tolist()
        ordered = sorted(p_values)
        rejected = 0
        while rejected < 6 and ordered[rejected] <= 0.05 / (6 - rejected):
            rejected += 1
        assert sum(p <= 0.05 for p in comparison.holm(p_values)) == rejected


def test_counts_and_differences_by_hand():
    labels = np.array([0, 0, 1, 1, 1], np.int32)
    index = np.arange(5)
    a = Predictions(index, labels, np.eye(2, dtype=np.float32)[[0, 1, 1, 0, 0]])
    b = Predictions(index, labels, np.eye(2, dtype=np.float32)[[0, 0, 1, 1, 0]] * 2)
    found = comparison.pair(a, b)
    assert json.loads(json.dumps(found)) == found
    counts = ("both_right", "only_first_right", "only_other_right", "both_wrong")
    assert [found[name] for name in counts] == [2, 0, 2, 1]
    assert found["accuracy_difference"] == pytest.approx(2 / 5)
    assert found["agreement"] == pytest.approx(3 / 5)
    right, wrong = np.log(1 + np.exp(-1)), np.log(1 + np.exp(1))
    right_b, wrong_b = np.log(1 + np.exp(-2)), np.log(1 + np.exp(2))
    expected = (4 * right_b + wrong_b - 2 * right - 3 * wrong) / 5
    assert found["nll_difference"] == pytest.approx(expected, rel=1e-6)
    assert found["mcnemar_p_exact"] == 0.5 and found["n"] == 5


def test_a_run_equals_itself_and_exchanging_two_turns_the_signs():
    a, b = run(0), run(1, skill=2.5)
    same = comparison.pair(a, a)
    assert same["accuracy_difference"] == same["nll_difference"] == 0
    assert same["intervals"] == {"accuracy_difference": [0, 0], "nll_difference": [0, 0]}
    assert same["agreement"] == same["mcnemar_p_exact"] == same["mcnemar_p_mid"] == 1
    there, back = comparison.pair(a, b), comparison.pair(b, a)
    for name in ("accuracy_difference", "nll_difference"):
        assert there[name] == pytest.approx(-back[name])
        low, high = there["intervals"][name]
        np.testing.assert_allclose(back["intervals"][name], [-high, -low], atol=1e-12)
    assert there["accuracy_difference"] > 0 > there["nll_difference"]
    assert there["mcnemar_p_exact"] == back["mcnemar_p_exact"] < 1e-3


def test_all_are_compared_with_the_first_and_corrected_together():
    runs = {"base": run(0), "twin": run(1), "better": run(2, skill=2.5)}
    found = comparison.compare(runs)
    assert [(pair["first"], pair["other"]) for pair in found] == [
        ("base", "twin"),
        ("base", "better"),
    ]
    raw = [pair["mcnemar_p_exact"] for pair in found]
    assert [pair["mcnemar_p_exact_holm"] for pair in found] == comparison.holm(raw)
    assert comparison.compare({"base": run(0)}) == []


def test_a_diverged_run_is_wrong_and_has_no_likelihood():
    good = run(0)
    broken = Predictions(good.index, good.label, good.logits * np.nan)
    found = comparison.pair(good, broken)
    assert found["nll_difference"] is None and found["intervals"]["nll_difference"] is None
    assert found["accuracy_difference"] < -0.3
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (run(1, n=150), "200 examples and 150"),
        (run(1, classes=5, labels=run(0).label), "4 classes and 5"),
        (run(1, labels=np.roll(run(0).label, 1)), "other labels for [0-9]+ of 200"),
        (Predictions(np.arange(200) + 1, run(0).label, run(1).logits), "other positions"),
    ],
)
def test_other_examples_are_refused_in_words(other, message):
    with pytest.raises(UserError, match=f"of one and two are .*{message}"):
        comparison.compare({"one": run(0), "two": other})


def test_nothing_is_claimed_too_often_where_there_is_nothing():
    """Two equal models: the test holds its level, over many data sets."""
    claimed = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        first, other = rng.random((2, 300)) < 0.8
        found = comparison.mcnemar(int((first & ~other).sum()), int((other & ~first).sum()))
        claimed += found["mcnemar_p_exact"] < 0.05
    assert claimed <= 10
