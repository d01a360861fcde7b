"""Noise: Gaussian, shot (Poisson), impulse (salt and pepper) and speckle.

The four of Hendrycks and Dietterich (2019, arXiv:1903.12261), every channel of every pixel by
itself. Each takes its table of constants, one row for each severity.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from imgrec.corruptions.severity import Constants, Image, Severity, at


def gaussian_noise(
    image: Image, key: PRNGKeyArray, severity: Severity, *, scale: Constants
) -> Image:
    """Normal noise of standard deviation `scale` added."""
    noise = jax.random.normal(key, image.shape)
    return jnp.clip(image + at(severity, scale) * noise, 0, 1)


def speckle_noise(
    image: Image, key: PRNGKeyArray, severity: Severity, *, scale: Constants
) -> Image:
    """Normal noise added whose standard deviation is `scale` times the pixel."""
    noise = jax.random.normal(key, image.shape)
    return jnp.clip(image + image * at(severity, scale) * noise, 0, 1)


def impulse_noise(
    image: Image, key: PRNGKeyArray, severity: Severity, *, amount: Constants
) -> Image:
    """A share `amount` of the values replaced by 0 or 1, which are equally likely."""
    share, draw = at(severity, amount), jax.random.uniform(key, image.shape)
    return jnp.where(draw < share / 2, 0.0, jnp.where(draw < share, 1.0, image))


def shot_noise(image: Image, key: PRNGKeyArray, severity: Severity, *, photons: Constants) -> Image:
    """What a sensor counts to which white sends `photons` on average."""
    most = at(severity, photons)
    return jnp.clip(poisson(key, image * most) / most, 0, 1)


_FEW = 10.0  # below this mean, Poisson probabilities are summed
_TERMS = 40  # P(X >= 40) < 1e-12 at mean 10


def poisson(key: PRNGKeyArray, mean: Float[Array, "..."]) -> Float[Array, "..."]:
    """Draws from Poisson distributions, without a loop of unknown length.

    By inversion of one normal draw. Means below 10 sum the probabilities from nothing upwards.
    From 10 on it is the expansion of the quantile in powers of the standard deviation (Giles
    2016, ACM TOMS 42(1), equation 3), rounded down.
    """
    w = jax.random.normal(key, mean.shape)
    root = jnp.sqrt(jnp.maximum(mean, _FEW))
    many = root**2 + root * w + (2 + w**2) / 6 - (2 * w + w**3) / (72 * root)

    few = jnp.minimum(mean, _FEW)
    level = jax.scipy.special.ndtr(w)

    def add(k: Int[Array, ""], state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        count, probability, below = state
        below = below + probability
        return count + (level > below), probability * few / (k + 1), below

    start = (jnp.zeros_like(mean), jnp.exp(-few), jnp.zeros_like(mean))
    summed, _, _ = jax.lax.fori_loop(0, _TERMS, add, start, unroll=8)
    return jnp.where(mean < _FEW, summed, jnp.floor(jnp.maximum(many, 0)))
