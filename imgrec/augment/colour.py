"""Augmentations that change colours: enhancements, tables of levels, filters.

Every operation maps uint8 images to uint8 images and means what Pillow's ImageEnhance,
ImageOps and Image.convert("L") mean by it; arithmetic is in whole numbers wherever the
result could hang on a rounding. Images have 1 or 3 channels; one channel is its own grey
picture, so on it `saturation`, `turn_hue` and `greyscale` change nothing.

Against Pillow on photographs: brightness, contrast, saturation, sharpness, greyscale,
posterize, solarize, equalize and invert are equal; autocontrast differs by at most 1 of 255
where Pillow's own floating-point table misses a whole number. Hue (against colorsys) and blur
(against a Gaussian in float64) are the nearest whole number, so within 1 of 255.
"""

import functools
import math
import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from imgrec.augment.geometric import product
from imgrec.randomness import named

Image = UInt8[Array, "height width channels"]
Levels = UInt8[Array, "..."]  # an image, or a table of levels
Number = int | float | Float[Array, ""]


def brightness(levels: Levels, factor: Number) -> Levels:
    """Levels times a factor: 0 is black, 1 the image. ImageEnhance.Brightness."""
    return blend(jnp.zeros((), jnp.uint8), levels, factor)


def contrast(image: Image, factor: Number) -> Image:
    """Distances from the mean grey level times a factor: 0 is grey. ImageEnhance.Contrast."""
    return blend(mean_luma(image), image, factor)


def saturation(image: Image, factor: Number) -> Image:
    """Distances from the grey picture times a factor: 0 is grey. ImageEnhance.Color."""
    return blend(luma(image), image, factor)


def sharpness(image: Image, factor: Number) -> Image:
    """Distances from the smoothed picture times a factor. ImageEnhance.Sharpness."""
    return blend(smooth(image), image, factor)


def blend(start: Levels, end: Levels, factor: Number) -> Levels:
    """The sum start + factor (end - start), clipped, cut off to a whole number. Image.blend."""
    start, end = start.astype(jnp.float32), end.astype(jnp.float32)
    # Cutting off makes a difference of 1 of a rounding of 1e-5, so these are Pillow's two.
    return jnp.clip(start + product(factor, end - start), 0, 255).astype(jnp.uint8)


def luma(image: Image) -> UInt8[Array, "height width 1"]:
    """The grey picture: 0.299 R + 0.587 G + 0.114 B to 16 bits (ITU-R BT.601)."""
    if image.shape[-1] == 1:
        return image
    red, green, blue = jnp.moveaxis(image.astype(jnp.int32), -1, 0)
    grey = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    return grey[..., None].astype(jnp.uint8)


