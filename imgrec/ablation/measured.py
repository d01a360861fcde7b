"""What a run of a study measured and what it cost, read from its folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgrec.ablation.study import StudyRun
from imgrec.launching.runs import is_finished


@dataclass(frozen=True)
class Measured:
    """Numbers of a finished run; what it has no record of is None.

    Attributes:
      value: of the study's metric, on the test split.
      n: images of the test split.
      parameters: of the network.
      flops: of the whole training, matrix products and convolutions.
      seconds: of wall time over all starts of the run, compilation and evaluation included.
    """

    value: float | None
    n: int
    parameters: int | None
    flops: float | None
    seconds: float | None


def measured(run: StudyRun, metric: str) -> Measured | None:
    """Of a run, or None where it is not finished."""
    if not is_finished(run.folder):
        return None
    test = _json(run.folder / "evaluation" / "test" / "metrics.json")
    cost, seconds = _json(run.folder / "cost.json"), _json(run.folder / "seconds.json")
    value: Any = test
    for part in metric.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return Measured(
        value, test["n"], cost.get("parameters"), cost.get("flops"), seconds.get("total")
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found
