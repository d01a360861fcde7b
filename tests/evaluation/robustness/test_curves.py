import numpy as np
import pytest

from imgrec.evaluation import bootstrap
from imgrec.evaluation.robustness import curves


@pytest.mark.parametrize(
    ("accuracy", "doses", "chance", "expected"),
    [
        ([0.9, 0.7, 0.5, 0.3], [0, 1, 2, 3], 0.1, 2.0),  # halfway is 0.5, on a dose
        ([0.9, 0.9, 0.4], [0, 10, 20], 0.1, 18.0),  # 0.9 to 0.4: 0.5 after 0.8 of the way
        ([1.0, 0.0], [1.0, 0.5], 0.0, 0.75),  # doses that fall
        ([0.8, 0.3, 0.9, 0.2], [0, 1, 2, 3], 0.2, 0.6),  # the first time that it falls so far
        ([0.9, 0.8], [0, 1], 0.1, np.nan),  # never
        ([0.1, 0.05], [0, 1], 0.1, np.nan),  # chance to begin with
        ([0.9], [0], 0.1, np.nan),
    ],
)
def test_the_half_accuracy_dose(accuracy, doses, chance, expected):
    found = curves.half_dose(np.array([accuracy]), doses, chance)
    np.testing.assert_allclose(found, [expected], rtol=1e-12)


def test_many_curves_at_once_are_each_by_itself():
    rng = np.random.default_rng(0)
    accuracy = rng.uniform(size=(50, 6))
    doses = [0, 1, 3, 4, 7, 10]
    together = curves.half_dose(accuracy, doses, 0.1)
    alone = [curves.half_dose(row[None], doses, 0.1)[0] for row in accuracy]
    np.testing.assert_array_equal(together, alone)


def answers(rates, n=400):
    """Images that are recognised up to a dose of their own: the share of the rates."""
    limit = (np.arange(n) + 0.5) / n
    return limit[:, None] < np.array(rates)[None, :]


def test_a_curve_with_its_intervals():
    correct = answers([0.9, 0.7, 0.4, 0.1])
    weights = bootstrap.resamples(400)
    found = curves.curve(correct, [0, 1, 2, 3], 0.1, weights)
    assert found["doses"] == [0.0, 1.0, 2.0, 3.0]
    assert found["accuracy"] == [0.9, 0.7, 0.4, 0.1]
    assert found["accuracy_interval"][1] == bootstrap.wilson(280, 400)
    assert found["half_accuracy"] == pytest.approx(0.5)
    assert found["half_accuracy_dose"] == pytest.approx(5 / 3)
    low, high = found["intervals"]["half_accuracy_dose"]
    assert 1.4 < low < 5 / 3 < high < 1.95
    assert found["reason"] == ""


def test_where_there_is_no_such_dose_it_says_why():
    weights = bootstrap.resamples(400)
    robust = curves.curve(answers([0.9, 0.8]), [0, 1], 0.1, weights)
    assert robust["half_accuracy_dose"] is None
    assert robust["intervals"] == {"half_accuracy_dose": None}
    assert "stays above 0.500" in robust["reason"]
    guessing = curves.curve(answers([0.1, 0.1]), [0, 1], 0.1, weights)
    assert guessing["half_accuracy_dose"] is None
    assert "no better than chance" in guessing["reason"]


def test_one_image_is_enough():
    found = curves.curve(np.array([[True, False]]), [0, 2], 0.5, bootstrap.resamples(1))
    assert found["half_accuracy_dose"] == pytest.approx(0.5)  # halfway to chance is 0.75
    assert found["intervals"]["half_accuracy_dose"] == pytest.approx([0.5, 0.5])
