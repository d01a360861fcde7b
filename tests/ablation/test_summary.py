"""The numbers of a study's table, by hand; and its pages, whatever is missing."""

import csv
import io
import json
from pathlib import Path

import pytest

from imgrec.ablation import Change, Published, Study, StudyRun, resolve, summary
from imgrec.config import Experiment
from imgrec.evaluation.comparison import holm
from imgrec.launching import Outcome
from imgrec.reporting import study_page, study_text

VALUES = {"base": [0.8, 0.7, 0.9], "up": [0.9, 0.75, 0.92], "down": [0.5, 0.6, None]}
STUDY = Study(
    question="Does <b>it</b> matter?",
    base="base.py",
    changes=(Change("up", {"train.ema": 0.9}), Change("down", {"train.ema": 0.5}, against="up")),
    published=Published("Somebody 2020, table 3", "error, %", {"up": "4.5"}, "On other data."),
)


def write(folder: Path, value: float, metric: str = "accuracy") -> None:
    (folder / "evaluation" / "test").mkdir(parents=True)
    test = {"accuracy": 0.5, metric: value, "n": 100, "total_steps": 4}
    (folder / "evaluation" / "test" / "metrics.json").write_text(json.dumps(test))
    (folder / "cost.json").write_text(json.dumps({"parameters": 1000, "flops": 2e9}))
    (folder / "seconds.json").write_text(json.dumps({"total": 30.0}))


@pytest.fixture
def found(tmp_path):
    runs, outcomes = [], {}
    for change, values in VALUES.items():
        for seed, value in enumerate(values):
            run = StudyRun(change, seed, Experiment(), "0" * 12, tmp_path / f"{change}_seed{seed}")
            runs.append(run)
            if value is None:
                outcomes[run.name] = Outcome(run.name, run.folder, 1, error="x\nerror: nan")
            else:
                write(run.folder, value)
    return summary.summarise(STUDY, "mine", runs, outcomes)


def test_means_and_differences_are_those_of_the_runs(found):
    base, up, down = found["rows"]
    assert base["mean"] == pytest.approx(0.8) and base["std"] == pytest.approx(0.1)
    assert base["difference"] is None
    assert up["difference"]["differences"] == pytest.approx([0.1, 0.05, 0.02])
    assert up["against"] == "base"
    assert (down["against"], down["seeds"]) == ("up", [0, 1])
    assert down["difference"]["seeds"] == [0, 1]
    assert down["difference"]["difference"] == pytest.approx((-0.4 - 0.15) / 2)
    assert down["missing"] == [{"seed": 2, "status": "failed", "error": "x\nerror: nan"}]
    assert (up["parameters"], up["flops"], up["seconds"]) == (1000, 2e9, 30.0)
    ps = [up["difference"]["p_t"], down["difference"]["p_t"]]
    assert [up["difference"]["p_t_holm"], down["difference"]["p_t_holm"]] == holm(ps)
    assert [run["status"] for run in found["runs"]] == ["done"] * 8 + ["failed"]
    assert any("cannot give less than 0.25" in note for note in found["notes"])
    assert any("Runs are missing" in note for note in found["notes"])


def test_another_metric_is_read_and_written_as_it_is(tmp_path):
    study = Study("?", "b.py", (Change("a", {"train.ema": 0.9}),), seeds=(0,), metric="loss")
    runs = [
        StudyRun(change, 0, Experiment(), "0" * 12, tmp_path / change) for change in ("base", "a")
    ]
    for run, value in zip(runs, (0.25, 0.5), strict=True):
        write(run.folder, value, "loss")
    found = summary.summarise(study, "mine", runs, {})
    _, rows = study_text.table(found)
    assert [row[1:4] for row in rows] == [["0.2500", "–", "–"], ["0.5000", "+0.2500", "–"]]
    assert "One seed" in found["notes"][-1]


def test_a_value_that_is_no_number_is_told(tmp_path):
    study = Study("?", "b.py", (Change("a", {"train.ema": 0.9}),), seeds=(0,), metric="loss")
    run = StudyRun("base", 0, Experiment(), "0" * 12, tmp_path / "base")
    other = StudyRun("a", 0, Experiment(), "0" * 12, tmp_path / "a")
    write(run.folder, None, "loss")
    found = summary.summarise(study, "mine", [run, other], {})
    assert found["rows"][0]["missing"][0]["status"] == "without the metric"
    assert found["rows"][1]["difference"] is None
    study_page.render(found, "again")


def test_the_table_has_all_that_was_asked(found):
    header, rows = study_text.table(found)
    up = dict(zip(header, rows[1], strict=True))
    assert up["test accuracy, mean ± SD (%)"] == "85.67 ± 9.29"
    assert up["difference (points) [95 %]"].startswith("+5.67 [+2.00, +10.00]")
    assert (up["FLOP to train"], up["time a run"], up["published"]) == ("2 GFLOP", "30 s", "4.5")
    assert dict(zip(header, rows[2], strict=True))["difference (points) [95 %]"].endswith("to up")
    text = study_text.render_markdown(found, "python -m x")
    assert "Somebody 2020, table 3" in text and "- down, seed 2: failed: error: nan" in text
    assert "&lt;b>it" in text
    lines = list(csv.DictReader(io.StringIO(study_text.rows_csv(found))))
    assert float(lines[1]["difference"]) == found["rows"][1]["difference"]["difference"]
    assert lines[2]["values"] == "0.5 0.6"
    runs = list(csv.DictReader(io.StringIO(study_text.runs_csv(found))))
    assert (runs[-1]["name"], runs[-1]["status"]) == ("down_seed2", "failed")


def test_the_page_holds_everything_itself(found):
    page, pictures = study_page.render(found, "python -m x")
    assert "Does &lt;b&gt;it&lt;/b&gt; matter?" in page
    assert page.count('src="data:image/svg') == 3
    assert "http" not in page.replace("http://www.w3.org", "")
    names = [picture.name for picture in pictures]
    assert names == ["effects.svg", "pareto_flops.svg", "pareto_time.svg"]


def test_a_page_of_a_study_that_has_not_begun(tmp_path):
    run = StudyRun("base", 0, Experiment(), "0" * 12, tmp_path / "none")
    study = Study("?", "b.py", (Change("a", {"train.ema": 0.9}),), seeds=(0,))
    other = StudyRun("a", 0, Experiment(), "0" * 12, tmp_path / "none2")
    found = summary.summarise(study, "mine", [run, other], {})
    page, pictures = study_page.render(found, "again")
    assert "not run" in page and pictures == []


def test_rows_make_a_curve_over_the_axis(tmp_path):
    changes = (
        Change("many", {"data.per_class": 100}),
        Change("few_mixed", {"data.per_class": 10, "augment.mixup": 0.2}),
        Change("many_mixed", {"data.per_class": 100, "augment.mixup": 0.2}),
    )
    settings = {"data.per_class": 10}
    study = Study("?", "b.py", changes, settings, "few", (0,), axis="data.per_class")
    runs = resolve(study, Experiment(), name="mine", folder=tmp_path)
    for i, run in enumerate(runs):
        write(run.folder, 0.5 + i / 10)
    found = summary.summarise(study, "mine", runs, {})
    assert [row["x"] for row in found["rows"]] == [10, 100, 10, 100]
    page, pictures = study_page.render(found, "again")
    assert "curve.svg" in [picture.name for picture in pictures]
    assert "Over data.per_class." in page
