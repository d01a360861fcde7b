import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from imgrec import report
from imgrec.errors import UserError


def run(*arguments):
    return report.main(["report", *map(str, arguments)])


def test_prints_a_table_and_writes_a_page_beside_the_first_run(write_run, tmp_path, capsys):
    folders = [write_run("runs/a"), write_run("runs/b", seed=1)]
    assert run(*folders) == 0
    printed = capsys.readouterr().out
    assert "No difference in accuracy can be told between b and a" in printed
    assert printed.endswith(f"{tmp_path / 'runs/comparison.html'} written\n")
    page = (tmp_path / "runs/comparison.html").read_text()
    assert page.startswith("<!doctype html>") and "a against b" in page


def test_of_one_run_it_is_a_summary_in_its_folder(write_run, tmp_path, capsys):
    folder = write_run("a")
    assert run(folder) == 0
    assert (folder / "summary.html").exists() and "accuracy" in capsys.readouterr().out


def test_json_is_all_that_is_printed(write_run, tmp_path, capsys):
    folders = [write_run("a"), write_run("b", seed=1)]
    out = tmp_path / "pages" / "x.html"
    assert run(*folders, "--format=json", f"--out={out}", "--seed=3") == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in found["runs"]] == ["a", "b"]
    assert out.exists() and not (tmp_path / "comparison.html").exists()


def test_a_split_without_an_evaluation_is_said(write_run, capsys):
    assert run(write_run("a"), "--split=validation") == 0
    printed = capsys.readouterr().out
    assert re.search("! a: no metrics.json .*--split=validation makes it", printed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give the folder of a run, or of several: python -m imgrec.report runs/A runs/B"),
        (["nowhere"], "nowhere is no run folder: it has no config.json"),
        (["x", "--formt=json"], "Unknown flag --formt. Did you mean --format?"),
        (["x", "--format=jsn"], "Unknown value of --format 'jsn'. Did you mean 'json'?"),
        (["x", "--seed=-1"], "seed"),
    ],
)
def test_bad_input_is_refused_in_words(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(message)):
        run(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_is_said(write_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write .*Choose another file with --out"):
        run(write_run("a"), f"--out={tmp_path / 'file' / 'x.html'}")


def test_help_lists_the_flags(capsys):
    with pytest.raises(SystemExit) as done:
        run("--help")
    assert done.value.code == 0
    printed = capsys.readouterr().out
    assert "python -m imgrec.report RUN [RUN ...]" in printed and "--format" in printed


@pytest.mark.slow
def test_from_the_command_line(write_run, tmp_path):
    def call(*arguments):
        command = [sys.executable, "-m", "imgrec.report", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=Path(__file__).parents[1], env=os.environ
        )

    done = call(write_run("a"), write_run("b", seed=1))
    assert done.returncode == 0 and done.stderr == ""
    bad = call(tmp_path / "nowhere")
    assert bad.returncode == 2 and bad.stderr.startswith("error: ") and bad.stdout == ""
