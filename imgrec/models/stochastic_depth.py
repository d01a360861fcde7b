"""Stochastic depth: residual branches that are left out at random while training.

Huang et al. 2016, "Deep Networks with Stochastic Depth", https://arxiv.org/abs/1603.09382.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


def linear_decay(rate: float, block: int, num_blocks: int) -> float:
    """Rate of one block (counted from 0): rising linearly to `rate` at the last (section 3)."""
    return rate * (block + 1) / num_blocks


class StochasticDepth(nn.Module):
    """Drops the branch of an example with probability `rate`, and scales up the ones kept.

    The rate is a number, or where a loop goes over the blocks a traced scalar.

    Two departures from the paper, both usual today: each example draws for itself rather
    than the whole batch at once, and the kept branches are divided by 1 - rate in training,
    so that evaluation is the plain network with the same expectation.
    """

    rate: float | Float[Array, ""]

    @nn.compact
    def __call__(
        self, branch: Float[Array, "batch *rest"], *, train: bool
    ) -> Float[Array, "batch *rest"]:
        """The branch, with whole examples replaced by zeros in training."""
        if not train or (not isinstance(self.rate, Array) and self.rate == 0.0):
            return branch
        keep = 1.0 - self.rate
        shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, shape)
        return jnp.where(kept, branch / keep, 0.0).astype(branch.dtype)
