"""Percentiles of latency are those of the calls that count."""

import itertools

import pytest

from imgrec.benchmarking import latency
from imgrec.config import ModelConfig


def test_percentiles_are_of_the_calls_after_the_warm_up(tiny, monkeypatch):
    """By a clock on which the first ten calls take an hour and the others 1, 2, ... 100 ms."""
    seconds = [3600.0] * 10 + [i / 1e3 for i in range(1, 101)]
    ends = itertools.chain.from_iterable((0.0, spent) for spent in seconds)
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(ends))
    tiny.model = ModelConfig(name="small_cnn")
    found = latency.measure(tiny, calls=100, batch_size=3)
    # Between the nearest two, as numpy.percentile has it: 0.99 of the way from 1 to 100.
    expected = {"least": 1, "p50": 50.5, "p95": 95.05, "p99": 99.01, "most": 100}
    assert found["milliseconds"] == pytest.approx(expected)
    assert found["median"] == found["milliseconds"]["p50"]
    assert (found["n"], found["batch_size"]) == (100, 3)
    assert "small_cnn, float32, batch 3" in found["claim"]
