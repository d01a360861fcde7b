"""Compiling the kernels: once, aside, and in words where it cannot be."""

import stat

import pytest

from imgrec.native import build


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """compiler(script): makes a shell script what $CXX names; kernels go to an empty folder."""
    monkeypatch.setenv("IMGREC_NATIVE", str(tmp_path / "kernels"))

    def write(script):
        path = tmp_path / "compiler"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CXX", str(path))
        return tmp_path / "kernels"

    return write


WRITES = 'while [ "$1" != "-o" ]; do shift; done; echo made >> "$2"'


def test_a_library_is_compiled_once(compiler):
    folder = compiler(WRITES)
    first = build._compiled()
    assert first.read_text() == "made\n"
    assert build._compiled() == first
    assert [first] == list(folder.iterdir())
    assert first.read_text() == "made\n"


def test_another_source_is_another_library(compiler, tmp_path, monkeypatch):
    compiler(WRITES)
    first = build._compiled()
    source = tmp_path / "convolution.cc"
    source.write_text("// other")
    monkeypatch.setattr(build, "SOURCES", (source, *build.SOURCES[1:]))
    assert build._compiled() != first


def test_another_header_is_another_library(compiler, tmp_path, monkeypatch):
    compiler(WRITES)
    first = build._compiled()
    header = tmp_path / "convolution.h"
    header.write_text("// other")
    monkeypatch.setattr(build, "HEADERS", (header,))
    assert build._compiled() != first


def test_what_the_compiler_says_is_passed_on_and_nothing_is_left(compiler):
    folder = compiler('echo "convolution.cc:1: error: no such thing" >&2; exit 1')
    with pytest.raises(build.UnavailableError, match=r"compiler failed: .*error: no such thing"):
        build._compiled()
    assert list(folder.iterdir()) == []


def test_a_machine_without_compiler_is_told(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(build.UnavailableError, match=r"no C\+\+ compiler \(c\+\+, g\+\+, clang"):
        build._compiled()


def test_a_folder_that_cannot_be_written_is_named(compiler, tmp_path, monkeypatch):
    compiler(WRITES)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IMGREC_NATIVE", str(tmp_path / "file"))
    with pytest.raises(build.UnavailableError, match="could not be compiled into"):
        build._compiled()
