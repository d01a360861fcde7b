import json

import pytest

from imgrec.data import record
from imgrec.data.record import changes, write

LINES = [
    ("a/1.png", "a", "train", "11"),
    ("a/2, or so.png", "a", "test", "22"),
    ("b/1.png", "b", "validation", "33"),
    ("b/bad.png", "b", "skipped", "44"),
]


def compare(now, classes=("a", "b")):
    return changes(write(("a", "b"), LINES), write(classes, now))


def test_what_is_written():
    files = write(("a", "b"), LINES)
    assert json.loads(files["classes.json"]) == {"a": 0, "b": 1}
    lines = files["splits.csv"].splitlines()
    assert lines[0] == "path,label,split,hash" and lines[2] == '"a/2, or so.png",a,test,22'
    assert len(lines) == 5


def test_a_name_that_is_no_utf8_is_escaped():
    files = write(("a", "b\udcff"), [("b\udcff/1.png", "b\udcff", "train", "11")])
    assert files["splits.csv"].encode().endswith(b"b\\udcff/1.png,b\\udcff,train,11\n")
    assert "b\\udcff" in json.loads(files["classes.json"])


def test_no_change():
    assert compare(LINES) == record.Changes((), (), (), (), ())
    assert compare(LINES[::-1]) == compare(LINES)


def test_a_new_name_is_no_change():
    assert compare([("c/9.png", *LINES[0][1:]), *LINES[1:]]) == compare(LINES)


def test_each_kind_of_change():
    found = compare(
        [
            ("a/1.png", "b", "train", "11"),
            ("a/2.png", "a", "train", "22"),
            ("b/bad.png", "b", "train", "55"),  # mended
        ],
        classes=("b", "c"),
    )
    assert found.added == ("b/bad.png",)
    assert found.removed == ("b/1.png",)
    assert found.relabelled == ("a/1.png: a -> b",)
    assert found.moved == ("a/2.png: test -> train",)
    assert found.classes == ("a: 0 -> absent", "b: 1 -> 0", "c: absent -> 1")


def test_copies_in_several_splits_may_stay_there():
    lines = [LINES[0], ("copy.png", "a", "test", "11")]
    saved, now = write(("a",), lines), write(("a",), lines[::-1])
    assert changes(saved, now).moved == ()
    elsewhere = write(("a",), [("copy.png", "a", "validation", "11")])
    assert changes(saved, elsewhere).moved == ("copy.png: test and train -> validation",)


def test_other_tables_are_no_record():
    with pytest.raises(ValueError, match="first line of splits"):
        changes({**write((), []), "splits.csv": "a,b\n"}, write((), []))
