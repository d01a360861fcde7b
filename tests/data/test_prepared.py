"""Writing (imgrec.data.preparing, .reencode) and reading (.prepared) prepared data sets."""

import dataclasses
import errno
import fcntl
import io
import json
import os
import pickle
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from imgrec import data
from imgrec.config import DataConfig
from imgrec.data import imagenet, prepared, preparing, reencode, scenes, view
from imgrec.data.dataset import ArraySource, Info, Official
from imgrec.data.preparing import Settings
from imgrec.errors import UserError

COMMAND = "python -m imgrec.prepare noise --to=there"


class Files:
    """Image files with columns."""

    def __init__(self, files, labels, columns=None):
        self.files, self.targets, self.told = files, np.array(labels, np.int32), columns or {}

    def __len__(self):
        return len(self.files)

    def encoded(self, row):
        return self.files[row]

    def labels(self):
        return self.targets

    def columns(self):
        return self.told

    def where(self, row):
        return f"file {row}"


@pytest.fixture
def noise():
    """noise(channels): 60 training, 10 validation and 20 test images of 9x7 pixels."""

    def make(channels=3, seed=0):
        rng = np.random.default_rng(seed)

        def part(n):
            images = rng.integers(0, 256, (n, 9, 7, channels), dtype=np.uint8)
            return ArraySource(images, np.arange(n) % 5)

        info = Info(
            "noise",
            5,
            tuple("abcde"),
            (9, 7, channels),
            (0.5,) * channels,
            (0.3,) * channels,
            "rng",
        )
        return Official(part(60), part(20), info, part(10))

    return make


@pytest.fixture
def photographs(jpeg):
    """30 and 6 JPEG files of several sizes, with columns."""

    def part(n, seed):
        files = [jpeg(seed + i, width=30 + 3 * i, height=60 - i) for i in range(n)]
        columns = {
            "camera": np.array(["left", "right", "Zürich"] * n)[:n].astype(object),
            "age": np.arange(n) / 2,
        }
        return Files(files, np.arange(n) % 3, columns)

    info = Info("photos", 3, ("ant", "bee", "cat"), (0, 0, 3), (0.5,) * 3, (0.2,) * 3, "here")
    return Official(part(30, 0), part(6, 100), info)


def shards(folder):
    return sorted(folder.glob("*.array_record"))


