import numpy as np
import pytest

from imgrec.data import order, sampling
from imgrec.errors import UserError


def visits(chosen, epochs, seed=0):
    return [chosen.epoch(seed, epoch) for epoch in range(epochs)]


def test_shuffled_is_one_permutation_an_epoch():
    chosen = sampling.shuffled(9)
    assert len(chosen) == 9
    for epoch, visited in enumerate(visits(chosen, 4, seed=3)):
        assert (visited == order.permutation(9, (3, epoch))).all()


def test_class_balanced_visits_classes_equally_and_members_in_turn():
    labels = np.array([0] * 50 + [1] * 9 + [2], np.int32)
    chosen = sampling.class_balanced(labels)
    assert len(chosen) == 60
    epochs = visits(chosen, 7)
    for visited in epochs:
        assert np.bincount(labels[visited]).tolist() == [20, 20, 20]
    together = np.concatenate(epochs)
    for label in range(3):
        members = together[labels[together] == label]
        counts = np.bincount(members, minlength=60)[labels == label]
        assert counts.max() - counts.min() <= 1  # nobody twice more often than another
        n = len(counts)
        for turn in range(len(members) // n):
            assert len(set(members[turn * n : (turn + 1) * n])) == n


def test_a_mixture_visits_the_first_set_once_an_epoch_and_others_by_weight():
    chosen = sampling.mixture([8, 3, 100], [1.0, 0.5, 2.0], ["a", "b", "c"])
    assert len(chosen) == 8 + 4 + 16
    for visited in visits(chosen, 5):
        assert sorted(visited[visited < 8]) == list(range(8))
        assert ((visited >= 8) & (visited < 11)).sum() == 4
        assert (visited >= 11).sum() == 16
    big = np.concatenate(visits(chosen, 6))
    assert len(set(big[big >= 11])) == 96  # none again before all have come


def test_slots_of_strata_are_interleaved():
    chosen = sampling.mixture([500, 500], [1.0, 1.0], ["a", "b"])
    first_half = chosen.epoch(0, 0)[:500]
    assert 200 < (first_half < 500).sum() < 300


def test_strata_and_epochs_and_seeds_draw_apart():
    labels = np.repeat(np.arange(2, dtype=np.int32), 30)
    chosen = sampling.class_balanced(labels)
    visited = chosen.epoch(0, 0)
    of_first, of_second = visited[labels[visited] == 0], visited[labels[visited] == 1] - 30
    assert (of_first != of_second).any()
    assert len({tuple(chosen.epoch(s, e)) for s in range(3) for e in range(3)}) == 9


def test_a_weight_too_small_is_refused():
    with pytest.raises(
        UserError, match=r"'b' the weight 0.01, less than one .* At least 0.1 counts"
    ):
        sampling.mixture([10, 5], [1.0, 0.01], ["a", "b"])


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [(10, [1.0] * 3, (4, 3, 3)), (7, [5.0, 1.0, 1.0], (5, 1, 1)), (5, [0.5, 0.5], (3, 2))],
)
def test_apportion(total, weights, expected):
    assert sampling.apportion(total, weights) == expected
