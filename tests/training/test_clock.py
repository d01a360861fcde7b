import time

import pytest

from imgrec.training.clock import Clock


@pytest.fixture
def now(monkeypatch):
    """now[0]: the time that the clock reads."""
    reading = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: reading[0])
    return reading


def test_accounts_for_all_of_the_wall_time(now):
    clock = Clock()
    now[0] += 1.0
    with clock("compile"):
        now[0] += 5.0
    for _ in range(3):
        with clock("step"):
            now[0] += 2.0
        now[0] += 0.5
    assert clock.seconds() == {"compile": 5.0, "step": 6.0, "other": 2.5, "total": 13.5}


def test_an_activity_can_be_read_as_it_adds_up(now):
    clock = Clock()
    assert clock["step"] == 0.0
    with clock("step"):
        now[0] += 2.0
    assert clock["step"] == 2.0


def test_an_activity_that_fails_took_its_time_too(now):
    clock = Clock()
    with pytest.raises(ValueError, match=r"^bad$"), clock("evaluation"):
        now[0] += 4.0
        raise ValueError("bad")
    assert clock["evaluation"] == 4.0


def test_what_happened_before_is_accounted_for_too(now):
    clock = Clock()
    now[0] += 3.0
    clock.add("start-up", 2.0)
    with clock("start-up"):
        now[0] += 1.0
    assert clock.seconds() == {"start-up": 3.0, "other": 1.0, "total": 4.0}