def snapshot(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def small_shards(monkeypatch):
    """A shard takes 2 KB where a person says 1 MB."""
    planned = preparing._planned

    def smaller(name, part, settings, *rest):
        tiny = dataclasses.replace(settings)
        object.__setattr__(tiny, "shard_mb", _Kibibytes(settings.shard_mb))
        return planned(name, part, tiny, *rest)

    monkeypatch.setattr(preparing, "_planned", smaller)


class _Kibibytes(int):
    def __lshift__(self, bits):
        return int(self) << 11


@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_come_back_to_the_bit(noise, tmp_path, channels):
    before = noise(channels)
    outcome = preparing.prepare(before, tmp_path, Settings(), COMMAND)
    assert (outcome.written, outcome.kept) == (6, 0)
    sizes = sum(p.stat().st_size for p in tmp_path.iterdir() if p.name != "dataset.json")
    assert outcome.total_bytes == sizes
    after = prepared.load(tmp_path)
    assert dataclasses.replace(after.info, source="rng") == before.info
    assert "prepared from: rng" in after.info.source
    for name in ("train", "validation", "test"):
        origin, copy = getattr(before, name), getattr(after, name)
        seen = view.viewed(copy, view.View(0, channels))
        batch = seen.gather(np.arange(len(origin)))
        assert (batch["image"] == origin.images).all()
        assert (batch["label"] == origin.labels()).all() and len(copy) == len(origin)


@pytest.mark.parametrize("image_size", [0, 12])
def test_an_experiment_sees_the_same_examples_and_splits(tmp_path, image_size):
    origin = DataConfig(dataset="digits", validation="100", image_size=image_size)
    preparing.prepare(data.load_official(origin), tmp_path, Settings(), COMMAND)
    again = dataclasses.replace(origin, dataset=f"prepared:{tmp_path}")
    before, after = data.load(origin), data.load(again)
    assert after.info.name == f"prepared:{tmp_path}"
    assert after.info.class_names == before.info.class_names
    for name in ("train", "validation", "test"):
        one, other = getattr(before, name), getattr(after, name)
        assert (one.rows == other.rows).all()
        rows = np.arange(len(one))
        one, other = one.gather(rows), other.gather(rows)
        assert (one["image"] == other["image"]).all() and (one["label"] == other["label"]).all()


def test_files_keep_their_bytes_labels_and_columns(photographs, tmp_path):
    preparing.prepare(photographs, tmp_path, Settings(workers=3), COMMAND)
    after = prepared.load(tmp_path)
    for name in ("train", "test"):
        origin, copy = getattr(photographs, name), getattr(after, name)
        assert [copy.encoded(row) for row in range(len(copy))] == origin.files
        assert (copy.labels() == origin.labels()).all() and copy.labels().dtype == np.int32
        assert copy.columns().keys() == {"camera", "age"}
        assert (copy.columns()["camera"] == origin.columns()["camera"]).all()
        assert (copy.columns()["age"] == origin.columns()["age"]).all()
    assert after.validation is None
    assert after.train.where(7) == f"record 7 of {shards(tmp_path)[1]} (from file 7)"
    assert after.info.image_shape == (0, 0, 3)
    grey = prepared.load(tmp_path, channels=1).info
    assert grey.image_shape == (0, 0, 1) and len(grey.mean) == 1 and 0.3 < grey.mean[0] < 0.7


def test_labels_come_from_the_index_and_read_no_record(photographs, tmp_path, monkeypatch):
    preparing.prepare(photographs, tmp_path, Settings(), COMMAND)
    after = prepared.load(tmp_path)
    monkeypatch.setattr(after.train, "_record", lambda row: pytest.fail("a record was read"))
    assert len(after.train.labels()) == 30 and len(after.train.columns()["age"]) == 30


def test_a_record_is_what_the_docstring_says(photographs, tmp_path):
    preparing.prepare(photographs, tmp_path, Settings(), COMMAND)
    from array_record.python import array_record_module

    record = array_record_module.ArrayRecordReader(str(shards(tmp_path)[1])).read([4])[0]
    length = int.from_bytes(record[:4], "little")
    header = json.loads(record[4 : 4 + length])
    assert header == {"row": 4, "label": 1, "from": "file 4"}
    assert record[4 + length :] == photographs.train.files[4]


def test_threads_and_other_processes_read_the_same(noise, tmp_path, monkeypatch):
    small_shards(monkeypatch)
    preparing.prepare(noise(), tmp_path, Settings(shard_mb=1), COMMAND)
    train = prepared.load(tmp_path).train
    expected = [train.encoded(row) for row in range(60)]
    again = pickle.loads(pickle.dumps(train))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(again.encoded, list(range(60)) * 5)) == expected * 5


def test_shrinks_the_short_side_only_and_keeps_smaller_files(photographs, tmp_path):
    preparing.prepare(photographs, tmp_path, Settings(short_side=40, quality=90), COMMAND)
    after = prepared.load(tmp_path)
    kept = 0
    for row, origin in enumerate(photographs.train.files):
        stored = after.train.encoded(row)
        width, height = Image.open(io.BytesIO(origin)).size
        if min(width, height) <= 40:
            assert stored == origin
            kept += 1
            continue
        image = Image.open(io.BytesIO(stored))
        scale = 40 / min(width, height)
        assert image.size == (round(width * scale), round(height * scale))
        assert min(image.size) == 40 and image.format == "JPEG"
        expected = Image.open(io.BytesIO(origin)).resize(image.size, Image.Resampling.BICUBIC)
        difference = np.asarray(image).astype(float) - np.asarray(expected)
        assert np.sqrt((difference**2).mean()) < 5  # of 255: what JPEG costs
    assert 0 < kept < 30


def test_declared_sizes_shrink_with_the_images(noise, tmp_path):
    preparing.prepare(noise(), tmp_path, Settings(short_side=4), COMMAND)
    after = prepared.load(tmp_path)
    assert after.info.image_shape == (5, 4, 3)
    assert Image.open(io.BytesIO(after.train.encoded(0))).size == (4, 5)


def test_number_of_workers_changes_nothing(photographs, tmp_path):
    folders = [tmp_path / "one", tmp_path / "four"]
    for folder, workers in zip(folders, (1, 4), strict=True):
        preparing.prepare(photographs, folder, Settings(short_side=40, workers=workers), COMMAND)
    contents = [{n: c for n, (c, _) in snapshot(folder).items()} for folder in folders]
    assert contents[0] == contents[1]


def test_size_decides_the_number_of_shards(noise, tmp_path, monkeypatch):
    small_shards(monkeypatch)
    preparing.prepare(noise(), tmp_path, Settings(shard_mb=1), COMMAND)
    names = [path.name for path in shards(tmp_path) if path.name.startswith("train")]
    assert len(names) > 5
    assert names[0] == f"train-00000-of-{len(names):05d}.array_record"
    parts = prepared.describe(tmp_path)["splits"]["train"]["shards"]
    assert sum(part["examples"] for part in parts) == 60
    assert len({part["examples"] for part in parts}) <= 2  # even, to within one


