"""Draws from distributions whose usual samplers are loops.

A rejection loop runs until the last example of the batch has been accepted: under vmap it
ties every example, and every device, to all others. These take a fixed number of steps.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def dirichlet(key: PRNGKeyArray, alpha: float, n: int) -> Float[Array, " n"]:
    """A draw from the symmetric Dirichlet distribution of n shares."""
    gammas = jax.vmap(lambda one: gamma(one, alpha))(jax.random.split(key, n))
    total = gammas[0]
    for i in range(1, n):
        total = total + gammas[i]
    return gammas / total


def gamma(key: PRNGKeyArray, alpha: float) -> Float[Array, ""]:
    """A draw from the gamma distribution with shape alpha, without a loop.

    The rejection of Marsaglia and Tsang (2000, ACM TOMS 26(3)) takes a candidate with
    probability 0.95 or more: of eight, drawn at once, the first that is taken; that none is has
    a probability below 1e-10. For the method's sake the shape is raised by 1, and the draw
    multiplied by U^(1/alpha).
    """
    for_normal, for_uniform, for_boost = jax.random.split(key, 3)
    d = alpha + 1 - 1 / 3
    x = jax.random.normal(for_normal, (8,))
    u = jax.random.uniform(for_uniform, (8,), minval=jnp.finfo(jnp.float32).tiny)
    v = (1 + x / (9 * d) ** 0.5) ** 3
    positive = v > 0
    log_v = jnp.log(jnp.where(positive, v, 1))
    taken = positive & ((jnp.log(u) - 0.5 * x * x) / d < 1 - v + log_v)
    boost = jax.random.uniform(for_boost, minval=jnp.finfo(jnp.float32).tiny)
    drawn = d * v[jnp.argmax(taken)] * boost ** (1 / alpha)
    return jnp.maximum(drawn, jnp.finfo(jnp.float32).tiny)
