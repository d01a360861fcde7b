"""What a start is: a process until the line of its first step, which is then ended."""

import sys

import pytest

from imgrec.benchmarking import start


def test_a_start_that_fails_says_what_the_command_said(tmp_path):
    with pytest.raises(start.StartError, match=r"No config file 'nothing.py'"):
        start._first_step(["--config=nothing.py"], tmp_path / "cache", tmp_path / "run")


def test_a_start_ends_with_the_first_step_and_has_a_cache_of_its_own(tmp_path, monkeypatch):
    """With a program in the place of Python, which notes how it was called and never ends."""
    program = tmp_path / "python"
    script = f"""
    echo "$IMGREC_CACHE $JAX_COMPILATION_CACHE_DIR $*" > {tmp_path}/called
    echo compiling
    echo "step 1/8"
    exec sleep 600
    """
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert start._first_step(["--config=a.py"], tmp_path / "cache", tmp_path / "run") < 60
    cache, *rest = (tmp_path / "called").read_text().split()
    assert cache == str(tmp_path / "cache")
    # The one of the tests is not passed on.
    assert rest[:3] == ["-m", "imgrec.main", "--config=a.py"]


def test_cold_starts_have_an_empty_cache_and_warm_ones_what_they_left(monkeypatch):
    seen, told = [], []

    def first_step(arguments, cache, workdir):
        seen.append(cache)
        return 3.0 if cache in seen[:-1] else 30.0

    monkeypatch.setattr(start, "_first_step", first_step)
    monkeypatch.setattr(start, "_import", lambda: 1.0)
    found = start.measure(["--config=a.py"], rounds=2, told=told.append)
    assert found["seconds"] == {
        "cold": [30.0, 30.0],
        "warm": [3.0, 3.0],
        "import of imgrec.main": [1.0, 1.0],
    }
    assert found["values"] == [3.0, 3.0] and found["reached"] and len(told) == 2
    monkeypatch.setattr(start, "_import", lambda: 2.6)
    assert not start.measure([], rounds=1, told=str)["reached"]
