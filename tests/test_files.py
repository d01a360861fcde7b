import pytest

from imgrec import files


def test_a_file_appears_whole_and_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b.txt"
    with files.written_aside(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    files.write_text(path, "zwölf")
    assert path.read_text() == "zwölf"
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


def test_what_was_there_survives_a_failure(tmp_path):
    path = tmp_path / "b.txt"
    files.write_text(path, "before")
    with pytest.raises(ZeroDivisionError), files.written_aside(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["b.txt"]


def test_a_folder_is_made_and_says_how_much_fits(tmp_path):
    free = files.writable_bytes(tmp_path / "a" / "b")
    assert free > 0
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_folder_that_takes_no_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        files.writable_bytes(tmp_path / "file")
