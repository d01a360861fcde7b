"""What a corruption is, and how it reads the constant of a severity that is known on the device.

A severity is a traced whole number, so one compiled program serves all five; whatever decides
a shape (the width of a kernel, the length of a loop) is that of the strongest.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Real, Shaped

Image = Float[Array, "height width channels"]  # of 1 or 3 channels, in [0, 1]
Number = int | float | Real[Array, ""]
Constants = Sequence[int | float]  # one for each severity
Severity = int | Int[Array, ""]  # from 1 to LEVELS
Corruption = Callable[[Image, PRNGKeyArray, Severity], Image]

LEVELS = 5


def at(
    severity: Severity, constants: Constants | Shaped[np.ndarray, "levels ..."]
) -> Shaped[Array, "..."]:
    """The row for a severity of a table with one row for each."""
    table = np.asarray(constants)
    if len(table) != LEVELS:
        raise ValueError(f"A table of constants has {LEVELS} rows, not {len(table)}.")
    dtype = jnp.int32 if np.issubdtype(table.dtype, np.integer) else jnp.float32
    return jnp.asarray(table, dtype)[jnp.asarray(severity) - 1]
