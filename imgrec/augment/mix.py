"""Augmentations that mix an image with another one: mixup and CutMix.

Both are the same blend, `weight * image + (1 - weight) * partner`, and differ in their map
of weights: constant for mixup, 0 inside a box and 1 outside for CutMix. The mean of the map
is the share of the image's own label, so pixels and targets cannot disagree.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from imgrec.augment.geometric import box


def mix(
    images: Float[Array, "batch height width channels"],
    targets: Float[Array, "batch classes"],
    weights: Float[Array, "batch height width"],
) -> tuple[Float[Array, "batch height width channels"], Float[Array, "batch classes"]]:
    """Blends each example with the one before it in the batch, the first with the last."""
    # Maps are constant or hold 0 and 1, so that what is summed is whole: another order of the
    # sum, as on another number of devices, gives the same bits.
    corner = weights[:, 0, 0]
    share = (corner + (weights - corner[:, None, None]).mean(axis=(1, 2)))[:, None]
    targets = share * targets + (1 - share) * jnp.roll(targets, 1, axis=0)
    partners, weights = jnp.roll(images, 1, axis=0), weights[..., None]
    blend = images + (1 - weights) * (partners - images)  # exact at weight 1
    return jnp.where(weights == 0, partners, blend), targets


def mixup(key: PRNGKeyArray, height: int, width: int, alpha: float) -> Float[Array, "height width"]:
    """Weights lambda ~ Beta(alpha, alpha), the same at every pixel.

    Zhang et al. 2017, arXiv:1710.09412, equation 2; one lambda for each example.
    """
    return jnp.full((height, width), symmetric_beta(key, alpha))


def cutmix(
    key: PRNGKeyArray, height: int, width: int, alpha: float
) -> Float[Array, "height width"]:
    """Weights 0 inside a random box and 1 outside it.

    The sides of the box are sqrt(1 - lambda) of the image's, lambda ~ Beta(alpha, alpha),
    its centre is uniform, and it is clipped at the borders (Yun et al. 2019,
    arXiv:1905.04899, equation 2 and algorithm 1).
    """
    for_lambda, for_center = jax.random.split(key)
    ratio = jnp.sqrt(1 - symmetric_beta(for_lambda, alpha))
    sides = (ratio * jnp.array([height, width])).astype(jnp.int32)
    row, column = jax.random.randint(for_center, (2,), 0, jnp.array([height, width]))
    pasted = box(height, width, (row, column), (sides[0], sides[1]))
    return 1 - pasted.astype(jnp.float32)


def either(
    key: PRNGKeyArray, first: Float[Array, "height width"], second: Float[Array, "height width"]
) -> Float[Array, "height width"]:
    """One of two maps of weights, each with probability one half."""
    return jnp.where(jax.random.bernoulli(key), first, second)


def symmetric_beta(key: PRNGKeyArray, alpha: float) -> Float[Array, ""]:
    """A draw from Beta(alpha, alpha), alpha > 0, without the loop that rejection needs.

    If T is Student's t with 2 alpha degrees of freedom, then 1/2 + T / (2 sqrt(2 alpha + T^2))
    is Beta(alpha, alpha); and T = sqrt(2 alpha (U^(-1/alpha) - 1)) cos(2 pi V) with U and V
    uniform (Bailey 1994, Mathematics of Computation 62(206), section 2). The two are joined so
    that U^(-1/alpha) may overflow, as it does when alpha is small: the draw is then 0 or 1.
    """
    u, v = jax.random.uniform(key, (2,), minval=jnp.finfo(jnp.float32).tiny)
    cos = jnp.cos(2 * jnp.pi * v)
    t_squared_over_2alpha = jnp.expm1(-jnp.log(u) / alpha) * cos**2
    return 0.5 + jnp.sign(cos) * 0.5 * jax.lax.rsqrt(1 + 1 / t_squared_over_2alpha)
