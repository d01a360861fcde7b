import gzip

import pytest

from imgrec.data import official
from imgrec.errors import UserError


def test_gzip_is_known_by_content_not_by_name(tmp_path):
    for name, content in (("a.gz", b"plain"), ("b", gzip.compress(b"plain"))):
        (tmp_path / name).write_bytes(content)
        with official.opened(tmp_path / name) as stream:
            assert official.read(stream, 100) == b"plain"


def test_read_stops_at_count(tmp_path):
    (tmp_path / "file").write_bytes(bytes(range(200)))
    with official.opened(tmp_path / "file") as stream:
        assert official.read(stream, 3) == b"\0\1\2"
        assert official.read(stream, 0) == b""


def test_a_promise_of_terabytes_allocates_what_is_there(tmp_path):
    (tmp_path / "file").write_bytes(b"short")
    with official.opened(tmp_path / "file") as stream:
        assert official.read(stream, 2**50) == b"short"


def test_unreadable_path(tmp_path):
    with (
        pytest.raises(UserError, match=r"Cannot read .*nothing"),
        official.opened(tmp_path / "nothing"),
    ):
        pass


@pytest.mark.parametrize("damage", ["cut", "flipped", "sum"])
def test_broken_gzip(tmp_path, damage):
    content = bytearray(gzip.compress(bytes(range(256)) * 40))
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    else:
        content[-8] ^= 0xFF
    (tmp_path / "file.gz").write_bytes(content)
    with (
        pytest.raises(UserError, match=r"file\.gz is damaged .* gzip compression is broken"),
        official.opened(tmp_path / "file.gz") as stream,
    ):
        official.read(stream, 20_000)


def test_missing_says_what_is_there_what_is_not_and_what_to_type(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    (tmp_path / "folder").mkdir()
    message = str(official.missing("mnist", tmp_path, "a, b", absent=["b"], hint="Mind that."))
    for part in (
        f"The official files of 'mnist' are not in {tmp_path} or {tmp_path / 'mnist'}.",
        "Missing: b.",
        "holds folder/, holiday.jpg.",
        "Expected: a, b.",
        "Mind that.",
        "--config.data.root=FOLDER",
        "IMGREC_DATA",
        "tfds:mnist",
    ):
        assert part in message


def test_missing_of_a_folder_that_is_none(tmp_path):
    assert "nowhere is not a folder" in str(official.missing("mnist", tmp_path / "nowhere", "a"))


def test_missing_lists_no_endless_folder(tmp_path):
    for i in range(40):
        (tmp_path / f"{i:02}").touch()
    message = str(official.missing("mnist", tmp_path, "a"))
    assert "11, ..." in message and "12" not in message.split("holds")[1]
