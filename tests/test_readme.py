"""README and results agree: no number there is typed by hand."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
tables = runpy.run_path(str(ROOT / "scripts" / "tables.py"))


def test_the_tables_are_those_of_the_results():
    done = subprocess.run(
        [sys.executable, "scripts/tables.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_changed_result_is_noticed():
    results = tables["load"](ROOT / "results")
    readme = (ROOT / "README.md").read_text()
    assert tables["render"](readme, results) == readme
    name = next(name for name, r in results.items() if r["metric"] == "test accuracy")
    changed = {**results, name: {**results[name], "mean": results[name]["mean"] - 0.01}}
    assert tables["render"](readme, changed) != readme


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*.json")), ids=lambda p: p.stem)
def test_a_result_says_how_it_came_about(path):
    result = json.loads(path.read_text())
    for key in ("claim", "metric", "values", "target", "reached", "n", "device", "command"):
        assert key in result, key
    # Benchmarks of data alone have no experiment.
    assert re.fullmatch(r"[0-9a-f]{12}", result.get("fingerprint", "0" * 12))
    assert "fingerprint" in result or result["metric"] != "test accuracy"
    assert re.fullmatch(r"[0-9a-f]{40}", result["git_revision"])


def test_every_config_named_in_the_readme_exists():
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"configs/(\w+\.py)", readme)) | set(
        re.findall(r"`(\w+\.py)(?::\w+)?`", readme)
    )
    assert named
    assert {name for name in named if not (ROOT / "configs" / name).exists()} == set()
