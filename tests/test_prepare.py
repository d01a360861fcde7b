import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import imgrec
from imgrec import data, prepare
from imgrec.config import DataConfig
from imgrec.data import preparing
from imgrec.errors import UserError


def run(*arguments):
    return prepare.main(["prepare", *map(str, arguments)])


def test_prepares_and_says_how_to_read_it(tmp_path, capsys):
    to = tmp_path / "to"
    assert run("digits", f"--to={to}", "--workers=1") == 0
    printed = capsys.readouterr().out
    assert "4 files written, 0 were there and whole" in printed
    assert f"--config.data.dataset=prepared:{to}" in printed
    before, after = (data.load(DataConfig(dataset=d)) for d in ("digits", f"prepared:{to}"))
    rows = np.arange(len(before.test))
    assert (before.test.gather(rows)["image"] == after.test.gather(rows)["image"]).all()
    assert run("digits", f"--to={to}") == 0
    assert "0 files written, 4 were there and whole" in capsys.readouterr().out


def test_flags_reach_the_work(tmp_path, write_imagenet, capsys):
    write_imagenet(tmp_path / "tars")
    arguments = ["imagenet", f"--from={tmp_path / 'tars'}", f"--to={tmp_path / 'to'}"]
    assert run(*arguments, "--short_side=20", "--quality=80", "--channels=1") == 0
    description = json.loads((tmp_path / "to" / "dataset.json").read_text())
    expected = {"short_side": 20, "quality": 80, "shard_mb": 256, "channels": 1}
    assert expected.items() <= description.items()
    assert description["command"].startswith("python -m imgrec.prepare imagenet --from=")
    assert data.load_official(DataConfig(dataset=f"prepared:{tmp_path / 'to'}")).info.name
    with pytest.raises(UserError, match="short_side was 20, is now 30"):
        run(*arguments, "--short_side=30", "--quality=80", "--channels=1")


def test_check_writes_text_json_and_a_page(tmp_path, write_imagenet, capsys):
    write_imagenet(tmp_path / "tars")
    out = tmp_path / "out"
    assert run("check", "imagenet", f"--from={tmp_path / 'tars'}", f"--out={out}") == 0
    printed = capsys.readouterr().out
    assert "train: 40 images" in printed and "none of test is in train" in printed
    assert sorted(p.name for p in out.iterdir()) == ["audit.html", "audit.json", "audit.txt"]
    assert (out / "audit.txt").read_text() in printed
    assert json.loads((out / "audit.json").read_text())["splits"][0]["examples"] == 40
    assert (out / "audit.html").read_text().startswith("<!doctype html>")


def test_strict_fails_on_leaks_only_where_asked(tmp_path, write_imagenet, capsys):
    files = write_imagenet(tmp_path / "tars")
    val = tmp_path / "tars" / "val" / "n01440764"
    val.mkdir(parents=True)
    (val / "ILSVRC2012_val_00000001.JPEG").write_bytes(files["n01440764/n01440764_3.JPEG"])
    where = f"--from={tmp_path / 'tars'}"
    assert run("check", "imagenet", where) == 0
    assert "! 1 of test are also in train: 1 with the same pixels" in capsys.readouterr().out
    assert run("check", "imagenet", where, "--strict") == 1


def test_check_of_prepared_data_verifies_checksums(tmp_path, capsys):
    to = tmp_path / "to"
    run("digits", f"--to={to}")
    assert run("check", f"prepared:{to}") == 0
    shard = next(to.glob("train-*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    shard.write_bytes(content)
    capsys.readouterr()
    assert run("check", f"prepared:{to}") == 1
    printed = capsys.readouterr().out
    assert f"{shard} is damaged: its checksum" in printed
    assert f"python -m imgrec.prepare digits --to={to}" in printed
    assert run("digits", f"--to={to}") == 0
    assert "1 files written, 3 were there" in capsys.readouterr().out
    assert run("check", f"prepared:{to}") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits"], r"Where to\? Give a folder: --to=FOLDER"),
        ([], "Name one data set, got none. For example: python -m imgrec.prepare imagenet"),
        (["check"], "Name one data set, got none. For example: .* check imagenet"),
        (["digits", "mnist", "--to=x"], "got digits mnist"),
        (["digit", "--to=x"], "Unknown data set 'digit'. Did you mean 'digits'"),
        (["digits", "--too=x"], "Unknown flag --too. Did you mean --to?"),
        (["digits", "--to=x", "--quality=200"], "--quality=200 is impossible; expected 1 to 100"),
        (["digits", "--to=x", "--quality=best"], "quality"),
        (["check", "digits", "--workers=0"], "--workers=0 is impossible"),
        (["check", "digits", "--near=0.2"], "near"),
        (["prepared:nowhere", "--to=x"], "nowhere is no prepared data set"),
    ],
)
def test_bad_input_is_refused_before_any_work(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        run(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_help_lists_flags_and_data_sets(capsys):
    with pytest.raises(SystemExit) as stopped:
        run("--help")
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    for part in ("--short_side: ", "--from: ", "--strict: ", "imagenet", "prepared:PATH", "check"):
        assert part in printed


@pytest.mark.parametrize("how", ["interrupt", "signal"])
def test_stopped_it_says_how_to_go_on(tmp_path, monkeypatch, capsys, how):
    write = preparing._write

    def stop(folder, entry, *rest):
        if entry["file"].startswith("test"):
            if how == "signal":
                os.kill(os.getpid(), signal.SIGTERM)
            raise KeyboardInterrupt
        write(folder, entry, *rest)

    to = tmp_path / "a folder"
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "_write", stop)
        assert run("digits", f"--to={to}") == 75
    assert signal.getsignal(signal.SIGTERM) is before
    printed = capsys.readouterr().out
    assert f"What is in {to} is whole; go on with:" in printed
    assert f"python -m imgrec.prepare digits '--to={to}'" in printed
    assert run("digits", f"--to={to}") == 0
    assert "2 files written, 2 were there and whole" in capsys.readouterr().out


WITHOUT = """
import sys

BLOCKED = {"tensorflow", "tensorflow_datasets", "torch"}


class Hiding:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, Hiding())
from imgrec import prepare

code = prepare.main(["prepare", "digits", "--to=to"]) or prepare.main(["p", "check", "digits"])
assert not BLOCKED & sys.modules.keys()
sys.exit(code)
"""


def test_needs_neither_tensorflow_nor_torch(tmp_path):
    root = str(Path(imgrec.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert re.search("train: 1,438 images", done.stdout)
