"""Classes that training never sees: none of their images, and nothing of the others lost."""

import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict

from imgrec import data
from imgrec.config import DataConfig
from imgrec.data import ArraySource, holdout, studies
from imgrec.errors import UserError

HELD = ("7", "2")


def load(**options):
    options = {"dataset": "digits", "validation": "200", "holdout_classes": HELD, **options}
    return data.load(DataConfig(**options))


def bytes_of(split):
    return [image.tobytes() for image in split.gather(np.arange(len(split)))["image"]]


def named(split, names):
    """(image, class name) of every example, sorted, so that two ways of cutting compare."""
    return sorted(zip(bytes_of(split), np.array(names)[split.labels()].tolist(), strict=True))


def test_known_and_held_out_are_all_there_is_under_their_own_names():
    whole, parted = load(holdout_classes=(), validation="0"), load(validation="0")
    info = parted.info
    assert info.held_out_names == ("2", "7")
    assert info.class_names == tuple("01345689") and info.num_classes == 8
    assert (info.mean, info.std) == (whole.info.mean, whole.info.std)
    assert info.source == f"{whole.info.source}; held out of training: 2, 7"
    for known, held_out, all_of_it in (
        (parted.train, parted.held_out_train, whole.train),
        (parted.test, parted.held_out, whole.test),
    ):
        found = named(known, info.class_names) + named(held_out, info.held_out_names)
        assert sorted(found) == named(all_of_it, whole.info.class_names)
        assert set(named(held_out, info.held_out_names)) == {
            pair for pair in named(all_of_it, whole.info.class_names) if pair[1] in HELD
        }
    assert whole.held_out is None and whole.held_out_train is None
    assert whole.info.held_out_names == ()


def test_rows_of_a_split_agree_however_they_are_read():
    dataset = load()
    for split in (
        dataset.train,
        dataset.validation,
        dataset.test,
        dataset.held_out,
        dataset.held_out_train,
    ):
        positions = np.array([len(split) - 1, 0, 3])
        batch = split.gather(positions)
        assert batch["label"].dtype == np.int32
        assert (batch["label"] == split.labels()[positions]).all()
        for row, position in enumerate(positions):
            example = split[int(position)]
            assert (example["image"] == batch["image"][row]).all()
            assert example["label"] == batch["label"][row]
            assert example["label"].dtype == np.int32
        assert split.source.residency == "memory"


def test_the_cut_and_the_studies_are_of_the_known_classes():
    plain = load()
    assert len(plain.validation) == 200
    assert set(plain.validation.labels()) == set(range(8))
    assert set(plain.train.rows).isdisjoint(plain.validation.rows)
    for options in ({"per_class": 5}, {"imbalance": 10.0}, {"label_noise": 0.25}):
        changed = load(**options)
        for name in ("validation", "test", "held_out", "held_out_train"):
            before, after = getattr(plain, name), getattr(changed, name)
            assert (before.rows == after.rows).all() and (before.labels() == after.labels()).all()
        assert set(changed.train.rows) <= set(plain.train.rows)
        assert set(changed.train.labels()) == set(range(8))
    assert np.bincount(load(per_class=5).train.labels()).tolist() == [5] * 8
    sizes = np.bincount(load(imbalance=10.0).train.labels())
    assert (np.diff(sizes) < 0).all() and sizes[0] // sizes[-1] == 10
    noisy = load(label_noise=0.25)
    wrong = noisy.train.labels() != noisy.train.columns()["clean_label"]
    assert abs(wrong.mean() - 0.25) < 0.01


def test_confusions_with_a_class_that_is_gone_are_left_out():
    known = ("0", "1", "2", "3", "4", "5", "6", "8", "9")  # MNIST's, without 7
    assert studies.confusions("mnist", known) == {3: 7, 5: 6, 6: 5}


def test_what_is_mixed_in_loses_the_class_too():
    mixed = load(mixture=(("digits", 1.0),))
    plain = load()
    assert len(mixed.train) == len(plain.train) + len(load(validation="0").train)
    gone = set(bytes_of(mixed.held_out_train)) | set(bytes_of(mixed.held_out))
    assert gone.isdisjoint(bytes_of(mixed.train))


