"""What the runs of a study measured, beside the values they were given: a row each."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from imgrec.launching import grid
from imgrec.launching.runs import Outcome

COLUMNS = (
    "status",
    "step",
    "validation_accuracy",
    "validation_loss",
    "test_accuracy",
    "test_loss",
    "n",
    "seconds",
)
"""Of a row, after the values; validation is that of the step whose parameters were tested."""


def row(values: Mapping[str, Any], folder: Path, outcome: Outcome | None) -> dict[str, Any]:
    """All there is to say of one run as plain JSON values.

    Args:
      values: that the run was given, by field.
      folder: of the run.
      outcome: of its launch; None before there is one.

    Returns:
      `name` of the folder, `values`, what `COLUMNS` names (None where it is not known), `folder`,
      `exit_code`, `launches` and `error`.
    """
    ended = outcome is not None and outcome.status in ("done", "done before")
    return {
        "name": folder.name,
        "values": dict(values),
        "status": "not run" if outcome is None else outcome.status,
        **dict.fromkeys(COLUMNS[1:-1]),
        **(measured(folder) if ended else {}),
        "seconds": None if outcome is None else round(outcome.seconds, 1),
        "folder": str(folder),
        "exit_code": None if outcome is None else outcome.exit_code,
        "launches": 0 if outcome is None else outcome.launches,
        "error": "" if outcome is None else outcome.error,
    }


def measured(folder: Path) -> dict[str, Any]:
    """Numbers of a finished run by the names of `COLUMNS`; {} where they cannot be read.

    Validation is measured on the averaged variables where the run kept an average, since those
    are what is tested.
    """
    try:
        test = json.loads((folder / "evaluation" / "test" / "metrics.json").read_text())
        history = [
            json.loads(line)
            for line in (folder / "metrics.jsonl").read_text().splitlines()
            if line.strip()
        ]
    except (OSError, ValueError):
        return {}
    at_step = [line for line in history if line.get("step") == test.get("step")]
    validation: dict[str, Any] = {}
    for line in at_step:
        for kind in ("accuracy", "loss"):
            for split in ("validation", "validation_ema"):
                if (value := line.get(f"{split}/{kind}")) is not None:
                    validation[f"validation_{kind}"] = value
    return {
        "step": test.get("step"),
        **validation,
        "test_accuracy": test.get("accuracy"),
        "test_loss": test.get("loss"),
        "n": test.get("n"),
    }


def best(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The row of the highest validation accuracy; None where nothing was validated.

    Never by the test split: what it chose, it could not test.
    """
    validated = [row for row in rows if row["validation_accuracy"] is not None]
    return max(validated, key=lambda row: row["validation_accuracy"], default=None)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a run, values first."""
    out = io.StringIO()
    fields = list(rows[0]["values"]) if rows else []
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["name", *fields, *COLUMNS, "folder", "error"])
    for each in rows:
        given = [each["values"][field] for field in fields]
        last = each["error"].splitlines()[-1:] or [""]
        writer.writerow(
            [each["name"], *given, *(each[name] for name in COLUMNS), each["folder"], *last]
        )
    return out.getvalue()


def as_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """For the console: values, what became of each run, and its accuracies."""
    fields = list(rows[0]["values"])
    table = Table(box=None, pad_edge=False)
    for name in (*grid.short(fields), "status"):
        table.add_column(name, overflow="fold")
    for name in ("step", "validation", "test", "test loss", "seconds"):
        table.add_column(name, justify="right")
    for each in rows:
        table.add_row(
            *(str(each["values"][field]) for field in fields),
            each["status"] + _code(each),
            _shown(each["step"], ","),
            _shown(each["validation_accuracy"], ".4f"),
            _shown(each["test_accuracy"], ".4f"),
            _shown(each["test_loss"], ".4f"),
            _shown(each["seconds"], ",.1f"),
        )
    return table


def _shown(value: Any, how: str) -> str:
    return "" if value is None else format(value, how)


def _code(row: Mapping[str, Any]) -> str:
    return f" ({row['exit_code']})" if row["status"] == "failed" and row["exit_code"] else ""
