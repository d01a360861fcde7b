"""Changes with a continuous amount, for curves of accuracy against an angle, a shift, a shade.

Each takes one image, a key and an amount, which may be traced. An amount that means "as it is"
gives exactly the image, and an image keeps what is random about it (the direction of a shift,
the place of a square, the noise) at every amount, so that along a curve the amount alone
changes. Geometry repeats the border outwards: black corners would be a change of their own.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from imgrec.augment import colour, geometric
from imgrec.randomness import named

Image = UInt8[Array, "height width channels"]  # of 1 or 3 channels
Amount = Float[Array, ""]


@dataclass(frozen=True)
class Sweep:
    """A dial and where to put it.

    Attributes:
      change: (image, key, amount) -> image.
      amounts: from the one that leaves an image as it is to the strongest.
      unit: of the amounts, for the axis of a plot.
    """

    change: Callable[[Image, PRNGKeyArray, Amount], Image]
    amounts: tuple[int | float, ...]
    unit: str


def turn(
    images: UInt8[Array, "batch height width channels"],
    index: Int[Array, " batch"],
    *,
    name: str,
    amount: int | float | Amount,
    seed: int,
) -> UInt8[Array, "batch height width channels"]:
    """The images with one dial of `SWEEPS` turned, the same way in any batch.

    The key of an image is folded from (seed, name, index): not from the amount.
    """
    key = named(jax.random.key(seed), name)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
    change, amount = SWEEPS[name].change, jnp.asarray(amount, jnp.float32)
    return jax.vmap(lambda image, key: change(image, key, amount))(images, keys)


def rotation(image: Image, key: PRNGKeyArray, degrees: Amount) -> Image:
    """Rotated about the centre, half of all images clockwise and half anticlockwise."""
    return _moved(image, degrees=_sign(key) * degrees)


def translation(image: Image, key: PRNGKeyArray, share: Amount) -> Image:
    """Shifted by a share of the side, in a direction that is uniform on the circle."""
    angle = jax.random.uniform(key, maxval=2 * math.pi)
    height, width, _ = image.shape
    return _moved(image, shift=(share * height * jnp.sin(angle), share * width * jnp.cos(angle)))


def scale(image: Image, key: PRNGKeyArray, factor: Amount) -> Image:
    """Enlarged about the centre (factor above 1) or shrunk to not less than a quarter.

    What is shrunk is blurred first, by half a new pixel for each pixel that it lost, so that
    fine patterns do not turn into coarse ones.
    """
    sigma = jnp.clip((1 / factor - 1) / 2, 0, _MOST_SHRINKING_BLUR)
    return _moved(colour.blur(image, sigma, _MOST_SHRINKING_BLUR), scale=factor)


_MOST_SHRINKING_BLUR = 1.5  # pixels; of a quarter


def shear(image: Image, key: PRNGKeyArray, degrees: Amount) -> Image:
    """Upright lines leant by an angle, half of all images to the left and half to the right."""
    return _moved(image, shear=(0.0, _sign(key) * jnp.tan(jnp.deg2rad(degrees))))


def darkening(image: Image, key: PRNGKeyArray, share: Amount) -> Image:
    """A share of the light taken away."""
    return colour.brightness(image, 1 - share)


def brightening(image: Image, key: PRNGKeyArray, share: Amount) -> Image:
    """A share of white added to every value, which is then clipped: overexposure."""
    return geometric.to_uint8(jnp.minimum(image + jnp.float32(255) * share, 255))


def contrast(image: Image, key: PRNGKeyArray, share: Amount) -> Image:
    """A share of each value's distance from the mean grey level taken away."""
    return colour.contrast(image, 1 - share)


def occlusion(image: Image, key: PRNGKeyArray, share: Amount) -> Image:
    """A share of the area hidden by a mid-grey box of the image's shape, at a random place.

    Its sides are rounded to whole pixels, its place is uniform among those inside the image.
    """
    inside = []
    for length, place in zip(image.shape, jax.random.uniform(key, (2,)), strict=False):
        side = jnp.round(jnp.sqrt(share) * length)
        first = jnp.floor(place * (length - side + 1))
        position = jnp.arange(length)
        inside.append((position >= first) & (position < first + side))
    hidden = inside[0][:, None] & inside[1][None, :]
    return jnp.where(hidden[..., None], jnp.uint8(128), image)


def noise(image: Image, key: PRNGKeyArray, sigma: Amount) -> Image:
    """Normal noise added to every value, its standard deviation a share of white."""
    change = geometric.product(255 * sigma, jax.random.normal(key, image.shape))
    return geometric.to_uint8(jnp.clip(image + change, 0, 255))


def blur(image: Image, key: PRNGKeyArray, share: Amount) -> Image:
    """Convolved with a Gaussian whose standard deviation is a share of the shorter side."""
    side = min(image.shape[:2])
    return colour.blur(image, share * side, _MOST_BLUR * side)


_MOST_BLUR = 0.125


def _moved(image: Image, **change: Amount | float | tuple[Amount | float, Amount | float]) -> Image:
    """The image after an affine change as `inverse_matrix` takes it, its border repeated."""
    height, width, _ = image.shape
    matrix = geometric.inverse_matrix(height, width, **change)  # type: ignore[arg-type]
    rows, columns = geometric.affine(geometric.centred(height, width), matrix)
    points = jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)
    return geometric.to_uint8(geometric.warp(image, points))


def _sign(key: PRNGKeyArray) -> Float[Array, ""]:
    return jnp.where(jax.random.bernoulli(key), 1.0, -1.0)


SWEEPS: Mapping[str, Sweep] = {
    "rotation": Sweep(rotation, (0, 5, 10, 15, 20, 30, 45, 60, 90, 135, 180), "degrees"),
    "translation": Sweep(
        translation, (0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4), "share of the side"
    ),
    "enlarging": Sweep(scale, (1, 1.1, 1.25, 1.5, 1.75, 2, 2.5, 3), "factor"),
    "shrinking": Sweep(scale, (1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25), "factor"),
    "shear": Sweep(shear, (0, 5, 10, 15, 20, 30, 40, 50), "degrees"),
    "darkening": Sweep(
        darkening, (0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98), "share of light taken"
    ),
    "brightening": Sweep(
        brightening, (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), "share of white added"
    ),
    "contrast": Sweep(
        contrast, (0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98), "share of contrast taken"
    ),
    "occlusion": Sweep(
        occlusion, (0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), "share of the area"
    ),
    "noise": Sweep(
        noise, (0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5), "standard deviation, of white"
    ),
    "blur": Sweep(
        blur,
        (0, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.0625, 0.08, 0.1, _MOST_BLUR),
        "standard deviation, share of the side",
    ),
}
