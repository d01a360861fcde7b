import pytest

from imgrec.reporting.parts import Table, Text
from imgrec.reporting.sections import history

SECONDS = {"compile": 5.0, "step": 70.0, "total": 75.0}


def test_the_time_is_told_by_activity_the_longest_first():
    part = history.time_spent(SECONDS, {})
    (table,) = part.items
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == ["step", "compile", "in all"]
    assert table.rows[0][2] == "93.3 %" and table.rows[2][1] == "1 min 15 s"


def test_utilisation_is_told_with_what_the_peak_is():
    used = {
        "flops_per_second": 2e9,
        "peak_flops_per_second": 8e9,
        "share": 0.25,
        "peak": "measured: a product",
    }
    *_, text = history.time_spent(SECONDS, {"utilisation": used}).items
    assert isinstance(text, Text)
    assert "25.0 %" in text.text and "8 GFLOP/s (measured: a product)" in text.text


@pytest.mark.parametrize("seconds", [{}, {"total": 0.0}])
def test_a_run_that_did_not_end_has_nothing_to_tell(seconds):
    assert history.time_spent(seconds, {"parameters": 3}) is None
