import dataclasses
import re

import numpy as np
import pytest

from imgrec.data.audit import as_json, audit
from imgrec.data.dataset import ArraySource, Dataset, Info, Official, Split
from imgrec.data.sampling import shuffled
from imgrec.reporting import data_sheet

INFO = {
    "name": "own <set>",
    "class_names": ["cat", "d|og", "owl"],
    "image_shape": (8, 8, 3),
    "source": "files of *mine*",
}
COUNTS = {"train": [50, 10, 0], "test": [5, 5, 5]}


class Told(ArraySource):
    def columns(self):
        return {"site": np.array(["a", "b"])[np.arange(len(self)) % 2], "id": np.arange(len(self))}


def images(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)


def sheet(**more):
    return data_sheet.data_sheet(INFO, COUNTS, **more)


def test_it_asks_what_the_paper_asks():
    titles = re.findall(r"^## (.*)$", sheet(), re.M)
    assert titles == [
        "Motivation",
        "Composition",
        "Collection process",
        "Preprocessing, cleaning, labelling",
        "Uses",
        "Distribution",
        "Maintenance",
    ]
    blanks = re.findall(r"<!-- owner:(\w+) -->\n> \*\*To be filled in by the owner:\*\*", sheet())
    assert len(blanks) == len(set(blanks)) == 7


def test_counts_are_told():
    text = sheet()
    assert "| images of train | 60 |" in text and "| images of test | 15 |" in text
    assert "| largest over smallest class of train | 5, and 1 classes have no image |" in text
    assert "| largest over smallest class of test | 1 |" in text
    assert (
        "| cat | 50 | 5 |" in text and "| d\\|og | 10 | 5 |" in text and "| owl | 0 | 5 |" in text
    )
    assert "8 x 8 x 3 (height, width, channels)" in text
    assert "Source: files of \\*mine\\*." in text and "own &lt;set>" in text


def test_groups_of_a_data_set_are_counted():
    rows = np.arange(60)
    source = Told(images(60), rows % 3)
    train, test = (Split(n, source, r) for n, r in (("train", rows[:45]), ("test", rows[45:])))
    info = Info("own", 3, ("a", "b", "c"), (8, 8, 3), (0.5,) * 3, (0.5,) * 3, "")
    counts, columns = data_sheet.describe(Dataset(train, None, test, info, shuffled(45)))
    assert counts == {"train": [15, 15, 15], "test": [5, 5, 5]}
    assert columns["train"]["site"] == {"a": 23, "b": 22}
    assert columns["test"]["site"] == {"a": 7, "b": 8}
    text = data_sheet.data_sheet(dataclasses.asdict(info), counts, columns=columns)
    assert "| site | images of train | images of test |" in text and "| a | 23 | 7 |" in text


def test_measurements_are_cut_at_the_same_edges_in_all_splits():
    class Measured(Told):
        def columns(self):
            clean = np.where(np.arange(len(self)) < 5, 2, self.labels())
            return {"size": np.arange(60) / 60, "camera": np.full(60, "x"), "clean_label": clean}

    rows = np.arange(60)
    source = Measured(images(60), rows % 3)
    train, test = (Split(n, source, r) for n, r in (("train", rows[:45]), ("test", rows[45:])))
    info = Info("own", 3, ("a", "b", "c"), (8, 8, 3), (0.5,) * 3, (0.5,) * 3, "")
    counts, columns = data_sheet.describe(Dataset(train, None, test, info, shuffled(45)))
    assert list(columns["train"]["size"].values()) == [15, 15, 15, 0]
    assert list(columns["test"]["size"].values()) == [0, 0, 0, 15]
    assert columns["train"]["label agrees with clean_label"] == {"False": 4, "True": 41}
    text = data_sheet.data_sheet(dataclasses.asdict(info), counts, columns=columns)
    assert "Alike in all images: camera is x." in text


def test_identifiers_are_no_groups_and_long_lists_are_cut():
    source = Told(images(60), np.arange(60) % 3)
    split = Split("train", source, np.arange(60))
    info = Info("own", 3, ("a", "b", "c"), (8, 8, 3), (0.5,) * 3, (0.5,) * 3, "")
    _, columns = data_sheet.describe(Dataset(split, split, split, info, shuffled(60)))
    assert columns["train"].keys() == {"site"}
    many = {"train": {"camera": {f"c{i}": i for i in range(20)}}}
    assert "And 8 more." in sheet(columns=many)


def test_without_columns_that_is_said():
    assert "Nothing is known of the images beyond their labels" in sheet()


def test_an_audit_is_told():
    train, test = images(40), images(10, seed=1)
    test[0] = train[3]
    info = Info("own", 2, ("a", "b"), (8, 8, 3), (0.5,) * 3, (0.5,) * 3, "")
    labels = np.arange(40) % 2
    official = Official(ArraySource(train, labels), ArraySource(test, labels[:10]), info)
    text = sheet(audit=as_json(audit(official)))
    assert "1 images of test have a copy in train (1 of the same pixels, 0 near-duplicates" in text
    assert "train: 0 unreadable images, 0 copies" in text
    assert "Not checked" not in text
    assert "Not checked. `python -m imgrec.prepare check DATASET --out=FOLDER`" in sheet()


def test_doubtful_labels_are_told():
    doubt = {
        "n": 100,
        "estimated_share": 0.03,
        "intervals": {"estimated_share": [0.01, 0.05]},
        "pairs": [{"given": "cat", "suggested": "owl", "suspects": 3, "estimated": 2.5}],
    }
    text = sheet(label_errors=doubt)
    assert "(n 100) about 3.00 % [1.00, 5.00] are estimated to be wrong" in text
    assert "| cat | owl | 3 | 2.5 |" in text
    assert "confident learning" not in sheet(label_errors=doubt | {"estimated_share": None})


def test_what_the_owner_wrote_is_kept():
    text = sheet()
    question = re.search(r"<!-- owner:uses -->\n(.*?)\n<!--", text)[1]
    again = sheet(previous=text.replace(question, "Counting birds."))
    assert again == text.replace(question, "Counting birds.")


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({}, "The source is not known."),
        ({"class_names": ["a"], "image_shape": (0, 0, 3)}, "images of several sizes, 3 channels"),
    ],
)
def test_what_is_not_known_is_said(info, said):
    text = data_sheet.data_sheet(info, {"train": [0]} if info else {})
    assert said in text and ("Not counted." in text) == (not info)
