import numpy as np
import pytest

from imgrec.errors import UserError
from imgrec.evaluation.groups import partitions
from imgrec.evaluation.groups.partitions import NOT_GIVEN

COLUMNS = {
    "names": np.array(["b", "a", "b", "c"]),
    "objects": np.array(["b", "a", None, "c"], dtype=object),
    "yes or no": np.array([True, False, True, True]),
    "one value": np.array(["x"] * 5),
    "whole": np.array([3, 1, 2, 1]),
    "unsigned": np.arange(70, dtype=np.uint64) // 2,
    "measured": np.random.default_rng(0).normal(size=100),
    "measured float32": np.random.default_rng(0).random(100).astype(np.float32),
    "with gaps": np.where(np.arange(60) % 3, np.arange(60) / 7, np.nan),
    "infinite": np.array([1.0, np.inf, 2.0]),
    "no value at all": np.full(4, np.nan),
    "numbers as text": np.array([f"{i / 9:.3f}" for i in range(80)]),
    "mostly one": np.array([0.0] * 90 + list(np.linspace(0.1, 1, 20))),
    "empty": np.array([], dtype=str),
}


@pytest.mark.parametrize("name", list(COLUMNS))
def test_every_example_is_in_one_group_and_every_group_has_some(name):
    found = partitions.cut(name, COLUMNS[name])
    assert len(set(found.values)) == len(found.values) <= partitions.MOST_GROUPS
    assert all(isinstance(value, str) for value in found.values)
    counts = np.bincount(found.member, minlength=len(found.values))
    assert len(counts) == len(found.values) and counts.sum() == len(COLUMNS[name])
    assert (counts > 0).all()


def test_names_stand_for_themselves_in_alphabetical_order():
    found = partitions.cut("site", COLUMNS["names"])
    assert found.values == ("a", "b", "c") and found.edges is None
    assert [found.values[i] for i in found.member] == ["b", "a", "b", "c"]


def test_whole_numbers_stand_for_themselves_in_their_order():
    found = partitions.cut("n", np.array([10, 9, 100, 9]))
    assert found.values == ("9", "10", "100")
    assert found.member.tolist() == [1, 0, 2, 0]
    assert partitions.cut("n", np.array(["10", "9", "100", "9"])).values == ("9", "10", "100")
    assert partitions.cut("x", np.array([0.5, 0.25, 0.5])).values == ("0.25", "0.5")


@pytest.mark.parametrize("as_text", [False, True])
def test_a_measurement_is_cut_into_quarters(as_text):
    numbers = np.random.default_rng(0).permutation(np.linspace(0, 1, 101))
    found = partitions.cut("x", numbers.astype(str) if as_text else numbers)
    assert found.edges == (0.25, 0.5, 0.75)
    assert found.values == ("0 to 0.25", "0.25 to 0.5", "0.5 to 0.75", "0.75 to 1")
    np.testing.assert_array_equal(found.member, np.searchsorted(found.edges, numbers))
    assert np.bincount(found.member).tolist() == [26, 25, 25, 25]


def test_many_whole_numbers_are_cut_too():
    found = partitions.cut("age", np.repeat(np.arange(60), 3))
    assert found.values == ("0 to 14", "14 to 29", "29 to 44", "44 to 59")


def test_equal_numbers_stay_together():
    found = partitions.cut("share", COLUMNS["mostly one"])
    assert found.edges == (0.0,)
    assert found.values == ("0", "0 to 1")
    assert np.bincount(found.member).tolist() == [90, 20]


def test_edges_that_lie_close_are_told_apart():
    numbers = 1 + np.arange(40) * 1e-7
    found = partitions.cut("x", numbers)
    assert len(set(found.values)) == 4 and len(found.edges) == 3


def test_what_has_no_value_is_a_group_of_its_own_at_the_end():
    found = partitions.cut("site", np.array(["z", "", "a", " "]))
    assert found.values == ("a", "z", NOT_GIVEN)
    assert found.member.tolist() == [1, 2, 0, 2]
    found = partitions.cut("x", np.array([2.0, np.nan, 1.0, np.inf]))
    assert found.values == ("1", "2", NOT_GIVEN) and found.member.tolist() == [1, 2, 0, 2]
    found = partitions.cut("x", np.array(["2", "", "1"]))
    assert found.values == ("1", "2", NOT_GIVEN) and found.member.tolist() == [1, 2, 0]


def test_identifiers_and_too_many_names_are_refused_in_words():
    with pytest.raises(UserError, match="'patient' has 51 different values; at most 50 groups"):
        partitions.cut("patient", np.array([f"p{i}" for i in range(51)]))
    with pytest.raises(UserError, match="'index' has another whole number for each example"):
        partitions.cut("index", np.arange(51))
    assert len(partitions.cut("few", np.arange(50)).values) == 50


def test_crossing_gives_every_combination():
    first = partitions.cut("a", np.array(["x", "y", "x"]))
    second = partitions.cut("b", np.array([1, 1, 2]))
    found = partitions.cross("a x b", first, second)
    assert found.values == ("x, 1", "x, 2", "y, 1", "y, 2")
    assert found.member.tolist() == [0, 2, 1]
    many = partitions.cut("c", np.arange(26))
    with pytest.raises(UserError, match="'a x c' has 52 combinations"):
        partitions.cross("a x c", partitions.cut("a", np.arange(26) % 2), many)
