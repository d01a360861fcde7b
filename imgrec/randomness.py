"""Counter-based randomness: every random number is a pure function of who asks and when.

Keys are folded from (seed, step, purpose, position), never split from a running state. So
there is no generator to save with a checkpoint, switching one consumer on leaves the draws
of the others alone, and nothing depends on the number of devices, hosts or workers.
"""

import zlib

import jax
from jaxtyping import Array, Int, Key


def named(key: Key[Array, ""], purpose: str) -> Key[Array, ""]:
    """A key of its own for a purpose ("dropout"), the same on every machine and release."""
    return jax.random.fold_in(key, zlib.crc32(purpose.encode()))


def at_step(seed: int, step: Int[Array, ""] | int) -> Key[Array, ""]:
    """The key that everything random in one training step is folded from."""
    return jax.random.fold_in(jax.random.key(seed), step)
