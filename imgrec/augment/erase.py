"""Augmentations that hide a part of an image: cutout and random erasing."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from imgrec.augment.geometric import box, crop_box


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


def erasing(
    key: PRNGKeyArray,
    height: int,
    width: int,
    probability: float,
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> Bool[Array, "height width"]:
    """True where random erasing hides the image: inside a box, or with 1 - probability nowhere.

    The box's share of the area is uniform, its aspect log-uniform, its place uniform within the
    image, as those of a random crop; what to put there is the caller's choice (Zhong et al.
    2017, arXiv:1708.04896, algorithm 1, which draws the aspect uniformly).
    """
    for_box, for_choice = jax.random.split(key)
    top, left, box_height, box_width = crop_box(for_box, height, width, area, aspect)
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    inside = (rows >= top) & (rows < top + box_height)
    inside &= (columns >= left) & (columns < left + box_width)
    return inside & jax.random.bernoulli(for_choice, probability)
