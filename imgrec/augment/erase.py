"""Augmentations that hide a part of an image: cutout."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from imgrec.augment.geometric import box


def cutout(
    image: Float[Array, "height width channels"], key: PRNGKeyArray, side: int
) -> Float[Array, "height width channels"]:
    """A centred image with a square of so many pixels a side set to 0, the data set's mean.

    The centre is uniform over all pixels, and what reaches over the border is cut off: the
    hidden area varies from a quarter of the square to all of it, which the paper found to
    matter (DeVries and Taylor 2017, arXiv:1708.04552, section 3.2).
    """
    height, width, _ = image.shape
    row, column = jax.random.randint(key, (2,), 0, jnp.array([height, width]))
    hidden = box(height, width, (row, column), (side, side))
    return jnp.where(hidden[..., None], 0, image)