def test_a_second_call_writes_nothing(noise, tmp_path):
    preparing.prepare(noise(), tmp_path, Settings(), COMMAND)
    before = {name: v for name, v in snapshot(tmp_path).items() if name != "dataset.json"}
    outcome = preparing.prepare(noise(), tmp_path, Settings(), COMMAND)
    assert (outcome.written, outcome.kept) == (0, 6)
    after = {name: v for name, v in snapshot(tmp_path).items() if name != "dataset.json"}
    assert after == before


def test_goes_on_where_it_stopped(noise, tmp_path, monkeypatch):
    small_shards(monkeypatch)
    settings = Settings(shard_mb=1)
    whole = tmp_path / "whole"
    total = preparing.prepare(noise(), whole, settings, COMMAND).written

    def stop(split, done, total):
        if (split, done) == ("train", 33):
            raise KeyboardInterrupt

    folder = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        preparing.prepare(noise(), folder, settings, COMMAND, stop)
    assert not list(folder.glob(".*"))
    done = len(list(folder.iterdir())) - 1
    assert 2 < done < total
    with pytest.raises(UserError, match=rf"is not finished: {done - 1} of .*\n  {COMMAND}"):
        prepared.load(folder)
    outcome = preparing.prepare(noise(), folder, settings, COMMAND)
    assert (outcome.written, outcome.kept) == (total - done, done)
    assert {n: c for n, (c, _) in snapshot(folder).items()} == {
        n: c for n, (c, _) in snapshot(whole).items()
    }


def test_leftovers_of_a_killed_process_go(noise, tmp_path):
    (tmp_path / ".train-00000-of-00001.array_record.part").write_bytes(b"half")
    preparing.prepare(noise(), tmp_path, Settings(), COMMAND)
    assert not list(tmp_path.glob(".*"))


def corrupt(path):
    content = bytearray(path.read_bytes())
    # The first record comes after the file's header.
    content[content.index(b'{"row"') + 60] ^= 255
    path.write_bytes(content)


def test_a_corrupt_shard_is_named_and_only_it_is_written_again(noise, tmp_path, monkeypatch):
    small_shards(monkeypatch)
    settings = Settings(shard_mb=1)
    preparing.prepare(noise(), tmp_path, settings, COMMAND)
    before = snapshot(tmp_path)
    bad = shards(tmp_path)[2]
    corrupt(bad)
    # Opening looks at sizes only; the record itself tells.
    official = prepared.load(tmp_path)
    part = getattr(official, bad.name.split("-")[0])
    with pytest.raises(UserError, match=rf"{bad.name} is damaged: record \d.*\n  {COMMAND}"):
        for row in range(len(part)):
            part.encoded(row)
    (told,) = prepared.damaged_files(tmp_path)
    assert bad.name in told and "checksum" in told and COMMAND in told
    outcome = preparing.prepare(noise(), tmp_path, settings, COMMAND)
    assert outcome.written == 1
    after = snapshot(tmp_path)
    assert after[bad.name][0] == before[bad.name][0]
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {bad.name, "dataset.json"}
    assert prepared.damaged_files(tmp_path) == []


@pytest.mark.parametrize("harm", ["cut", "removed", "index"])
def test_harm_is_found_on_opening(noise, tmp_path, harm):
    preparing.prepare(noise(), tmp_path, Settings(), COMMAND)
    path = tmp_path / "train.index.npz" if harm == "index" else shards(tmp_path)[-1]
    if harm == "removed":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(UserError, match=rf"{path.name} is damaged: .*\n  {COMMAND}"):
        prepared.load(tmp_path)
    assert preparing.prepare(noise(), tmp_path, Settings(), COMMAND).written == 1
    assert len(prepared.load(tmp_path).train) == 60


def test_a_source_that_changed_cannot_mend_a_shard(noise, tmp_path):
    preparing.prepare(noise(), tmp_path, Settings(), COMMAND)
    corrupt(shards(tmp_path)[0])
    harmed = shards(tmp_path)[0].read_bytes()
    with pytest.raises(UserError, match="the source no longer gives what it held"):
        preparing.prepare(noise(seed=1), tmp_path, Settings(), COMMAND)
    assert shards(tmp_path)[0].read_bytes() == harmed


