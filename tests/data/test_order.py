import numpy as np
import pytest

from imgrec.data import order


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_is_a_permutation(n):
    assert sorted(order.permutation(n, (3, 4))) == list(range(n))


def test_depends_on_both_words_of_the_key_and_nothing_else():
    orders = {
        key: tuple(order.permutation(50, key)) for key in [(0, 0), (0, 1), (1, 0), (7, 2**63)]
    }
    assert len(set(orders.values())) == 4
    np.random.default_rng(0).random()
    assert tuple(order.permutation(50, (0, 1))) == orders[0, 1]


def test_every_position_is_equally_likely():
    counts = np.zeros((5, 5))
    for seed in range(4000):
        counts[np.arange(5), order.permutation(5, (seed, 0))] += 1
    # 25 binomial counts of mean 800 and standard deviation 25.3; the seeds are fixed.
    assert abs(counts - 800).max() < 4 * 25.3


def test_stays_what_it_was():
    # Recorded runs depend on it: a change here changes the batches of every seed.
    assert order.permutation(8, (0, 0)).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]


@pytest.mark.parametrize("stream", [0, 3, 2**64 - 1])
def test_words_are_philox4x64_10(stream):
    # The multiplications and additions of Salmon et al. (2011), ten rounds, by hand; numpy
    # counts its blocks from 1.
    counter, key = [1, 0, 0, stream], [5, 6]
    wide, bits = 2**64, 64
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [
            (second >> bits) ^ counter[1] ^ key[0],
            second % wide,
            (first >> bits) ^ counter[3] ^ key[1],
            first % wide,
        ]
        key = [(key[0] + 0x9E3779B97F4A7C15) % wide, (key[1] + 0xBB67AE8584CAA73B) % wide]
    assert order.words(4, (5, 6), stream).tolist() == counter