def mean_luma(image: Image) -> UInt8[Array, ""]:
    """The mean of the grey picture, rounded to the nearest level, halves up."""
    grey = luma(image)
    total = grey.astype(jnp.int32).sum()
    return ((2 * total + grey.size) // (2 * grey.size)).astype(jnp.uint8)


def greyscale(image: Image) -> Image:
    """The grey picture in every channel."""
    return jnp.broadcast_to(luma(image), image.shape)


def smooth(image: Image) -> Image:
    """Means of 3 x 3 pixels, the middle one weighing 5 of 13; the border stays as it is.

    ImageFilter.SMOOTH.
    """
    height, width, _ = image.shape
    padded = jnp.pad(image.astype(jnp.int32), ((1, 1), (1, 1), (0, 0)))
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    weighed = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * image.astype(jnp.int32)
    means = ((2 * weighed + 13) // 26).astype(jnp.uint8)
    return jnp.where(_interior(height, width)[..., None], means, image)


def _interior(height: int, width: int) -> Bool[Array, "height width"]:
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    return (rows > 0) & (rows < height - 1) & (columns > 0) & (columns < width - 1)


def turn_hue(image: Image, shift: Number) -> Image:
    """Hues turned by a share of the circle, value and saturation of HSV kept.

    Pillow has no such operation; the conversion is that of the standard library's colorsys,
    without rounding between the two.
    """
    if image.shape[-1] == 1:
        return image
    levels = image.astype(jnp.float32)
    red, green, blue = jnp.moveaxis(levels, -1, 0)
    value, chroma = levels.max(axis=-1), levels.max(axis=-1) - levels.min(axis=-1)
    safe = jnp.where(chroma == 0, 1, chroma)
    sixths = jnp.where(
        value == red,
        (green - blue) / safe,
        jnp.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    turned = sixths + jnp.float32(6) * shift
    channels = []
    for place in (5, 3, 1):  # of red, green and blue on the circle
        distance = place + turned
        distance = distance - 6 * jnp.floor(distance / 6)
        share = jnp.clip(jnp.minimum(distance, 4 - distance), 0, 1)
        channels.append(value - chroma * share)
    return jnp.floor(jnp.stack(channels, axis=-1) + 0.5).astype(jnp.uint8)


def invert(levels: Levels) -> Levels:
    """White less the level. ImageOps.invert."""
    return 255 - levels


def posterize(levels: Levels, bits: int | Int[Array, ""]) -> Levels:
    """The highest of the 8 bits alone, from 0 (black) to 8 (the image). ImageOps.posterize."""
    mask = (0xFF00 >> jnp.asarray(bits, jnp.int32)) & 0xFF
    return levels & mask.astype(jnp.uint8)


def solarize(levels: Levels, threshold: int | Int[Array, ""]) -> Levels:
    """Inverts levels from the threshold (0 to 256) on. ImageOps.solarize."""
    return jnp.where(levels.astype(jnp.int32) < threshold, levels, invert(levels))


def solarize_add(levels: Levels, addition: int | Int[Array, ""]) -> Levels:
    """Adds (0 to 255) to the levels below 128, and clips.

    As in the released code of AutoAugment; Pillow has no such operation.
    """
    raised = jnp.minimum(levels.astype(jnp.int32) + addition, 255).astype(jnp.uint8)
    return jnp.where(levels < 128, raised, levels)


def autocontrast(image: Image) -> Image:
    """Each channel stretched to reach from 0 to 255. ImageOps.autocontrast."""
    return stretch(image, *extremes(image))


def extremes(image: Image) -> tuple[UInt8[Array, " channels"], UInt8[Array, " channels"]]:
    """The darkest and the brightest level of each channel."""
    return image.min(axis=(0, 1)), image.max(axis=(0, 1))


def stretch(
    levels: Levels, darkest: UInt8[Array, " channels"], brightest: UInt8[Array, " channels"]
) -> Levels:
    """Levels [..., channels] between the extremes, stretched; a flat channel stays."""
    low, high = darkest.astype(jnp.int32), brightest.astype(jnp.int32)
    above = jnp.clip(levels.astype(jnp.int32) - low, 0, high - low)
    stretched = _quotient(255 * above, jnp.maximum(high - low, 1)).astype(jnp.uint8)
    return jnp.where(high > low, stretched, levels)


def _quotient(dividend: Int[Array, "..."], divisor: Int[Array, "..."]) -> Float[Array, "..."]:
    """The whole part of a / b as a float: exact for 0 <= a < 2^24 with a quotient up to 256.

    No CPU divides whole numbers in parallel. The float quotient is a whole number where it
    should be, and else 1 / b away from the next, more than its rounding as long as b < 2^15.
    """
    return jnp.floor(dividend.astype(jnp.float32) / divisor.astype(jnp.float32))


def equalize(image: Image) -> Image:
    """Each channel with its levels about equally often used. ImageOps.equalize.

    A level becomes the number of darker pixels, in units of a 255th of all but the brightest
    pixels; a channel for which that unit is nothing, such as a flat one, stays.
    """
    channels = image.shape[-1]
    counts = histogram(image)
    darker = jnp.cumsum(counts, axis=0) - counts
    places = image.astype(jnp.int32) * channels + jnp.arange(channels)
    below = darker.ravel().at[places].get(mode="promise_in_bounds")
    step = (image < image.max(axis=(0, 1))).sum(axis=(0, 1), dtype=jnp.int32) // 255
    levels = jnp.minimum(_quotient(step // 2 + below, jnp.maximum(step, 1)), 255)
    return jnp.where(step > 0, levels.astype(jnp.uint8), image)


def histogram(image: Image) -> Int[Array, "256 channels"]:
    """How many pixels of each channel have each level.

    By scatter, which on CPUs was the fastest of scatter, sort and one-hot products.
    """
    channels = image.shape[-1]
    places = image.astype(jnp.int32) * channels + jnp.arange(channels)
    counts = jnp.zeros(256 * channels, jnp.int32)
    return counts.at[places.ravel()].add(1, mode="promise_in_bounds").reshape(256, channels)


def blur(image: Image, sigma: Number, largest: float) -> Image:
    """Convolved with a Gaussian of standard deviation sigma > 0, edges repeated outwards.

    Two products with band matrices, one an axis. The weights have 12 bits, and 12 bits of the
    first product go into the second, so every sum is a whole number that float32 holds exactly.

    Args:
      image: of any number of channels.
      sigma: in pixels, at most `largest`.
      largest: sets the width of the kernel, 3 standard deviations to each side.
    """
    weights = _gaussian_weights(sigma, math.ceil(3 * largest))
    radius = len(weights) // 2
    padded = jnp.pad(image, ((radius, radius), (radius, radius), (0, 0)), mode="edge")
    down, across = (_band(weights, length) for length in image.shape[:2])
    einsum = functools.partial(jnp.einsum, precision="highest")  # nothing less than float32
    rows = jnp.floor(einsum("op,pwc->owc", down, padded.astype(jnp.float32)) / 256 + 0.5)
    levels = einsum("op,hpc->hoc", across, rows) / 65536
    return jnp.floor(levels + 0.5).astype(jnp.uint8)


def _gaussian_weights(sigma: Number, radius: int) -> Float[Array, " taps"]:
    """Whole numbers that sum to 4096, from -radius to radius."""
    distances = jnp.arange(radius, 0, -1) / jnp.asarray(sigma, jnp.float32)
    sides = jnp.exp(-0.5 * distances**2)
    sides = jnp.round(4096 * (sides / (1 + 2 * _sum(sides))))
    middle = 4096 - 2 * _sum(sides)
    return jnp.concatenate([sides, middle[None], sides[::-1]])


def _sum(terms: Float[Array, " n"]) -> Float[Array, ""]:
    """The sum from first to last: in an order that no compiler is free to choose."""
    return functools.reduce(operator.add, list(terms))


def _band(weights: Float[Array, " taps"], length: int) -> Float[Array, "length padded"]:
    """The matrix that convolves `length + taps - 1` padded values to `length`."""
    taps = len(weights)
    tap = jnp.arange(length + taps - 1)[None, :] - jnp.arange(length)[:, None]
    return jnp.where((tap >= 0) & (tap < taps), weights[jnp.clip(tap, 0, taps - 1)], 0)


def jitter(
    image: Image,
    key: PRNGKeyArray,
    *,
    brightness: float = 0,
    contrast: float = 0,
    saturation: float = 0,
    hue: float = 0,
) -> Image:
    """Brightness, contrast, saturation and hue changed at random, in this order.

    The factor of each of the first three is uniform in [1 - strength, 1 + strength] but not
    below 0, the turn of the hue uniform in [-strength, strength]. What is 0 is left out.
    """
    factors = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, strength in factors.items():
        if strength:
            factor = jax.random.uniform(
                named(key, name), minval=max(0.0, 1 - strength), maxval=1 + strength
            )
            image = ENHANCEMENTS[name](image, factor)
    if hue:
        image = turn_hue(image, jax.random.uniform(named(key, "hue"), minval=-hue, maxval=hue))
    return image


ENHANCEMENTS = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