def test_other_settings_in_the_same_folder_are_refused(noise, tmp_path):
    preparing.prepare(noise(), tmp_path, Settings(), COMMAND)
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match="short_side was 0, is now 5; quality was 95, is now 80"):
        preparing.prepare(noise(), tmp_path, Settings(short_side=5, quality=80), COMMAND)
    fewer = noise()
    fewer = dataclasses.replace(fewer, test=ArraySource(fewer.test.images[:5], np.arange(5)))
    with pytest.raises(UserError, match="labels or columns of the source have changed"):
        preparing.prepare(fewer, tmp_path, Settings(), COMMAND)
    assert snapshot(tmp_path) == before


def test_a_folder_that_holds_something_else(noise, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"holds something else \(thesis\.tex\)"):
        preparing.prepare(noise(), tmp_path, Settings(), COMMAND)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_processes_do_not_write_to_one_folder(noise, tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(UserError, match="Another process is preparing in"):
            preparing.prepare(noise(), tmp_path, Settings(), COMMAND)
    finally:
        os.close(descriptor)


def test_a_full_disk_before_and_meanwhile(noise, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(preparing.shutil, "disk_usage", lambda _: usage._replace(free=100))
        with pytest.raises(UserError, match=r"are still to be written.*--short_side=256"):
            preparing.prepare(noise(), tmp_path, Settings(), COMMAND)
    with monkeypatch.context() as patch:

        def full(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(preparing.os, "fsync", full)
        with pytest.raises(UserError, match=r"(?s)Cannot write .*"):
            preparing.prepare(noise(), tmp_path, Settings(), COMMAND)

    def writer(array_record, records):
        def write(path):
            path.write_bytes(b"some")
            raise RuntimeError("write() failed: No space left on device; writing")

        return write

    with monkeypatch.context() as patch:
        patch.setattr(preparing, "_shard_writer", writer)
        with pytest.raises(UserError, match=r"the disk is full.*the same command goes on"):
            preparing.prepare(noise(), tmp_path, Settings(), COMMAND)
    assert not list(tmp_path.glob(".*"))
    outcome = preparing.prepare(noise(), tmp_path, Settings(), COMMAND)
    assert outcome.kept == 1  # the index of train, which was written before


def test_an_image_that_cannot_be_shrunk_is_named(photographs, tmp_path):
    photographs.train.files[11] = photographs.train.files[11][:300]
    with pytest.raises(UserError, match=r"Cannot shrink file 11: .*without --short_side"):
        preparing.prepare(photographs, tmp_path / "small", Settings(short_side=20), COMMAND)
    preparing.prepare(photographs, tmp_path / "whole", Settings(), COMMAND)
    stored = prepared.load(tmp_path / "whole").train.encoded(11)
    assert stored == photographs.train.files[11]


@pytest.mark.parametrize(
    ("field", "value"), [("quality", 0), ("short_side", -1), ("shard_mb", 0), ("workers", 0)]
)
def test_impossible_settings(field, value):
    with pytest.raises(UserError, match=f"--{field}={value} is impossible"):
        Settings(**{field: value})


def test_four_channels_fit_no_image_file(tmp_path):
    source = ArraySource(np.zeros((2, 4, 4, 4), np.uint8), np.arange(2))
    info = Info("four", 2, ("a", "b"), (4, 4, 4), (0.5,) * 4, (0.5,) * 4, "here")
    with pytest.raises(UserError, match="have 4 channels; expected 1"):
        preparing.prepare(Official(source, source, info), tmp_path, Settings(), COMMAND)


def test_what_is_no_prepared_folder(tmp_path, noise, monkeypatch):
    with pytest.raises(UserError, match=r"lacks dataset\.json.*python -m imgrec\.prepare"):
        data.load(DataConfig(dataset=f"prepared:{tmp_path}"))
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        prepared.load(tmp_path)
    assert not prepared.is_of(tmp_path, "noise")
    (tmp_path / "dataset.json").write_text('{"format": 99}')
    with pytest.raises(UserError, match="has the format 99"):
        prepared.load(tmp_path)
    monkeypatch.setitem(sys.modules, "array_record.python", None)
    with pytest.raises(UserError, match="pip install array-record"):
        preparing.prepare(noise(), tmp_path / "new", Settings(), COMMAND)


def test_imagenet_and_scenes_can_be_prepared(tmp_path, write_imagenet):
    files = write_imagenet(tmp_path / "tars")
    preparing.prepare(imagenet.load(tmp_path / "tars"), tmp_path / "to", Settings(), COMMAND)
    after = prepared.load(tmp_path / "to")
    assert after.train.encoded(0) == files["n01440764/n01440764_0.JPEG"]
    official = scenes.load(DataConfig(dataset="scenes"))
    first = official.test[0]["image"]
    stored = Image.open(io.BytesIO(reencode.as_file(official.test, 0)))
    assert (np.asarray(stored).reshape(first.shape) == first).all()
