import pytest

from imgrec.reporting import units


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (48.2, "48 s"),
        (59.6, "1 min 0 s"),
        (135, "2 min 15 s"),
        (11_099, "3 h 5 min"),
        (3_599.9, "1 h 0 min"),
    ],
)
def test_durations(seconds, text):
    assert units.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0 FLOP"),
        (999, "999 FLOP"),
        (61_706, "61.7 kFLOP"),
        (9.379e12, "9.38 TFLOP"),
        (2e18, "2 EFLOP"),
    ],
)
def test_quantities(value, text):
    assert units.quantity(value, "FLOP") == text


def test_points_and_p_values():
    assert units.points(0.0125, [0.003, 0.022]) == "+1.25 [+0.30, +2.20]"
    assert units.points(-0.5) == "-50.00" and units.points(None) == "–"
    assert units.p_value(0.0314) == "0.031" and units.p_value(3e-9) == "< 0.0001"
    assert units.p_value(1.0) == "1" and units.p_value(None) == "–"


def test_shares_and_numbers_with_their_intervals():
    assert units.percent(0.9147, [0.909, 0.92]) == "91.47 % [90.90, 92.00]"
    assert units.percent(1, digits=0) == "100 %"
    assert units.number(0.2137, [0.2, 0.23]) == "0.214 [0.200, 0.230]"
    assert units.number(-2, digits=1) == "-2.0"
    # Of what is not known there is no interval either.
    assert units.percent(None, [0.1, 0.2]) == units.number(None) == "–"
