import json
from pathlib import Path

import jax
import pytest

from imgrec.training import goodput

SECONDS = {"step": 6.0, "data wait": 2.0, "compile": 1.0, "other": 1.0, "total": 10.0}


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """What the next measurements of the peak give; those done are taken away."""
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path / "cache"))
    rates: list[float] = []
    monkeypatch.setattr(goodput, "_measure", lambda dtype, device: rates.pop(0))
    return rates


def test_shares_are_of_the_wall_time_and_add_up():
    shares = goodput.shares(SECONDS)
    assert next(iter(shares)) == "step" and shares["step"] == 0.6
    assert sum(shares.values()) == pytest.approx(1)


def test_utilisation_is_useful_work_over_the_measured_peak(measured):
    measured.append(50.0)
    found = goodput.utilisation(20.0, 8, SECONDS, "float32", devices=8)
    # 160 operations in 8 seconds of steps and waits; simulated devices are one processor.
    assert (found.flops_per_second, found.peak_flops_per_second, found.share) == (20.0, 50.0, 0.4)
    assert "2048x2048" in found.peak and "float32" in found.peak


def test_the_peak_is_remembered_for_the_machine_and_precision(measured):
    measured += [50.0, 90.0]
    assert goodput.measured_peak("float32") == goodput.measured_peak("float32") == 50.0
    assert goodput.measured_peak("bfloat16") == 90.0
    assert not measured


def test_a_peak_that_was_measured_in_bad_company_is_measured_again(measured):
    measured += [10.0, 40.0]
    assert goodput.utilisation(20.0, 8, SECONDS, "float32", 1).share == 0.5
    assert goodput.measured_peak("float32") == 40.0
    measured.append(30.0)  # the higher one stays
    assert goodput.measured_peak("float32", again=True) == 40.0


def test_a_long_run_measures_the_peak_once_more(measured):
    measured += [40.0, 80.0]
    assert goodput.measured_peak("float32") == 40.0
    long = {**SECONDS, "step": 3600.0, "data wait": 0.0}
    assert goodput.utilisation(20.0, 3600, long, "float32", 1).share == 0.25


@pytest.mark.parametrize("content", ["torn {", "[]", '{"a": 1}'])
def test_a_damaged_memory_is_written_anew(measured, tmp_path, content):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "peak.json").write_text(content)
    measured.append(50.0)
    assert goodput.measured_peak("float32") == goodput.measured_peak("float32") == 50.0


def test_the_measurement_is_of_a_real_product(monkeypatch):
    monkeypatch.setattr(goodput, "_SIDES", {"cpu": 64})
    monkeypatch.setattr(goodput, "_SECONDS", 0.0)
    for dtype in ("float32", "bfloat16"):
        assert goodput._measure(dtype, jax.devices()[0]) > 1e6


def test_a_launch_is_recorded_and_told(measured, tmp_path: Path):
    (tmp_path / "cost.json").write_text(json.dumps({"flops_per_step": 20.0, "parameters": 3}))
    measured.append(50.0)
    said = goodput.of_launch(tmp_path, SECONDS, 8, "float32", 1)
    assert said[0].startswith("goodput: step 60.0%, data wait 20.0%") and "40.0%" in said[1]
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert cost["parameters"] == 3 and cost["utilisation"]["share"] == 0.4


def test_a_launch_without_steps_has_no_utilisation(measured, tmp_path: Path):
    assert len(goodput.of_launch(tmp_path, SECONDS, 0, "float32", 1)) == 1
    assert not list(tmp_path.glob("cost.json"))
