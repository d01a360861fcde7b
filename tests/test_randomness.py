import itertools

import jax
import jax.numpy as jnp
import numpy as np

from imgrec import randomness


def data(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_every_seed_step_and_purpose_has_a_key_of_its_own():
    keys = {
        data(randomness.named(randomness.at_step(seed, step), purpose))
        for seed, step, purpose in itertools.product(
            (0, 1, 2**32 - 1), (0, 1, 64_000), ("augment", "model", "dropout", "")
        )
    }
    assert len(keys) == 3 * 3 * 4


def test_a_purpose_has_the_same_key_in_every_process():
    # The number is the CRC-32 of "dropout"; Python's own hash would differ between processes.
    key = jax.random.key(3)
    assert data(randomness.named(key, "dropout")) == data(jax.random.fold_in(key, 0x9289EFC9))


def test_a_step_on_the_device_and_one_in_python_agree():
    traced = jax.jit(lambda step: randomness.at_step(7, step))(jnp.int32(41))
    assert data(traced) == data(randomness.at_step(7, 41))


def test_a_key_does_not_depend_on_what_was_drawn_before():
    before = data(randomness.named(randomness.at_step(0, 5), "augment"))
    jax.random.normal(randomness.named(randomness.at_step(0, 5), "dropout"), (3,))
    assert data(randomness.named(randomness.at_step(0, 5), "augment")) == before
