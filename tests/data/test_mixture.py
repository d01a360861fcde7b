import dataclasses

import numpy as np
import pytest

from imgrec import data
from imgrec.config import DataConfig
from imgrec.data import ArraySource, Subset, mixture
from imgrec.errors import UserError


def info(name, class_names, shape=(8, 8, 1)):
    digits = data.load(DataConfig(dataset="digits")).info
    return dataclasses.replace(
        digits, name=name, class_names=class_names, num_classes=len(class_names), image_shape=shape
    )


def test_labels_are_matched_by_class_name():
    one, other = info("one", ("cat", "dog", "owl")), info("other", ("owl", "cat"))
    assert mixture.labels_in(one, other).tolist() == [2, 0]
    with pytest.raises(UserError, match=r"'other' has the class 'cats'.*\(nearest: 'cat'\)"):
        mixture.labels_in(one, info("other", ("cats",)))


def test_shapes_must_agree():
    mixture.check_shapes([info("one", ("a",)), info("two", ("a",))])
    with pytest.raises(UserError, match=r"'one' are 8x8x1, of 'two' 32x32x3.*image_size"):
        mixture.check_shapes([info("one", ("a",)), info("two", ("a",), (32, 32, 3))])


def test_concatenated_gathers_in_the_order_asked_for():
    rng = np.random.default_rng(0)
    first = ArraySource(rng.integers(0, 256, (4, 2, 2, 1), dtype=np.uint8), np.array([0, 1, 1, 0]))
    second = ArraySource(rng.integers(0, 256, (3, 2, 2, 1), dtype=np.uint8), np.array([1, 0, 0]))
    labels_of = (np.array([0, 1], np.int32), np.array([5, 7], np.int32))
    both = mixture.Concatenated((first, second), labels_of)
    assert len(both) == 7 and both.residency == "memory"
    assert both.labels().tolist() == [0, 1, 1, 0, 7, 5, 5]
    assert both.columns()["source"].tolist() == [0, 0, 0, 0, 1, 1, 1]
    rows = np.array([6, 0, 4, 3])
    batch = both.gather(rows)
    assert (batch["image"] == np.concatenate([first.images, second.images])[rows]).all()
    assert batch["label"].tolist() == [5, 0, 7, 0]
    assert (both[5]["image"] == second.images[1]).all() and both[5]["label"] == 5
    part = Subset(both, np.array([4, 5]))
    assert part.labels().tolist() == [7, 5] and part.columns()["source"].tolist() == [1, 1]


def test_a_mixture_trains_on_both_and_evaluates_on_the_first():
    plain = data.load(DataConfig(dataset="digits"))
    mixed = data.load(DataConfig(dataset="digits", mixture=(("digits", 0.5),)))
    assert len(mixed.train) == len(plain.train) + 1438
    assert len(mixed.sampling) == round(len(plain.train) * 1.5)
    assert (mixed.test.labels() == plain.test.labels()).all()
    assert (mixed.validation.rows == plain.validation.rows).all()
