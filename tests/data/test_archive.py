import io
import os
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from imgrec.data import archive
from imgrec.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def packed(tmp_path, write_imagenet):
    """(path of the training archive, what is in it)."""
    files = write_imagenet(tmp_path / "official")
    path = tmp_path / "official" / "ILSVRC2012_img_train.tar"
    inside = {name.replace("/", ".tar/"): content for name, content in files.items() if "/" in name}
    return path, inside


def read_all(path):
    found, reader = archive.members(path), archive.ArchiveReader(path)
    return {
        name.decode(): reader.read(int(offset), int(size))
        for name, offset, size in zip(found.names, found.offsets, found.sizes, strict=True)
    }


def test_members_of_archives_within_are_read_without_unpacking(packed):
    path, inside = packed
    assert read_all(path) == inside


@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_every_style_of_tar(tmp_path, style):
    contents = {f"{'x' * n}/{'é' * n}.JPEG": os.urandom(n) for n in (1, 40)}
    if style != tarfile.USTAR_FORMAT:
        contents |= {f"{'y' * 150}/{'z' * 150}.JPEG": b"long"}
    path = tmp_path / "some.tar"
    with tarfile.open(path, "w", format=style) as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo("./" + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        tar.addfile(tarfile.TarInfo(".hidden"), io.BytesIO())
    assert read_all(path) == contents


def test_the_index_is_made_once_and_anew_when_the_archive_changes(packed, monkeypatch):
    path, inside = packed
    archive.members(path)
    assert path.with_name(path.name + ".index.npz").is_file()
    with monkeypatch.context() as patch:
        patch.setattr(archive, "_index", lambda *_: pytest.fail("indexed again"))
        assert read_all(path) == inside
    other = io.BytesIO()
    with tarfile.open(fileobj=other, mode="w") as tar:
        member = tarfile.TarInfo("new.JPEG")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"new"))
    path.write_bytes(other.getvalue())
    assert read_all(path) == {"new.JPEG": b"new"}


def test_a_damaged_index_is_made_anew(packed):
    path, inside = packed
    archive.members(path)
    path.with_name(path.name + ".index.npz").write_bytes(b"no index")
    assert read_all(path) == inside


def test_beside_a_folder_that_takes_no_file_the_cache_holds_the_index(packed, cache, monkeypatch):
    path, inside = packed
    write = archive._write_index
    monkeypatch.setattr(
        archive,
        "_write_index",
        lambda place, *rest: place.parent != path.parent and write(place, *rest),
    )
    assert read_all(path) == inside
    assert [place.suffix for place in cache.iterdir()] == [".npz"]
    monkeypatch.setattr(archive, "_index", lambda *_: pytest.fail("indexed again"))
    assert read_all(path) == inside


def test_threads_and_other_processes_read_the_same(packed):
    path, _ = packed
    found, reader = archive.members(path), archive.ArchiveReader(path)
    again = pickle.loads(pickle.dumps(reader))
    spans = list(zip(found.offsets.tolist(), found.sizes.tolist(), strict=True)) * 20
    expected = [reader.read(*span) for span in spans]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda span: again.read(*span), spans)) == expected


@pytest.mark.parametrize("share", [0.03, 0.31, 0.5, 0.77, 0.999])
def test_cut_short_is_found_while_indexing(packed, share):
    path, _ = packed
    size = path.stat().st_size
    # tarfile fills an archive up to 10,240 bytes; what counts ends sooner.
    os.truncate(path, int((size - 10_240) * share))
    with pytest.raises(UserError, match=r"img_train\.tar is cut short or damaged at byte [\d,]+"):
        archive.members(path)
    assert not path.with_name(path.name + ".index.npz").exists()


def test_cut_short_between_two_members(tmp_path, write_imagenet):
    write_imagenet(tmp_path)
    path = tmp_path / "ILSVRC2012_img_val.tar"
    last = int(np.max(archive.members(path).offsets)) - 512
    os.truncate(path, last)
    with pytest.raises(UserError, match="the mark of its end is missing"):
        archive.members(path)


def test_an_archive_that_shrank_after_it_was_indexed(packed):
    path, _ = packed
    found, reader = archive.members(path), archive.ArchiveReader(path)
    os.truncate(path, int(found.offsets[-1]) + 5)
    with pytest.raises(UserError, match="it was whole when indexed"):
        reader.read(int(found.offsets[-1]), int(found.sizes[-1]))


def test_what_is_no_archive(tmp_path):
    (tmp_path / "page.tar").write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(UserError, match=r"page\.tar is no tar archive"):
        archive.members(tmp_path / "page.tar")
    with pytest.raises(UserError, match=r"Cannot read .*absent\.tar: No such file"):
        archive.members(tmp_path / "absent.tar")
