"""Weather: fog, frost and snow.

Three of Hendrycks and Dietterich (2019, arXiv:1903.12261). Fog and snow are theirs; frost lies
on the image as theirs does, but it is grown from a key instead of cut from photographs, so it
looks alike and is not the published texture. Brightness is in `imgrec.corruptions.colour`,
spatter in `imgrec.corruptions.spatter`.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from imgrec.corruptions import filters
from imgrec.corruptions.severity import Constants, Image, Severity, at
from imgrec.corruptions.textures import ice, plasma
from imgrec.randomness import named

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def luma(image: Image) -> Float[Array, "height width 1"]:
    """The grey picture of an image of 1 or 3 channels."""
    if image.shape[-1] == 1:
        return image
    return (image * LUMA).sum(axis=-1, keepdims=True)


def fog(
    image: Image,
    key: PRNGKeyArray,
    severity: Severity,
    *,
    density: Constants,
    decay: Constants,
) -> Image:
    """Plasma times `density` added, and the sum darkened so that the brightest stays as bright.

    The larger `decay`, the less patchy the fog.
    """
    height, width, _ = image.shape
    size = 1 << math.ceil(math.log2(max(height, width)))
    amount, brightest = at(severity, density), image.max()
    cloud = plasma(key, size, at(severity, decay))[:height, :width, None]
    return jnp.clip((image + amount * cloud) * brightest / (brightest + amount), 0, 1)


def frost(
    image: Image,
    key: PRNGKeyArray,
    severity: Severity,
    *,
    through: Constants,
    cover: Constants,
    grain: int | float,
) -> Image:
    """The image times `through` plus ice times `cover`.

    A crystal of the texture is 70 pixels large; the image has one pixel for `grain` of it.
    """
    height, width, channels = image.shape
    texture = ice(key, height, width, grain)
    texture = texture if channels == 3 else luma(texture)
    return jnp.clip(at(severity, through) * image + at(severity, cover) * texture, 0, 1)


def snow(
    image: Image,
    key: PRNGKeyArray,
    severity: Severity,
    *,
    mean: Constants,
    scale: Constants,
    zoom: Constants,
    threshold: Constants,
    radius: Sequence[int],
    sigma: Constants,
    keep: Constants,
) -> Image:
    """The image paled, under falling flakes and the same flakes turned upside down.

    Flakes are what exceeds `threshold` of normal noise (`mean`, `scale`), enlarged by `zoom` and
    smeared downwards, up to 45 degrees from the vertical (`radius`, `sigma`). A share 1 - `keep`
    of the image becomes its grey picture, brightened.
    """
    height, width, _ = image.shape
    noise = jax.random.normal(named(key, "flakes"), (height, width, 1))
    rows, columns = (at(severity, filters.zoom_points(length, zoom)) for length in (height, width))
    flakes = filters.read_grid(at(severity, mean) + at(severity, scale) * noise, rows, columns)
    flakes = jnp.where(flakes < at(severity, threshold), 0, flakes)
    flakes = filters.smear(
        filters.levels(flakes) / 255,
        jax.random.uniform(named(key, "direction"), minval=-135, maxval=-45),
        at(severity, radius),
        at(severity, sigma),
        longest=max(radius),
    )
    share = at(severity, keep)
    paled = share * image + (1 - share) * jnp.maximum(image, 1.5 * luma(image) + 0.5)
    return jnp.clip(paled + flakes + flakes[::-1, ::-1], 0, 1)
