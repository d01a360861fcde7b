import numpy as np
import pytest
from sklearn.model_selection import StratifiedShuffleSplit

from imgrec.data import splits
from imgrec.data.dataset import ArraySource
from imgrec.errors import UserError


def source(labels):
    labels = np.asarray(labels, np.int32)
    return ArraySource(np.zeros((len(labels), 1, 1, 1), np.uint8), labels)


LABELS = np.random.default_rng(0).choice(5, 997, p=[0.5, 0.3, 0.1, 0.08, 0.02]).astype(np.int32)


@pytest.mark.parametrize("validation", ["10%", "1%", "50%", "5", "123", "12.5%", " 33 % "])
@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_cut_is_a_stratified_partition(validation, seed):
    train, held_out = splits.cut(source(LABELS), validation, seed)

    count = splits.parse(validation, len(LABELS))
    assert len(held_out) == count
    assert sorted([*train, *held_out]) == list(range(len(LABELS)))
    share = np.bincount(LABELS) * count / len(LABELS)
    assert (abs(np.bincount(LABELS[held_out], minlength=5) - share) < 1).all()


def test_class_counts_are_those_of_scikit_learn():
    # Where no remainders tie, both give the images left over to the largest ones.
    labels = np.repeat(np.arange(3, dtype=np.int32), [53, 29, 18])
    for count in (10, 37, 47):
        reference = StratifiedShuffleSplit(1, test_size=count, random_state=0)
        ((_, theirs),) = reference.split(labels, labels)
        ours = splits.stratified(labels, count, seed=0)
        assert (np.bincount(labels[ours]) == np.bincount(labels[theirs])).all()


def test_equal_remainders_go_to_the_smaller_label():
    labels = np.repeat(np.arange(3, dtype=np.int32), [6, 3, 1])  # shares of 5: 3, 1.5 and 0.5
    drawn = splits.stratified(labels, 5, seed=0)
    assert np.bincount(labels[drawn], minlength=3).tolist() == [3, 2, 0]


def test_only_text_and_seed_decide():
    first, second = (splits.cut(source(LABELS), "10%", 4)[1] for _ in range(2))
    assert (first == second).all()
    assert (first != splits.cut(source(LABELS), "10%", 5)[1]).any()


def test_stays_what_it_was():
    # Recorded runs depend on it.
    labels = np.arange(20, dtype=np.int32) % 2
    assert splits.stratified(labels, 6, seed=0).tolist() == [2, 7, 9, 12, 17, 18]


@pytest.mark.parametrize("none", ["0", "0%", "0.0%"])
def test_nothing_held_out(none):
    train, held_out = splits.cut(source(LABELS), none, 0)
    assert held_out is None
    assert train.tolist() == list(range(len(LABELS)))


def test_no_validation_reads_no_label():
    class Unread(ArraySource):
        def labels(self):
            raise AssertionError("a pass over the records that nobody needs")

    unread = Unread(np.zeros((3, 1, 1, 1), np.uint8), np.zeros(3, np.int32))
    train, _ = splits.cut(unread, "0", 0)
    assert train.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("validation", "examples", "count"),
    [("10%", 60_000, 6_000), ("10%", 1_438, 144), ("2.5%", 100, 3), ("5000", 50_000, 5_000)],
)
def test_parse(validation, examples, count):
    assert splits.parse(validation, examples) == count


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        ("", "neither a share nor a count"),
        ("ten", "neither a share nor a count"),
        ("0.1", "Write a share of the training images as '10%'"),
        ("-5", "neither a share nor a count"),
        ("-10%", "neither a share nor a count"),
        ("1e3", "neither a share nor a count"),
        ("10 percent", "neither a share nor a count"),
        ("100%", "asks for 50 of 50"),
        ("50", "asks for 50 of 50"),
        ("51", "asks for 51 of 50"),
        ("250%", "asks for 125 of 50"),
        ("0.5%", "less than one image"),
    ],
)
def test_impossible_requests(validation, message):
    with pytest.raises(UserError, match=message) as error:
        splits.parse(validation, 50)
    assert f"config.data.validation={validation!r}" in str(error.value)


def test_a_class_without_training_images_is_refused():
    with pytest.raises(UserError, match="leaves none of class 7 to train on"):
        splits.cut(source([3] * 9 + [7]), "9", 0)
