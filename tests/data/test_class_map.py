import json

import numpy as np
import pytest

from imgrec.data import class_map
from imgrec.data.dataset import ArraySource, Split
from imgrec.errors import UserError

OURS = ("ant", "honey bee", "cat")


def split() -> Split:
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    source = ArraySource(images, np.array([0, 1, 2, 0, 1, 2]))
    return Split("test", source, np.array([5, 4, 3, 2, 1]))


def test_names_are_matched_whatever_their_order_case_or_underscores():
    assert class_map.match(("Cat", "honey_bee", "ANT"), OURS) == [2, 1, 0]


def test_what_the_user_says_goes_first():
    mapping = {"tiger": "cat", "dog": None}
    assert class_map.match(("tiger", "dog", "ant"), OURS, mapping) == [2, class_map.LEFT_OUT, 0]


def test_unknown_classes_are_listed_with_both_sides_and_a_file_to_write():
    with pytest.raises(UserError, match=r"'dog'.*'honey bee'.*--map=FILE") as error:
        class_map.match(("ant", "dog"), OURS)
    assert '{"dog":' in str(error.value)


def test_a_map_that_names_what_is_not_there_is_refused():
    with pytest.raises(UserError, match="'bat'"):
        class_map.match(("ant",), OURS, {"bat": "ant"})
    with pytest.raises(UserError, match="'lion'"):
        class_map.match(("ant",), OURS, {"ant": "lion"})


def test_mapped_examples_have_our_labels_and_their_own_pixels():
    found = class_map.mapped(split(), [2, class_map.LEFT_OUT, 0])
    assert found.labels().tolist() == [0, 2, 0]  # rows 5, 3 and 2
    batch = found.gather(np.arange(3))
    assert batch["image"][:, 0, 0, 0].tolist() == [5, 3, 2]
    assert batch["label"].tolist() == [0, 2, 0]
    assert found[1]["label"] == 2


def test_a_map_that_leaves_nothing_is_refused():
    with pytest.raises(UserError, match="no image"):
        class_map.mapped(split(), [class_map.LEFT_OUT] * 3)


@pytest.mark.parametrize("text", ["[1]", '{"a": 1}', "{"])
def test_a_file_that_is_no_map_is_refused(tmp_path, text):
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(UserError, match=r"map\.json"):
        class_map.read(tmp_path / "map.json")


def test_a_map_is_read(tmp_path):
    (tmp_path / "map.json").write_text(json.dumps({"a": "b", "c": None}))
    assert class_map.read(tmp_path / "map.json") == {"a": "b", "c": None}
