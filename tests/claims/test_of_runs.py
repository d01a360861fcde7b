"""A result is what the runs wrote."""

import json

import pytest

from imgrec import claims

TOLD = {"claim": "tiny on noise", "target": 0.5, "command": "python scripts/measure.py tiny"}


@pytest.fixture
def runs(write_run):
    """Two finished runs, with what a launch tells."""
    folders = [write_run(f"runs/{seed}", seed=seed) for seed in (3, 4)]
    for folder in folders:
        path = folder / "launches.jsonl"
        launch = json.loads(path.read_text())
        launch |= {"cores": 2, "backend": "cpu", "packages": {"jax": "1"}, "xla_flags": ""}
        path.write_text(json.dumps({**launch, "git_revision": "a" * 40}) + "\n")
    return folders


def test_it_is_what_the_runs_wrote(runs, tmp_path):
    found = claims.write(tmp_path / "results" / "tiny.json", claims.of_runs(runs, **TOLD))
    saved = [json.loads((f / "evaluation/test/metrics.json").read_text()) for f in runs]
    assert found["values"] == [each["accuracy"] for each in saved]
    assert found["n"] == saved[0]["n"] == 300
    assert found["seeds"] == [3, 4] and found["rule"] == "seeds"
    assert found["value"] == found["mean"] == pytest.approx(sum(found["values"]) / 2)
    assert found["reached"] is (found["mean"] >= 0.5)
    assert found["seconds"] == [75.0, 75.0] and found["flops"] == [1.2e8, 1.2e8]
    assert found["images_per_second"] == [4000.0, 4000.0]  # the median of three log lines
    assert found["config"]["seed"] == 3 and len(found["fingerprint"]) == 12
    assert claims.lacking(found) == []


def test_a_run_without_steps_has_no_speed_and_may_have_no_cost(runs):
    (runs[0] / "metrics.jsonl").unlink()
    (runs[1] / "cost.json").unlink()
    found = claims.complete(claims.of_runs(runs, **{**TOLD, "target": None}))
    assert found["images_per_second"] is None and found["flops"] is None
    assert found["reached"] is None


def test_a_run_that_was_not_tested_is_no_measurement(runs):
    (runs[1] / "evaluation" / "test" / "metrics.json").unlink()
    with pytest.raises(FileNotFoundError):
        claims.of_runs(runs, **TOLD)
