import io
import json

import numpy as np
import pytest
from PIL import Image

from imgrec.data import audit as audits
from imgrec.data.audit import Leak, audit
from imgrec.data.dataset import ArraySource, Info, Official
from imgrec.reporting import audit_text

NAMES = ("ant", "bee", "cat", "dodo")


class Files:
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
        return f"folder/{row}.jpg"


def again(file, quality):
    stream = io.BytesIO()
    Image.open(io.BytesIO(file)).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def as_png(file):
    stream = io.BytesIO()
    Image.open(io.BytesIO(file)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def official(jpeg):
    """Train: 40 ants, 30 bees, 4 cats; planted copies as the tests say; a camera column."""
    train = [jpeg(seed, width=40 + seed % 3) for seed in range(74)]
    labels = [0] * 40 + [1] * 30 + [2] * 4
    train[5] = train[4]  # the same file
    train[45] = as_png(train[3])  # the same pixels, under another label
    train[7] = again(train[6], 60)  # a near-duplicate
    train[20] = b"damaged"
    test = [jpeg(1000 + seed) for seed in range(10)]
    test[0] = train[4]  # ant, of a group of two
    test[1] = as_png(train[50])  # bee, called ant
    test[2] = again(train[60], 70)  # bee
    test[3] = again(train[4], 55)  # ant, near a group
    validation = [jpeg(2000), again(test[9], 60)]
    columns = {"camera": np.array(["old"] * 40 + ["new"] * 34), "n": np.arange(74)}
    info = Info("insects", 4, NAMES, (0, 0, 3), (0.5,) * 3, (0.5,) * 3, "a test")
    return Official(
        Files(train, labels, columns),
        Files(test, [0, 0, 1, 0, 1, 1, 1, 1, 1, 1]),
        info,
        Files(validation, [0, 1]),
    )


@pytest.fixture
def found(official):
    return audit(official)


def test_counts_classes_and_sizes(found):
    train, validation, test = found.splits
    assert [split.name for split in found.splits] == ["train", "validation", "test"]
    assert (train.examples, validation.examples, test.examples) == (74, 2, 10)
    assert train.class_counts == (40, 30, 4, 0)
    assert train.missing_classes == ("dodo",) and test.missing_classes == ("cat", "dodo")
    assert train.near_empty_classes == (("cat", 4),)
    assert train.imbalance == 10
    assert dict(train.sizes) == {"40x32": 26, "41x32": 25, "42x32": 22}
    assert train.different_sizes == 3
    assert train.width_quantiles == (40, 40, 40, 41, 42, 42, 42)
    assert set(train.height_quantiles) == {32}
    assert train.formats == {"JPEG": 72, "PNG": 1} and train.modes == {"RGB": 73}


def test_near_empty_is_also_a_tenth_of_the_median():
    labels = np.repeat(np.arange(3), [200, 220, 15])
    images = np.random.default_rng(0).integers(0, 256, (435, 8, 8, 1), dtype=np.uint8)
    info = Info("n", 3, ("a", "b", "c"), (8, 8, 1), (0.5,), (0.5,), "")
    found = audit(Official(ArraySource(images, labels), ArraySource(images[:3], labels[:3]), info))
    assert found.splits[0].near_empty_classes == (("c", 15),)


def test_unreadable_images_are_named(found):
    ((where, message),) = found.splits[0].unreadable
    assert where == "folder/20.jpg" and message == "no image file that Pillow knows"
    assert not found.whole


def test_copies_within_a_split(found):
    train = found.splits[0]
    assert (train.same_files, train.same_pixels, train.near_duplicates) == (1, 2, 1)
    within = {
        (copy.kind, copy.first[1], copy.second[1]): copy.conflicting
        for copy in found.copies
        if copy.first[0] == copy.second[0] == "train"
    }
    assert within == {("pixels", 4, 5): False, ("pixels", 3, 45): True, ("near", 6, 7): False}


def test_leaks_across_splits(found):
    assert found.leaks == (
        Leak("train", "validation", 0, 0, 0),
        Leak("train", "test", exact=2, near=2, conflicting=1),
        Leak("validation", "test", exact=0, near=1, conflicting=0),
    )
    assert found.leaking
    across = {
        (copy.kind, *copy.first[:2], *copy.second[:2]) for copy in found.copies if copy.across
    }
    assert across == {
        ("pixels", "train", 4, "test", 0),
        ("pixels", "train", 50, "test", 1),
        ("near", "train", 60, "test", 2),
        ("near", "train", 4, "test", 3),
        ("near", "validation", 1, "test", 9),
    }
    assert (found.total_copies, found.copies_across, found.conflicting_copies) == (8, 5, 2)
    # What matters most comes first.
    assert found.copies[0].conflicting and found.copies[0].across


def test_groups(found):
    camera, number = found.splits[0].columns
    assert (camera.name, camera.values) == ("camera", 2)
    assert [(g.value, g.examples, g.per_class) for g in camera.groups] == [
        ("old", 40, (40, 0, 0, 0)),
        ("new", 34, (0, 30, 4, 0)),
    ]
    assert number.values == 74 and len(number.groups) == 50
    assert found.splits[1].columns == ()


def test_clean_data_has_no_leak(jpeg):
    parts = [
        Files([jpeg(100 * i + j) for j in range(30)], [j % 3 for j in range(30)]) for i in (1, 2)
    ]
    info = Info("clean", 3, NAMES[:3], (0, 0, 3), (0.5,) * 3, (0.5,) * 3, "a test")
    found = audit(Official(parts[0], parts[1], info))
    assert found.whole and not found.leaking and found.copies == ()
    assert "none of test is in train" in audit_text.render(found)
    assert "!" not in audit_text.render(found)


def test_least_correlation_and_workers(official, found):
    assert audit(official, workers=4) == found
    strict = audit(official, least=0.99999)
    assert not any(copy.kind == "near" for copy in strict.copies)
    assert strict.least_correlation == 0.99999


def test_damaged_files_are_handed_through(official):
    found = audit(official, damaged_files=["train-0 is damaged"])
    assert found.damaged_files == ("train-0 is damaged",)
    assert "! train-0 is damaged" in audit_text.render(found)


def test_text_tells_it_all(found):
    text = audit_text.render(found)
    for part in (
        "train: 74 images",
        "40x32 (26)",
        "0 to 40, imbalance 10",
        "! classes without an image: dodo",
        "! nearly empty classes: cat (4)",
        "camera: 2 values: old 40, new 34",
        "!   camera=old has none of: bee, cat",
        "! images that cannot be read: 1",
        "folder/20.jpg",
        "! 4 of test are also in train: 2 with the same pixels, 2 near-duplicates; 1 of them",
        "none of validation is in train",
        "! 2 of 8 pairs of copies have different labels",
    ):
        assert part in text, part


def test_json_is_plain(found):
    read = json.loads(json.dumps(audits.as_json(found)))
    assert read["splits"][0]["class_counts"] == [40, 30, 4, 0]
    assert read["leaks"][1] == {
        "known": "train", "leaked": "test", "exact": 2, "near": 2, "conflicting": 1
    }  # fmt: skip
    assert read["copies"][0]["kind"] == "pixels"


def test_progress_reaches_the_end(official):
    calls = []
    audit(official, progress=lambda *call: calls.append(call))
    last = {stage: (done, total) for stage, done, total in calls}
    assert last.pop("comparing") == (1, 1)
    assert last == {
        "reading train": (74, 74),
        "reading validation": (2, 2),
        "reading test": (10, 10),
    }
