"""Augmentation that runs on the device, inside the jitted train step.

`build` turns the configuration into one function of (images, labels, key). Each example
draws from its own key, folded from its position in the global batch and the name of the
augmentation: what happens to it depends neither on the number of devices nor on which other
augmentations are on. An augmentation that is off leaves nothing in the program.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped, UInt8

from imgrec.augment import geometric, mix
from imgrec.augment.erase import cutout
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

    In this order: pad_crop, flip, rotation, normalisation, cutout, mixup or cutmix. The last
    two blend each example with the one before it in the batch; where both are on, each
    example draws one of them.

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

    def augment_one(
        image: UInt8[Array, "height width channels"], key: PRNGKeyArray
    ) -> Float[Array, "height width channels"]:
        if config.pad_crop:
            image = geometric.pad_crop(
                image, named(key, "pad_crop"), config.pad_crop, config.pad_mode
            )
        if config.flip:
            image = geometric.flip(image, named(key, "flip"))
        if config.rotation:
            image = geometric.rotation(image, named(key, "rotation"), config.rotation)
        image = image.astype(jnp.float32) - offset
        if config.cutout:
            image = cutout(image, named(key, "cutout"), config.cutout)
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
