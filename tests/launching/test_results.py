"""Rows of a study: read from run folders, the best by validation, and as CSV."""

import csv
import io
import json

import pytest
from rich.console import Console

from imgrec.launching import Outcome, results


def write_run(folder, *, step=40, test=0.9, history=()):
    (folder / "evaluation" / "test").mkdir(parents=True)
    metrics = {"step": step, "total_steps": 60, "accuracy": test, "loss": 0.5, "n": 359}
    (folder / "evaluation" / "test" / "metrics.json").write_text(json.dumps(metrics))
    lines = [json.dumps(line) for line in history]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_validation_is_that_of_the_step_that_was_tested(tmp_path):
    history = [
        {"step": 20, "validation/accuracy": 0.5, "validation/loss": 2.0},
        {"step": 40, "train/loss": 0.1},
        {"step": 40, "validation/accuracy": 0.7, "validation/loss": 1.0},
        {"step": 60, "validation/accuracy": 0.6, "validation/loss": 1.5},
    ]
    found = results.measured(write_run(tmp_path / "a", history=history))

    assert found == {
        "step": 40,
        "validation_accuracy": 0.7,
        "validation_loss": 1.0,
        "test_accuracy": 0.9,
        "test_loss": 0.5,
        "n": 359,
    }


def test_where_there_is_an_average_it_is_what_counts(tmp_path):
    history = [
        {
            "step": 40,
            "validation_ema/accuracy": 0.8,
            "validation/accuracy": 0.7,
            "validation_ema/loss": 0.9,
        }
    ]
    found = results.measured(write_run(tmp_path / "a", history=history))

    assert (found["validation_accuracy"], found["validation_loss"]) == (0.8, 0.9)


def test_rows_of_all_that_can_become_of_a_run(tmp_path):
    done = write_run(tmp_path / "done")
    rows = [
        results.row({"seed": 0}, done, Outcome("done", done, 0, 12.34)),
        results.row({"seed": 1}, done, Outcome("done", done, 1, error="a\nerror: b")),
        results.row({"seed": 2}, tmp_path / "none", None),
        results.row({"seed": 3}, tmp_path / "gone", Outcome("gone", tmp_path, 0, launches=0)),
    ]

    assert [row["status"] for row in rows] == ["done", "failed", "not run", "done before"]
    assert [row["test_accuracy"] for row in rows] == [0.9, None, None, None]
    assert [row["seconds"] for row in rows] == [12.3, 0.0, None, 0.0]
    assert json.loads(json.dumps(rows)) == rows
    read = list(csv.DictReader(io.StringIO(results.as_csv(rows))))
    assert [(line["seed"], line["test_accuracy"], line["error"]) for line in read] == [
        ("0", "0.9", ""),
        ("1", "", "error: b"),
        ("2", "", ""),
        ("3", "", ""),
    ]
    with (console := Console(width=100)).capture() as shown:
        console.print(results.as_table(rows))
    lines = shown.get().splitlines()
    assert lines[1].split() == ["0", "done", "40", "0.9000", "0.5000", "12.3"]
    assert lines[2].split() == ["1", "failed", "(1)", "0.0"]


@pytest.mark.parametrize("reverse", [False, True])
def test_the_best_is_chosen_by_validation_and_never_by_test(reverse):
    rows = [
        {"name": "a", "validation_accuracy": 0.7, "test_accuracy": 0.9},
        {"name": "b", "validation_accuracy": 0.8, "test_accuracy": 0.6},
        {"name": "c", "validation_accuracy": None, "test_accuracy": 1.0},
    ]
    found = results.best(rows[::-1] if reverse else rows)

    assert found is not None and found["name"] == "b"
    assert results.best(rows[2:]) is None
