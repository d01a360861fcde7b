"""Augmentation that runs on the device, inside the jitted train step.

`build` turns the configuration into one function of (images, labels, key). Each example
draws from its own key, folded from its position in the global batch and the name of the
augmentation: what happens to it depends neither on the number of devices nor on which other
augmentations are on. An augmentation that is off leaves nothing in the program.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped, UInt8

from imgrec.augment import colour, geometric, mix, policies
from imgrec.augment.erase import cutout, erasing
from imgrec.config import AugmentConfig
from imgrec.errors import UserError
from imgrec.randomness import named

__all__ = ["build", "normalise"]


def build(
    config: AugmentConfig,
    image_shape: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    num_classes: int,
) -> Callable[[Array, Array, PRNGKeyArray], tuple[Array, Array]]:
    """The augmentation of a training batch as one pure function, to be called under jit.

    In this order: random_resized_crop, pad_crop, flip, flip_vertical; rotation, translate,
    scale, shear and perspective together, as one interpolation; the policy; brightness,
    contrast, saturation, hue; greyscale, blur, sharpen, posterize, solarize, equalize,
    autocontrast, invert; normalisation; cutout, erasing; mixup or cutmix. The last two blend
    each example with the one before it in the batch; where both are on, each example draws
    one of them. Levels are whole numbers up to the normalisation, except that what is
    interpolated goes into it unrounded where neither a policy nor a colour is to change.

    Args:
      config: what is on, and how strong.
      image_shape: (height, width, channels) of every image.
      mean: of the data set, one number a channel on the scale [0, 1]; `config.mean`, where
        it is set, takes its place.
      std: likewise.
      num_classes: width of the targets.

    Returns:
      augment(images: uint8[B, H, W, C], labels: int32[B], key) -> (float32[B, H, W, C]
      normalised images, float32[B, num_classes] targets that sum to 1).

    Raises:
      UserError: a setting that images of this shape cannot have.
    """
    mean, std = tuple(config.mean or mean), tuple(config.std or std)
    _check(config, image_shape, mean, std)
    height, width, _ = image_shape
    offset, factor = _offset_and_factor(255, mean, std)

    policy = policies.create(config)

    def augment_one(
        image: UInt8[Array, "height width channels"], key: PRNGKeyArray
    ) -> Float[Array, "height width channels"]:
        image = _moved(config, image, key)
        if policy or _recolours(config):
            image = image if image.dtype == jnp.uint8 else geometric.to_uint8(image)
            if policy:
                image = policy(image, named(key, "policy"), config.fill)
            image = _recoloured(config, image, key)
        image = image.astype(jnp.float32) - offset
        if config.cutout:
            image = cutout(image, named(key, "cutout"), config.cutout)
        if config.erasing:
            image = _erased(config, image, named(key, "erasing"), offset)
        return image

    def mix_weights(key: PRNGKeyArray) -> Float[Array, "height width"]:
        maps = []
        if config.mixup:
            maps.append(mix.mixup(named(key, "mixup"), height, width, config.mixup))
        if config.cutmix:
            maps.append(mix.cutmix(named(key, "cutmix"), height, width, config.cutmix))
        return mix.either(named(key, "mixup or cutmix"), *maps) if len(maps) == 2 else maps[0]

    def augment(
        images: UInt8[Array, "batch height width channels"],
        labels: Int[Array, " batch"],
        key: PRNGKeyArray,
    ) -> tuple[Float[Array, "batch height width channels"], Float[Array, "batch classes"]]:
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(len(images)))
        images = jax.vmap(augment_one)(images, keys)
        targets = jax.nn.one_hot(labels, num_classes)
        if config.mixup or config.cutmix:
            images, targets = mix.mix(images, targets, jax.vmap(mix_weights)(keys))
        return images * factor, targets

    return augment


def _moved(
    config: AugmentConfig, image: UInt8[Array, "height width channels"], key: PRNGKeyArray
) -> Shaped[Array, "height width channels"]:
    """The image with its pixels moved: uint8, or float32 where it is interpolated."""
    if config.random_resized_crop:
        image = geometric.random_resized_crop(
            image, named(key, "random_resized_crop"), config.crop_area, config.crop_aspect
        )
    if config.pad_crop:
        image = geometric.pad_crop(image, named(key, "pad_crop"), config.pad_crop, config.pad_mode)
    if config.flip:
        image = geometric.flip(image, named(key, "flip"))
    if config.flip_vertical:
        image = geometric.flip_vertical(image, named(key, "flip_vertical"))
    height, width, _ = image.shape
    others = config.translate, config.shear, config.perspective, config.fill
    if config.rotation and not any(others) and config.scale == (1, 1):
        return geometric.rotation(image, named(key, "rotation"), config.rotation)
    points = _points(config, height, width, key)
    return image if points is None else geometric.warp(image, points, config.fill)


def _points(
    config: AugmentConfig, height: int, width: int, key: PRNGKeyArray
) -> geometric.Points | None:
    """What each pixel of the image is read from, or None: from its own place."""

    def uniform(name: str, shape: tuple[int, ...], low: float, high: float) -> Array:
        return jax.random.uniform(named(key, name), shape, minval=low, maxval=high)

    affine: dict[str, Any] = {}
    if config.rotation:
        affine["degrees"] = uniform("rotation", (), -config.rotation, config.rotation)
    if config.translate:
        shift = uniform("translate", (2,), -config.translate, config.translate)
        affine["shift"] = (shift[0] * height, shift[1] * width)
    if config.scale != (1, 1):
        affine["scale"] = uniform("scale", (), *config.scale)
    if config.shear:
        slopes = jnp.tan(jnp.deg2rad(uniform("shear", (2,), -config.shear, config.shear)))
        affine["shear"] = (slopes[0], slopes[1])
    if not affine and not config.perspective:
        return None

    if config.perspective:
        corners = geometric.random_corners(named(key, "perspective"), config.perspective)
        points = geometric.perspective(corners, height, width)
    else:
        points = geometric.centred(height, width)
    return geometric.affine(points, geometric.inverse_matrix(height, width, **affine))


def _recolours(config: AugmentConfig) -> bool:
    """Whether anything is on that changes colours, policies apart."""
    return any(getattr(config, name) for name in (*_JITTER, *_CHANCES))


def _recoloured(
    config: AugmentConfig, image: UInt8[Array, "height width channels"], key: PRNGKeyArray
) -> UInt8[Array, "height width channels"]:
    """The image after all that changes colours, policies apart."""
    image = colour.jitter(image, key, **{name: getattr(config, name) for name in _JITTER})
    for name, change in _CHANCES.items():
        probability = getattr(config, name)
        if probability:
            for_chance, for_change = jax.random.split(named(key, name))
            changed = change(config, image, for_change)
            image = jnp.where(jax.random.bernoulli(for_chance, probability), changed, image)
    return image


def _blurred(
    config: AugmentConfig, image: UInt8[Array, "height width channels"], key: PRNGKeyArray
) -> UInt8[Array, "height width channels"]:
    low, high = config.blur_sigma
    return colour.blur(image, jax.random.uniform(key, minval=low, maxval=high), high)


_JITTER = ("brightness", "contrast", "saturation", "hue")
_CHANCES: dict[str, Callable[[AugmentConfig, Array, PRNGKeyArray], Array]] = {
    "greyscale": lambda config, image, key: colour.greyscale(image),
    "blur": _blurred,
    "sharpen": lambda config, image, key: colour.sharpness(image, config.sharpen_factor),
    "posterize": lambda config, image, key: colour.posterize(image, config.posterize_bits),
    "solarize": lambda config, image, key: colour.solarize(image, config.solarize_threshold),
    "equalize": lambda config, image, key: colour.equalize(image),
    "autocontrast": lambda config, image, key: colour.autocontrast(image),
    "invert": lambda config, image, key: colour.invert(image),
}


def _erased(
    config: AugmentConfig,
    image: Float[Array, "height width channels"],
    key: PRNGKeyArray,
    offset: Float[np.ndarray, " channels"],
) -> Float[Array, "height width channels"]:
    """A centred image with a random box set to the mean, or to noise of all levels."""
    for_box, for_noise = jax.random.split(key)
    height, width, _ = image.shape
    hidden = erasing(
        for_box, height, width, config.erasing, config.erasing_area, config.erasing_aspect
    )
    content: Array | int = 0
    if config.erasing_fill == "noise":
        noise = jax.random.bits(for_noise, image.shape, jnp.uint8)
        content = noise.astype(jnp.float32) - offset
    return jnp.where(hidden[..., None], content, image)


def normalise(
    images: Shaped[Array | np.ndarray, "*batch height width channels"],
    mean: Sequence[float],
    std: Sequence[float],
) -> Float[Array, "*batch height width channels"]:
    """Images as float32 with the mean taken off and divided by the standard deviation.

    Args:
      images: uint8, or floats that are already on the scale [0, 1].
      mean: one number a channel, on the scale [0, 1].
      std: likewise.
    """
    offset, factor = _offset_and_factor(255 if images.dtype == jnp.uint8 else 1, mean, std)
    return (jnp.asarray(images, jnp.float32) - offset) * factor


def _offset_and_factor(
    white: int, mean: Sequence[float], std: Sequence[float]
) -> tuple[Float[np.ndarray, " channels"], Float[np.ndarray, " channels"]]:
    """What images on the scale [0, white] have taken off, then are multiplied by.

    The product comes last, after any mixing. A product that feeds a sum may be rounded once
    or twice with it, depending on what the compiler fuses; so that the bits do not depend on
    the number of devices, every sum in this package has at most one product to choose.
    """
    offset, factor = white * np.array(mean, np.float64), 1 / (white * np.array(std, np.float64))
    return offset.astype(np.float32), factor.astype(np.float32)


def _check(
    config: AugmentConfig,
    image_shape: tuple[int, int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> None:
    """Refuses what images of this shape cannot have."""
    height, width, channels = image_shape
    side = min(height, width)
    images = f"images of {height} x {width} pixels"
    if config.pad_crop >= side:
        raise UserError(
            f"config.augment.pad_crop={config.pad_crop} is too wide for {images}: crops would "
            f"hold nothing but padding. It can be 0 (off) to {side - 1}; an eighth of the side "
            f"is usual: --config.augment.pad_crop={max(1, side // 8)}"
        )
    if config.cutout > side:
        raise UserError(
            f"config.augment.cutout={config.cutout} is larger than the side of {images}. It can "
            f"be 0 (off) to {side}; half of the side is usual: "
            f"--config.augment.cutout={side // 2}"
        )
    if channels not in (1, 3):
        _refuse_channels(config, (*_NEEDS_COLOUR, *_NEEDS_GREY), channels, "1 or 3 channels")
    if channels == 1:
        _refuse_channels(config, _NEEDS_COLOUR, channels, "3 channels: grey has no colour")
    for name, values in {"mean": mean, "std": std}.items():
        if len(values) != channels:
            raise UserError(
                f"config.augment.{name}={values} has {len(values)} numbers, but the images have "
                f"{channels} channels. Give one number a channel, or () for the data set's own."
            )
        lowest = "0" if name == "mean" else "above 0"
        if any(not 0 <= value <= 1 or (name == "std" and value == 0) for value in values):
            raise UserError(
                f"config.augment.{name}={values} is not on the scale of images in [0, 1]: expected "
                f"numbers from {lowest} to 1. Divide by 255 what was computed on [0, 255]."
            )


_NEEDS_COLOUR = ("saturation", "hue", "greyscale")
_NEEDS_GREY = ("policy", "contrast")  # of three channels they take the grey picture


def _refuse_channels(
    config: AugmentConfig, names: tuple[str, ...], channels: int, needs: str
) -> None:
    for name in names:
        value = getattr(config, name)
        if value:
            off = '""' if isinstance(value, str) else "0"
            raise UserError(
                f"config.augment.{name}={value} needs images of {needs}, but these have "
                f"{channels}. Leave it out: --config.augment.{name}={off}"
            )
