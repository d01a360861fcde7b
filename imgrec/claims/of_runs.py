"""The result of an experiment that was run once a seed, read from what its runs wrote."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def of_runs(
    folders: Sequence[Path], *, claim: str, target: float | None, command: str
) -> dict[str, Any]:
    """Accuracy on the whole test split, cost and circumstances of finished runs.

    Args:
      folders: of one run a seed.
      claim: what is claimed, in words.
      target: the mean accuracy that was asked for.
      command: what measures it again.

    Raises:
      OSError: a run lacks a file that every finished run has.
    """
    configs = [_json(folder / "config.json") for folder in folders]
    tests = [_json(folder / "evaluation" / "test" / "metrics.json") for folder in folders]
    launches = [_lines(folder / "launches.jsonl") for folder in folders]
    values, first = [test["accuracy"] for test in tests], launches[0][0]
    mean = statistics.fmean(values)
    return {
        "claim": claim,
        "metric": "test accuracy",
        "value": mean,
        "values": values,
        "mean": mean,
        "n": tests[0]["n"],
        "target": target,
        "reached": None if target is None else mean >= target,
        "rule": "seeds",
        "seeds": [config["experiment"]["seed"] for config in configs],
        "seconds": [_json(folder / "seconds.json").get("total") for folder in folders],
        "launches": [len(each) for each in launches],
        "images_per_second": _unless_unknown([_images_per_second(folder) for folder in folders]),
        "steps": [test.get("step") for test in tests],
        "flops": _unless_unknown([_json(folder / "cost.json").get("flops") for folder in folders]),
        "device": f"{first['processor']}, {first['cores']} cores, {first['backend']}",
        "versions": first["packages"],
        "git_revision": first["git_revision"],
        "git_dirty": first["git_dirty"],
        "xla_flags": first["xla_flags"],
        "command": command,
        "fingerprint": configs[0]["fingerprint"],
        "config": configs[0]["experiment"],
    }


def _images_per_second(folder: Path) -> float | None:
    """The median over log lines, the speed of a run undisturbed."""
    name = "time/images_per_second"
    path = folder / "metrics.jsonl"
    rates = [line[name] for line in _lines(path) if name in line] if path.exists() else []
    return statistics.median(rates) if rates else None


def _unless_unknown(values: list[Any]) -> list[Any] | None:
    """None in place of a list in which some run has nothing to say, as one without steps."""
    return None if None in values else values


def _json(path: Path) -> dict[str, Any]:
    """What a file holds; {} for the costs of a run that has no such file."""
    if path.name in ("cost.json", "seconds.json") and not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
