import numpy as np
import pytest
from scipy.stats import binom

from imgrec.data import assign
from imgrec.data.assign import TEST, TRAIN, UNDECIDED, VALIDATION, Cut
from imgrec.errors import UserError

KEYS = np.array([assign.key(f"image {i}") for i in range(20_000)], np.uint64)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
@pytest.mark.parametrize(("test", "validation"), [(0.1, 0.1), (0.3, 0.05), (0.2, 0.6)])
def test_shares_are_kept_within_binomial_bounds(seed, test, validation):
    splits = assign.assign(KEYS, seed, test, validation)
    for label in range(4):  # in every class alike
        counts = np.bincount(splits[label::4], minlength=3)
        for split, share in ((TEST, test), (VALIDATION, validation)):
            assert abs(binom.cdf(counts[split], len(KEYS) // 4, share) - 0.5) < 0.4999


@pytest.mark.parametrize("seed", range(5))
def test_adding_and_removing_images_moves_no_other(seed):
    splits = assign.assign(KEYS, seed, 0.1, 0.2)
    some = np.random.default_rng(seed).choice(len(KEYS), 700, replace=False)
    assert (assign.assign(KEYS[some], seed, 0.1, 0.2) == splits[some]).all()


def test_another_validation_share_leaves_the_test_split():
    first, second = (assign.assign(KEYS, 3, 0.1, v) == TEST for v in (0.0, 0.4))
    assert (first == second).all()


def test_seeds_are_independent():
    first, second = (assign.assign(KEYS, seed, 0.5, 0.0) == TEST for seed in (0, 1))
    both = (first & second).sum()
    assert abs(binom.cdf(both, len(KEYS), 0.25) - 0.5) < 0.4999


def test_stays_what_it_was():
    # Recorded runs, and the promise that adding images moves none, depend on it.
    assert assign.key("image 0") == 4523324479069945525
    assert assign.assign(KEYS[:12], 0, 0.3, 0.3).tolist() == [0, 2, 2, 2, 2, 1, 0, 0, 0, 1, 0, 0]


@pytest.mark.parametrize(
    ("text", "expected"), [("10%", 0.1), (" 2.5 % ", 0.025), ("0", 0.0), ("0%", 0.0), ("00", 0.0)]
)
def test_share(text, expected):
    assert assign.share(text, "test") == pytest.approx(expected)


@pytest.mark.parametrize("text", ["5000", "", "0.1", "ten", "-5%", "10"])
def test_counts_are_refused(text):
    with pytest.raises(UserError, match=r"not a share such as '10%'.*--config\.data\.test=10%"):
        assign.share(text, "test")


@pytest.mark.parametrize(
    ("test", "validation", "message"),
    [(0.0, 0.1, "no image to test on"), (0.5, 0.5, "none to train on")],
)
def test_impossible_shares_are_refused(test, validation, message):
    with pytest.raises(UserError, match=message):
        assign.check_shares(test, validation)


def cut(labels, given=None, test=0.2, validation=0.2):
    labels = np.asarray(labels)
    given = np.full(len(labels), UNDECIDED) if given is None else np.asarray(given)
    return Cut(KEYS[: len(labels)], labels, given, int(labels.max()) + 1, test, validation)


def test_given_splits_are_used_and_the_rest_cut_from_train():
    labels, given = np.zeros(300, int), np.array([TRAIN] * 200 + [TEST] * 100)
    splits = cut(labels, given).by(0)
    assert (splits[200:] == TEST).all() and set(splits[:200]) == {TRAIN, VALIDATION}
    drawn = assign.assign(KEYS[:200], 0, 0.2, 0.2)
    assert ((splits[:200] == VALIDATION) == (drawn == VALIDATION)).all()

    only_train = cut(labels, np.full(300, TRAIN))
    assert (only_train.by(0) == assign.assign(KEYS[:300], 0, 0.2, 0.2)).all()
    assert only_train.drawn and only_train.wanted == [TRAIN, VALIDATION, TEST]

    all_given = np.arange(300) % 3
    assert (cut(labels, all_given).by(0) == all_given).all() and not cut(labels, all_given).drawn
    without = cut(labels, given, validation=0.0)
    assert (without.by(0) == given).all() and without.wanted == [TRAIN, TEST]


def test_the_seed_that_works_is_the_smallest():
    labels = np.array([0] * 500 + [1] * 5)
    tried = cut(labels)
    found = tried.seed_that_works()
    assert found > 0
    assert not tried.lacking(tried.by(found))
    assert all(tried.lacking(tried.by(seed)) for seed in range(found))


def test_no_seed_works_for_fewer_images_than_splits_or_for_given_ones():
    assert cut([0] * 50 + [1] * 2).seed_that_works() is None
    given = [TRAIN] * 10 + [VALIDATION] * 10 + [TEST] * 10
    assert cut([0] * 29 + [1], given).seed_that_works() is None
    lacking = cut([0] * 29 + [1], given)
    assert lacking.lacking(lacking.by(0)) == [(1, TRAIN), (1, VALIDATION)]