def test_scenes_and_their_wrong_labels():
    """Neither the labels nor the shapes that training sees are the held-out class's."""
    options = ConfigDict({"train": 200, "test": 60, "resolution": 16, "label_noise": 0.4})
    fields = {"dataset": "scenes", "validation": "0", "options": options}
    whole = load(holdout_classes=(), **fields)
    shape = whole.info.class_names[1]
    dataset = load(holdout_classes=(shape,), **fields)
    assert dataset.info.num_classes == whole.info.num_classes - 1
    clean, was = dataset.train.columns()["clean_label"], whole.train.columns()["clean_label"]
    assert clean.min() == 0 and clean.max() == dataset.info.num_classes - 1
    known = (was != 1) & (whole.train.labels() != 1)
    assert (clean == was[known] - (was[known] > 1)).all()
    held_out = (was == 1) & (whole.train.labels() == 1)
    assert 0 < len(dataset.held_out_train) == held_out.sum() < (was == 1).sum()
    assert (dataset.train.columns()["index"] == whole.train.columns()["index"][known]).all()
    assert (dataset.train.labels() != clean).any()


def test_folders_with_a_validation_split_of_their_own(write_images, tmp_path):
    root = write_images(tmp_path / "images")
    for name in ("cat", "dog"):  # from two classes to four
        (root / name).mkdir()
        source = root / {"cat": "ant", "dog": "bee"}[name]
        for i, file in enumerate(sorted(source.iterdir())):
            if i % 2:
                file.rename(root / name / file.name)
    fields = {"dataset": f"folder:{root}", "validation": "20%", "image_size": 8}
    whole, dataset = load(holdout_classes=(), **fields), load(holdout_classes=("bee",), **fields)
    assert dataset.info.class_names == ("ant", "cat", "dog")
    assert dataset.info.record == whole.info.record
    for name in ("train", "validation", "test"):
        known, all_of_it = getattr(dataset, name), getattr(whole, name)
        expected = [p for p in named(all_of_it, whole.info.class_names) if p[1] != "bee"]
        assert named(known, dataset.info.class_names) == expected
    assert set(named(dataset.held_out, ("bee",))) == {
        pair for pair in named(whole.test, whole.info.class_names) if pair[1] == "bee"
    }


def test_a_class_is_named_by_its_name_or_else_its_label():
    info = dataclasses.replace(
        load().info, num_classes=4, class_names=("cat", "1", "crane", "crane")
    )
    assert holdout.labels_of((), info) == ()
    assert holdout.labels_of(("1",), info) == (1,)
    assert holdout.labels_of(("0",), info) == (0,)
    assert holdout.labels_of(("crane", "crane"), info) == (2, 3)
    assert holdout.labels_of(("3", "cat"), info) == (0, 3)


@pytest.mark.parametrize("given", ["catt", "4", "-1", ""])
def test_an_unknown_class_gets_the_nearest(given):
    info = dataclasses.replace(load().info, num_classes=3, class_names=("cat", "dog", "owl"))
    meant = " Did you mean 'cat'?" if given == "catt" else ""
    message = f"class in config.data.holdout_classes '{given}'.{meant} Known: cat, dog, owl"
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        holdout.labels_of((given,), info)


def test_two_classes_are_to_be_left():
    assert load(holdout_classes=tuple("01234567")).info.class_names == ("8", "9")
    with pytest.raises(UserError, match=r"leaves 1 of the 10 classes of 'digits'.*needs 2"):
        load(holdout_classes=tuple("012345678"))


def test_classes_in_an_order_of_ones_own():
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    part = holdout.OfClasses(ArraySource(images, np.array([0, 1, 2, 2, 0, 1])), [2, 0])
    assert part.labels().tolist() == [1, 0, 0, 1] and len(part) == 4
    assert part.gather(np.array([3, 0]))["image"].ravel().tolist() == [4, 0]
    assert len(holdout.OfClasses(ArraySource(images[:0], np.array([], int)), [1])) == 0
