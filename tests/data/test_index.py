import hashlib
import json
import os

import numpy as np
import pytest
from PIL import Image

from imgrec.data import index
from imgrec.data.index import Entry, Memory


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(6):
        pixels = rng.integers(0, 256, (5, 4 + i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (folder / "4.png").write_bytes((folder / "4.png").read_bytes()[:60])
    (folder / "5.png").write_bytes(b"")
    return sorted(folder.iterdir())


@pytest.fixture
def memory(tmp_path):
    return Memory(tmp_path / "cache" / "index" / "x.json")


@pytest.fixture
def reads(monkeypatch):
    """The files that were read, in any order."""
    read, names = index._read, []
    monkeypatch.setattr(index, "_read", lambda path: (names.append(path.name), read(path))[1])
    return names


@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_found(paths, memory, threads):
    entries = index.scan(paths, threads, memory)
    for i, (path, entry) in enumerate(zip(paths, entries, strict=True)):
        assert entry.hash == hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
        if i < 4:
            assert entry[1:] == (4 + i, 5, "")
        else:
            assert entry[1:3] == (0, 0) and entry.fault
    assert entries[5].fault == "the file is empty"


def test_a_second_scan_reads_nothing(paths, memory, reads):
    first = index.scan(paths, 2, memory)
    assert len(reads) == 6
    assert index.scan(paths, 2, memory) == first
    assert index.scan(paths[::-1], 1, memory) == first[::-1]
    assert len(reads) == 6


def test_only_what_changed_is_read_again(paths, memory, reads):
    index.scan(paths, 1, memory)
    reads.clear()
    Image.new("RGB", (9, 9)).save(paths[5])
    status = paths[0].stat()
    os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    paths[1].unlink()
    entries = index.scan(paths, 1, memory)
    assert sorted(reads) == ["0.png", "1.png", "5.png"]
    assert entries[5][1:] == (9, 9, "")
    assert entries[1] == Entry("", 0, 0, "No such file or directory")


def test_files_gone_are_forgotten(paths, memory):
    index.scan(paths, 1, memory)
    index.scan(paths[:2], 1, memory)
    assert memory.load()["files"].keys() == {str(path) for path in paths[:2]}


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"version": 0, "files": {"a": 1}}', b"\xff"]
)
def test_a_damaged_memory_is_no_memory(paths, memory, reads, damage):
    index.scan(paths, 1, memory)
    memory.path.write_bytes(damage)
    reads.clear()
    index.scan(paths, 1, memory)
    assert len(reads) == 6
    assert len(json.loads(memory.path.read_text())["files"]) == 6


def test_another_pillow_reads_again(paths, memory, reads, monkeypatch):
    index.scan(paths, 1, memory)
    monkeypatch.setattr(index.PIL, "__version__", "99.0")
    index.scan(paths, 1, memory)
    assert len(reads) == 12


def test_a_memory_that_cannot_be_written_is_no_error(paths, tmp_path, reads):
    (tmp_path / "file").write_text("in the way")
    memory = Memory(tmp_path / "file" / "index" / "x.json")
    assert index.scan(paths, 1, memory) == index.scan(paths, 1, memory)
    assert len(reads) == 12


def test_saving_leaves_nothing_aside(paths, memory):
    index.scan(paths, 1, memory)
    assert list(memory.path.parent.iterdir()) == [memory.path]


def test_where_it_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path / "cache"))
    path = index.memory_of(tmp_path / "a").path
    assert path.parent == tmp_path / "cache" / "index"
    assert path == index.memory_of(tmp_path / "b" / ".." / "a").path
    assert path != index.memory_of(tmp_path / "b").path
    monkeypatch.delenv("IMGREC_CACHE")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(index.memory_of(tmp_path).path).startswith("/home/someone/.cache/imgrec/index/")


def test_a_refusal_lists_ten_and_counts_the_rest():
    error = str(index.refuse({f"{i}.jpg": f"fault {i}" for i in range(25)}))
    assert "25 image files cannot be read" in error and "... and 15 more" in error
    assert "9.jpg: fault 9" in error and "10.jpg" not in error
    assert "--config.data.on_bad_image=skip" in error
    assert "1 image file cannot be read" in str(index.refuse({"a.jpg": "empty"}))
