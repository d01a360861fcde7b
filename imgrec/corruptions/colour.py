"""Brightness, contrast and saturation changed, as functions of the colour alone.

Three of Hendrycks and Dietterich (2019, arXiv:1903.12261). Brightness and saturation are those
of the HSV cone; as neither turns the hue, no hue is computed.
"""

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from imgrec.corruptions.severity import Constants, Image, Severity, at


def brightness(image: Image, key: PRNGKeyArray, severity: Severity, *, shift: Constants) -> Image:
    """The value of HSV, the largest of the channels, raised by `shift`, at most to 1."""
    value = image.max(axis=-1, keepdims=True)
    raised = jnp.minimum(value + at(severity, shift), 1)
    return jnp.where(value > 0, image * (raised / jnp.maximum(value, 1e-6)), raised)


def contrast(image: Image, key: PRNGKeyArray, severity: Severity, *, factor: Constants) -> Image:
    """Distances from each channel's mean times `factor`."""
    mean = image.mean(axis=(0, 1), keepdims=True)
    return jnp.clip((image - mean) * at(severity, factor) + mean, 0, 1)


def saturate(
    image: Image,
    key: PRNGKeyArray,
    severity: Severity,
    *,
    factor: Constants,
    shift: Constants,
) -> Image:
    """The saturation of HSV times `factor` plus `shift`, at most 1.

    Grey has hue 0, so where `shift` is positive grey pixels of a colour image turn reddish, as in
    the published sets. An image of one channel has no saturation and stays as it is.
    """
    if image.shape[-1] == 1:
        return image
    value = image.max(axis=-1, keepdims=True)
    chroma = value - image.min(axis=-1, keepdims=True)
    saturation = chroma / jnp.maximum(value, 1e-6)
    changed = jnp.minimum(saturation * at(severity, factor) + at(severity, shift), 1)
    red = jnp.array([0.0, 1.0, 1.0])
    share = jnp.where(chroma > 0, (value - image) / jnp.maximum(chroma, 1e-6), red)
    return value * (1 - changed * share)
