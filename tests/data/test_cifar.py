import gzip
import io
import tarfile

import numpy as np
import pytest

from imgrec.data import cifar
from imgrec.data.dataset import channel_statistics
from imgrec.errors import UserError

pytestmark = pytest.mark.usefixtures("small_cifar")

VARIANTS = ["CIFAR10", "CIFAR100"]


def pack(archive, contents, folder):
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("place", ["", "{folder}", "{name}", "{name}/{folder}", "archive"])
def test_reads_what_was_written(tmp_path, write_cifar, variant, place):
    variant = getattr(cifar, variant)
    if place == "archive":
        written = write_cifar(variant, tmp_path / "elsewhere")
        contents = {"readme.html": b"", **{k: v.tobytes() for k, v in written.items()}}
        pack(tmp_path / variant.archive, contents, variant.folder)
    else:
        place = place.format(name=variant.name, folder=variant.folder)
        written = write_cifar(variant, tmp_path / place)
    official = cifar.load(variant, tmp_path)
    for source, files in ((official.train, variant.train), (official.test, variant.test)):
        records = np.concatenate([written[name] for name in files])
        assert (source.labels() == records[:, len(variant.label_ranges) - 1]).all()
        for row in (0, len(records) - 1):
            red, green, blue = records[row, -3072:].reshape(3, 32, 32)
            assert (source[row]["image"] == np.stack([red, green, blue], axis=-1)).all()
        assert len(source) == len(records)


def test_class_names():
    assert len(set(cifar.CIFAR10.class_names)) == 10
    names = cifar.CIFAR100.class_names
    assert len(set(names)) == 100 and list(names) == sorted(names)


def test_cifar100_statistics_are_those_of_its_images(tmp_path, write_cifar):
    write_cifar(cifar.CIFAR100, tmp_path)
    official = cifar.load(cifar.CIFAR100, tmp_path)
    exact = channel_statistics(official.train, sample=200)
    assert (official.info.mean, official.info.std) == exact


@pytest.mark.parametrize("variant", VARIANTS)
def test_missing_files(tmp_path, write_cifar, variant):
    variant = getattr(cifar, variant)
    with pytest.raises(UserError, match=f"Expected: {variant.archive}, or its files"):
        cifar.load(variant, tmp_path)
    write_cifar(variant, tmp_path)
    (absent,) = variant.test
    (tmp_path / absent).unlink()
    with pytest.raises(UserError, match=f"Missing: {tmp_path / absent}"):
        cifar.load(variant, tmp_path)


def test_the_python_version_is_told_apart(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").touch()
    with pytest.raises(UserError, match="pickle; the binary one is needed"):
        cifar.load(cifar.CIFAR10, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b[:-3073], "expected 61,460 bytes .20 records., got 58,387"),
        (lambda b: b + b"\0", "expected 61,460 bytes .20 records., there are more"),
        (lambda b: b"", "got 0"),
        (
            lambda b: b[:3073] + b"\x0a" + b[3074:],
            "label 10 of record 1 is out of range, .* 0 to 9",
        ),
    ],
)
@pytest.mark.parametrize("archived", [False, True])
def test_damaged_records(tmp_path, write_cifar, change, message, archived):
    folder = tmp_path / cifar.CIFAR10.folder
    contents = {k: v.tobytes() for k, v in write_cifar(cifar.CIFAR10, folder).items()}
    contents["data_batch_3.bin"] = change(contents["data_batch_3.bin"])
    if archived:
        pack(tmp_path / cifar.CIFAR10.archive, contents, folder.name)
        (folder / "test_batch.bin").unlink()  # an incomplete folder gives way to the archive
    else:
        (folder / "data_batch_3.bin").write_bytes(contents["data_batch_3.bin"])
    with pytest.raises(UserError, match=f"data_batch_3.bin is damaged .*{message}"):
        cifar.load(cifar.CIFAR10, tmp_path)


def test_the_coarse_label_of_cifar100_is_checked_too(tmp_path, write_cifar):
    records = write_cifar(cifar.CIFAR100, tmp_path)["train.bin"]
    records[7, 0] = 20
    (tmp_path / "train.bin").write_bytes(records.tobytes())
    with pytest.raises(UserError, match="label 20 of record 7 is out of range, expected 0 to 19"):
        cifar.load(cifar.CIFAR100, tmp_path)


@pytest.mark.parametrize(
    "damage", ["cut", "flipped", "gzip sum", "cut tar", "no tar", "empty", "a file too few", "link"]
)
def test_damaged_archives(tmp_path, write_cifar, damage):
    written = write_cifar(cifar.CIFAR10, tmp_path / "elsewhere")
    contents = {name: records.tobytes() for name, records in written.items()}
    if damage in ("a file too few", "link"):
        del contents["data_batch_4.bin"]
    archive = tmp_path / cifar.CIFAR10.archive
    pack(archive, contents, cifar.CIFAR10.folder)
    content = bytearray(archive.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    elif damage == "gzip sum":
        content[-8] ^= 0xFF
    elif damage == "cut tar":
        content = gzip.compress(gzip.decompress(content)[:100_000])
    elif damage == "no tar":
        content = gzip.compress(b"<html>" * 1000)
    elif damage == "empty":
        content = b""
    archive.write_bytes(content)
    if damage == "link":
        with tarfile.open(archive, "w:gz") as tar:
            link = tarfile.TarInfo("data_batch_4.bin")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
            tar.addfile(link)
    with pytest.raises(UserError, match=f"{archive}.* is damaged or not the official file"):
        cifar.load(cifar.CIFAR10, tmp_path)
