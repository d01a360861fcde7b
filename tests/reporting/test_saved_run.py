import json

import pytest

from imgrec.errors import UserError
from imgrec.reporting import saved_run


def test_a_whole_folder_is_read(write_run):
    (run,) = saved_run.read_all([write_run("runs/a", seed=3)])
    assert run.name == "a" and run.missing == ()
    assert run.experiment["seed"] == 3 and len(run.fingerprint) == 12
    assert run.class_names == ("a", "b", "c")
    assert run.predictions.logits.shape == (300, 3)
    assert run.metrics["n"] == 300 and run.cost["parameters"] == 61_706
    assert [line["step"] for line in run.history] == [20, 40, 60]
    assert run.seconds["total"] == 75 and len(run.launches) == 1


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("metrics.jsonl", "no metrics.jsonl, so no learning curves"),
        ("launches.jsonl", "no launches.jsonl"),
        ("cost.json", "no cost.json (FLOPs and parameters are not known)"),
        ("seconds.json", "no seconds.json"),
        ("evaluation/test/metrics.json", "no metrics.json (python -m imgrec.evaluate --workdir="),
        ("evaluation/test/predictions.npz", "no predictions for test (python -m imgrec.evaluate"),
    ],
)
def test_what_is_not_there_is_said_and_the_rest_is_read(write_run, file, said):
    folder = write_run("a")
    (folder / file).unlink()
    (run,) = saved_run.read_all([folder])
    (missing,) = run.missing
    assert missing.startswith(said)
    assert run.experiment["model"]["name"] == "resnet8"


@pytest.mark.parametrize("file", ["cost.json", "evaluation/test/metrics.json"])
@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_damaged_file_is_said(write_run, file, content):
    folder = write_run("a")
    (folder / file).write_text(content)
    (run,) = saved_run.read_all([folder])
    (missing,) = run.missing
    assert file.rpartition("/")[2] in missing


def test_damaged_predictions_are_said(write_run):
    folder = write_run("a")
    (folder / "evaluation/test/predictions.npz").write_bytes(b"PK\x03\x04 no zip")
    (run,) = saved_run.read_all([folder])
    (missing,) = run.missing
    assert run.predictions is None and "does not hold predictions" in missing


def test_a_last_line_that_a_kill_cut_short_is_left(write_run):
    folder = write_run("a")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 80, "train/lo')
    (run,) = saved_run.read_all([folder])
    assert [line["step"] for line in run.history] == [20, 40, 60]


def test_another_split_is_another_report(write_run):
    folder = write_run("a")
    (folder / "evaluation/test").rename(folder / "evaluation/validation")
    (run,) = saved_run.read_all([folder], "validation")
    assert run.missing == () and run.predictions is not None


def test_class_names_are_those_of_the_input_or_numbers(write_run):
    folder = write_run("a")
    (folder / "input.json").write_text(json.dumps({"class_names": ["x", "y", "z"]}))
    assert saved_run.read_all([folder])[0].class_names == ("x", "y", "z")
    (folder / "input.json").write_text(json.dumps({"class_names": ["x", "y"]}))
    assert saved_run.read_all([folder])[0].class_names == ("0", "1", "2")


def test_runs_of_one_name_are_told_apart_by_their_folders(write_run):
    folders = [write_run("one/sub/a"), write_run("two/sub/a"), write_run("two/sub/b")]
    names = [run.name for run in saved_run.read_all(folders)]
    assert names == ["one/sub/a", "two/sub/a", "two/sub/b"]


def test_what_is_no_run_is_refused_in_words(write_run, tmp_path):
    write_run("runs/a")
    with pytest.raises(UserError, match=r"runs is no run folder.*runs inside: .*runs/a"):
        saved_run.read_all([tmp_path / "runs"])
    with pytest.raises(UserError, match="nowhere is no run folder"):
        saved_run.read_all([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="is given twice"):
        saved_run.read_all([tmp_path / "runs/a", tmp_path / "runs/../runs/a"])
    for content in ("{", "[]", '{"experiment": 3}'):
        (tmp_path / "runs/a/config.json").write_text(content)
        with pytest.raises(UserError, match=r"config.json cannot be read"):
            saved_run.read_all([tmp_path / "runs/a"])
