import numpy as np
import pytest

from imgrec import data
from imgrec.config import DataConfig
from imgrec.data import ArraySource, studies
from imgrec.errors import UserError

LABELS = np.repeat(np.arange(10, dtype=np.int32), 500)[np.random.default_rng(0).permutation(5000)]


def test_per_class_keeps_so_many_of_each_and_larger_caps_keep_smaller_ones():
    few, more = (studies.per_class(LABELS, count, seed=1) for count in (25, 60))
    assert np.bincount(LABELS[few]).tolist() == [25] * 10
    assert np.bincount(LABELS[more]).tolist() == [60] * 10
    assert set(few) < set(more) and (np.diff(few) > 0).all()
    assert set(studies.per_class(LABELS, 25, seed=2)) != set(few)


def test_a_class_with_fewer_is_kept_whole():
    labels = np.array([0, 0, 0, 1], np.int32)
    assert studies.per_class(labels, 2, seed=0).tolist()[-1] == 3


def test_long_tail_has_the_published_sizes():
    # CIFAR-10-LT with imbalance 100 (Cui et al. 2019, from 5,000 a class): the sizes that
    # papers on it list.
    labels = np.repeat(np.arange(10, dtype=np.int32), 5000)
    kept = studies.long_tailed(labels, 10, 100.0, seed=0)
    assert np.bincount(labels[kept]).tolist() == [
        5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50,
    ]  # fmt: skip


def test_a_tail_too_long_is_refused_with_the_longest():
    with pytest.raises(UserError, match=r"imbalance=600 leaves less than one .* allow is 500"):
        studies.long_tailed(LABELS, 10, 600.0, seed=0)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 1.0])
def test_symmetric_noise_makes_exactly_that_share_of_each_class_wrong(rate):
    noisy = studies.noisy(LABELS, rate, None, 10, seed=3)
    for label in range(10):
        assert (noisy[label == LABELS] != label).mean() == rate
    if rate == 1.0:  # every wrong class equally likely
        counts = np.bincount(noisy[LABELS == 4], minlength=10)
        assert counts[4] == 0 and (abs(np.delete(counts, 4) - 500 / 9) < 30).all()


def test_more_noise_keeps_what_less_made_wrong():
    less, more = (studies.noisy(LABELS, rate, None, 10, seed=3) for rate in (0.1, 0.4))
    wrong = less != LABELS
    assert (more[wrong] == less[wrong]).all()


def test_asymmetric_noise_goes_where_classes_are_confused():
    names = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    targets = studies.confusions("cifar10", names)
    assert targets == {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
    noisy = studies.noisy(LABELS, 0.3, targets, 10, seed=0)
    for label in range(10):
        of = noisy[label == LABELS]
        assert (of != label).mean() == (0.3 if label in targets else 0)
        assert set(of) == ({label, targets[label]} if label in targets else {label})
    assert studies.confusions("other", ("a", "b", "c")) == {0: 1, 1: 2, 2: 0}


def test_relabelled_tells_the_right_labels_too():
    images = np.zeros((3, 2, 2, 1), np.uint8)
    source = studies.Relabelled(ArraySource(images, np.arange(3)), np.array([0, 2, 2], np.int32))
    assert source.labels().tolist() == [0, 2, 2]
    assert source.columns()["clean_label"].tolist() == [0, 1, 2]
    assert source[1]["label"] == 2 and source.residency == "memory" and len(source) == 3
    assert source.gather(np.array([2, 1]))["label"].tolist() == [2, 2]


def load(**options):
    return data.load(DataConfig(dataset="digits", validation="200", **options))


def test_studies_touch_the_training_split_alone():
    plain = load()
    for options in ({"per_class": 5}, {"imbalance": 10.0}, {"label_noise": 0.3}):
        changed = load(**options)
        for split in ("validation", "test"):
            before, after = getattr(plain, split), getattr(changed, split)
            assert (before.rows == after.rows).all() and (before.labels() == after.labels()).all()
        assert set(changed.train.rows) <= set(plain.train.rows)
        assert changed.info.source != plain.info.source


def test_a_cap_a_tail_and_noise_arrive_in_the_training_split():
    assert np.bincount(load(per_class=5).train.labels()).tolist() == [5] * 10
    sizes = np.bincount(load(imbalance=10.0).train.labels())
    assert sizes[0] == 10 * sizes[-1] + sizes[0] % 10 and (np.diff(sizes) < 0).all()
    noisy = load(label_noise=0.3, label_noise_kind="asymmetric")
    clean = noisy.train.columns()["clean_label"]
    wrong = noisy.train.labels() != clean
    assert (noisy.train.labels()[wrong] == (clean[wrong] + 1) % 10).all()
    assert abs(wrong.mean() - 0.3) < 0.01
    assert "labels wrong (asymmetric)" in noisy.info.source
    assert len(noisy.sampling) == len(noisy.train)


def test_class_balanced_sampling_balances_a_long_tail():
    balanced = load(imbalance=10.0, sampling="class_balanced")
    labels = balanced.train.labels()[balanced.sampling.epoch(0, 0)]
    counts = np.bincount(labels)
    assert counts.max() - counts.min() <= 1
