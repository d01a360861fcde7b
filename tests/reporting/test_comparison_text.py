import re

import pytest

from imgrec.reporting import comparison_text, saved_run
from imgrec.reporting.side_by_side import side_by_side


def told(*folders):
    return comparison_text.render(side_by_side(saved_run.read_all(folders), "test", count=100))


def pair(difference, p, interval=(0.001, 0.02)):
    return {
        "first": "a",
        "other": "b",
        "n": 10_000,
        "accuracy_difference": difference,
        "intervals": {"accuracy_difference": list(interval)},
        "mcnemar_p_exact_holm": p,
    }


def test_verdicts_go_by_the_corrected_test():
    better = comparison_text.verdict(pair(0.0125, 0.004))
    assert better == (
        "b is right more often than a: +1.25 points, 95 % interval +0.10 to +2.00 "
        "(McNemar's p = 0.004, n 10,000)."
    )
    assert "b is right less often than a: -1.25" in comparison_text.verdict(pair(-0.0125, 1e-9))
    assert "p < 0.0001" in comparison_text.verdict(pair(-0.0125, 1e-9))
    assert comparison_text.verdict(pair(0.0125, 0.06)).startswith(
        "No difference in accuracy can be told between b and a: +1.25 points"
    )


def test_a_table_with_a_line_for_each_run(write_run):
    text = told(write_run("a"), write_run("better", seed=1, skill=4.0))
    lines = text.splitlines()
    assert re.split("  +", lines[0]) == [
        "run",
        "accuracy [95 %]",
        "points against the first",
        "p",
        "nats",
        "time",
        "compute",
        "parameters",
    ]
    assert lines[1].startswith("a ") and lines[2].startswith("better ")
    assert "1 min 15 s" in lines[1] and "120 MFLOP" in lines[1] and lines[1].endswith("61.7 k")
    assert lines[2].index("MFLOP") == lines[1].index("MFLOP")  # columns are aligned
    assert "better is right more often than a" in text
    assert "seed" in text and "!" not in text


def test_one_run_is_not_compared(write_run):
    text = told(write_run("a"))
    assert "against" not in text and "configuration" not in text
    assert len(text.splitlines()) == 2


def test_equal_configurations_and_seeds_are_said(write_run):
    assert "no field differs" in told(write_run("a"), write_run("b"))
    text = told(write_run("c", seed=1), write_run("d", seed=2))
    assert "c, d differ in their seed alone: accuracy" in text


def test_what_is_missing_begins_with_a_mark(write_run):
    first, other = write_run("a"), write_run("b")
    (other / "evaluation/test/predictions.npz").unlink()
    (other / "cost.json").unlink()
    text = told(first, other)
    assert "! b is not compared: it has no predictions" in text
    assert "! b: no cost.json" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), ("", '""'), ([1, "a"], "[1, 'a']"), (0.5, "0.5"), (False, "False")],
)
def test_values_of_fields(value, text):
    assert comparison_text.shown(value) == text


def test_many_and_long_fields_are_cut(write_run):
    changes = {"data.root": "/a" * 60}
    text = told(write_run("a"), write_run("b", changes=changes))
    assert "/a/a/a" in text and max(map(len, text.splitlines())) < 200
