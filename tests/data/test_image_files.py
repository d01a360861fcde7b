import pytest

from imgrec.data import image_files
from imgrec.errors import UserError


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.JPG", "deep/c.webp", "deep/notes.txt", ".hidden/d.png", ".e.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def names(paths, folder):
    return [str(path.relative_to(folder)) for path in paths]


def test_a_folder_is_the_images_below_it_sorted_without_hidden_ones(folder):
    assert names(image_files.find([str(folder)]), folder) == ["a.JPG", "b.png", "deep/c.webp"]


def test_a_file_is_taken_whatever_its_suffix_and_each_once(folder):
    given = [str(folder / "deep/notes.txt"), str(folder / "b.png"), str(folder)]
    found = names(image_files.find(given), folder)
    assert found == ["deep/notes.txt", "b.png", "a.JPG", "deep/c.webp"]


def test_patterns_reach_into_folders(folder):
    found = image_files.find([str(folder / "**" / "*.webp")])
    assert names(found, folder) == ["deep/c.webp"]


def test_a_list_is_read_where_a_dash_stands(folder):
    lines = [f"{folder / 'b.png'}\n", "\n", f"{folder / 'with space.png'}\n"]
    found = names(image_files.find(["-"], lines), folder)
    assert found == ["b.png", "with space.png"]


def test_what_is_not_there_is_named(folder):
    with pytest.raises(UserError, match=r"nothing\.png is not there"):
        image_files.find([str(folder / "nothing.png")])
    with pytest.raises(UserError, match="matches no file"):
        image_files.find([str(folder / "*.tiff")])
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="no image below"):
        image_files.find([str(folder / "empty")])
    with pytest.raises(UserError, match="Which images"):
        image_files.find([])
    with pytest.raises(UserError, match="listed no path"):
        image_files.find(["-"], ["\n"])


def test_a_file_with_brackets_in_its_name_is_no_pattern(folder):
    (folder / "x[1].png").touch()
    assert names(image_files.find([str(folder / "x[1].png")]), folder) == ["x[1].png"]
