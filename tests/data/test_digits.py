import numpy as np
from sklearn.datasets import load_digits

from imgrec.data import digits


def test_all_digits_once_scaled_to_a_byte():
    official = digits.load()
    assert (len(official.train), len(official.test)) == (1438, 359)
    images = np.concatenate([official.train.images, official.test.images])
    labels = np.concatenate([official.train.labels(), official.test.labels()])
    theirs = load_digits()

    def as_rows(images, labels):
        return sorted(map(tuple, np.column_stack([images.reshape(1797, 64), labels]).tolist()))

    scaled = [[round(value * 255 / 16) for value in image] for image in theirs.data]
    assert as_rows(images, labels) == as_rows(np.array(scaled), theirs.target)


def test_the_test_split_is_a_stratified_fifth():
    official = digits.load()
    everywhere = np.bincount(load_digits().target)
    assert (abs(np.bincount(official.test.labels()) - everywhere * 359 / 1797) < 1).all()


def test_the_source_names_the_protocol():
    source = digits.load().info.source
    for word in ("no official split", "stratified", "shuffled fifth", "359", "fixed seed"):
        assert word in source


def test_the_split_stays_what_it_was():
    # Published numbers depend on it.
    assert digits.load().test.labels()[:20].tolist() == [
        2,
        7,
        9,
        2,
        7,
        5,
        7,
        5,
        6,
        9,
        8,
        7,
        1,
        2,
        8,
        2,
        0,
        1,
        9,
        0,
    ]
