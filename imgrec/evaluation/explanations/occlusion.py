"""Occlusion sensitivity: how far a logit falls while a grey square hides a part of the image.

Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2,
https://arxiv.org/abs/1311.2901.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from imgrec.evaluation.subject import Subject, Variables

SHARE = 5
"""Squares that fit along the shorter side."""


def occlusion(
    subject: Subject,
    variables: Variables,
    images: UInt8[Array, "batch height width channels"],
    classes: Int[Array, "batch"],
    *,
    size: int | None = None,
    stride: int | None = None,
) -> Float[Array, "batch height width"]:
    """For each pixel the mean fall of the logit over all squares that hide it, signed.

    Squares also hang over the border, so that about as many hide a pixel there as elsewhere.

    Args:
      subject: the network.
      variables: of the network.
      images: raw.
      classes: whose logit is explained, one for each image.
      size: side of the square in pixels, by default a fifth of the image's; it has the mean
        colour of the training images.
      stride: pixels from square to square, by default half its side.
    """
    height, width, _ = subject.image_shape
    size = size or max(1, round(min(height, width) / SHARE))
    stride = stride or max(1, size // 2)
    rows, columns = _hidden(height, size, stride), _hidden(width, size, stride)
    pixels = images.astype(jnp.float32) / 255
    grey = jnp.asarray(subject.mean, jnp.float32)

    def score(seen: Array) -> Array:
        logits = subject.logits(variables, seen)
        return jnp.take_along_axis(logits, classes[:, None], axis=1)[:, 0]

    def hidden_by(square: tuple[Array, Array]) -> Array:
        row, column = square
        return score(jnp.where((row[:, None] & column)[..., None], grey, pixels))

    # The first of the squares hides nothing, so that one program scores the whole image too.
    down = np.concatenate([np.zeros((1, height), bool), rows.repeat(len(columns), axis=0)])
    across = np.concatenate([np.zeros((1, width), bool), np.tile(columns, (len(rows), 1))])
    whole, *_ = scores = jax.lax.map(hidden_by, (jnp.asarray(down), jnp.asarray(across)))
    falls = (whole - scores[1:]).reshape(len(rows), len(columns), -1)
    weights = [jnp.asarray(side / side.sum(axis=0), jnp.float32) for side in (rows, columns)]
    return jnp.einsum("rcb,ry,cx->byx", falls, *weights)


def _hidden(pixels: int, size: int, stride: int) -> Bool[np.ndarray, "squares pixels"]:
    """Along one axis, what each square hides: every pixel is hidden by at least one."""
    overhang = (size - 1) // stride * stride
    first = np.arange(-overhang, pixels, stride)[:, None]
    places = np.arange(pixels)
    return (places >= first) & (places < first + size)
