"""Policies: which operations, in what strength, each example gets.

A policy is a pure function (uint8 image, key, fill) -> uint8 image of the same shape, made by
a factory in `POLICIES` whose keyword arguments are its options. All but three_augment draw
from the operations of `imgrec.augment.operations`. Shears and rotations turn about the image's
centre, everything that moves pixels interpolates bilinearly and shows the level `fill`
outside, and each draws its direction by a fair coin. Images have 1 or 3 channels; on grey
ones, saturation is the identity.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from imgrec.augment import colour
from imgrec.augment.draws import dirichlet
from imgrec.augment.mix import symmetric_beta
from imgrec.augment.operations import OPERATIONS, apply, in_turn
from imgrec.config import AugmentConfig
from imgrec.errors import UserError, unknown
from imgrec.options import keyword_options
from imgrec.randomness import named

Image = UInt8[Array, "height width channels"]
Policy = Callable[[Image, PRNGKeyArray, int], Image]

PAPER = (
    "identity",
    "autocontrast",
    "equalize",
    "rotate",
    "solarize",
    "saturation",
    "posterize",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
EXTENDED = (*PAPER[1:], "invert", "solarize_add")
AUGMIX = (
    "autocontrast",
    "equalize",
    "posterize",
    "rotate",
    "solarize",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
_BLUR_SIGMA = (0.1, 2.0)  # of three_augment, in pixels


class Range(NamedTuple):
    """Magnitudes of one operation, from strength 0 to 1: `start + strength * extent`.

    Attributes:
      start: at strength 0.
      extent: what strength 1 adds.
      signed: whether a fair coin turns the extent's sign.
      whole: whether the magnitude is rounded to a whole number (halves to even).
    """

    start: float = 0.0
    extent: float = 0.0
    signed: bool = False
    whole: bool = False


Ranges = dict[str, Range]  # an operation that is not named takes no magnitude


def _ranges(
    shear: float,
    shift: tuple[float, float],
    degrees: float,
    enhancement: Range,
    posterize: Range,
    solarize: Range,
) -> Ranges:
    """The ranges of all operations; `shift` is in pixels, down and right."""
    return {
        "shear_x": Range(extent=shear, signed=True),
        "shear_y": Range(extent=shear, signed=True),
        "translate_x": Range(extent=shift[1], signed=True),
        "translate_y": Range(extent=shift[0], signed=True),
        "rotate": Range(extent=degrees, signed=True),
        **dict.fromkeys(("brightness", "contrast", "saturation", "sharpness"), enhancement),
        "posterize": posterize,
        "solarize": solarize,
        "solarize_add": Range(extent=110.0, whole=True),
    }


def create(config: AugmentConfig) -> Policy | None:
    """The policy of the configuration, or None where there is none.

    Raises:
      UserError: an unknown policy or option, or a value that it cannot have.
    """
    if not config.policy:
        if config.options:
            raise UserError(
                f"config.augment.options.{next(iter(config.options))} is an option of no policy: "
                f"set config.augment.policy to one of {', '.join(sorted(POLICIES))}."
            )
        return None
    if config.policy not in POLICIES:
        raise unknown("policy in config.augment.policy", config.policy, POLICIES)
    factory = POLICIES[config.policy]
    return factory(**keyword_options(factory, config.options, "augment"))


def randaugment(*, n: int = 2, m: float = 9.0, operations: str = "paper") -> Policy:
    """RandAugment (Cubuk et al. 2019, arXiv:1909.13719, section 3): n operations, strength m.

    Each operation is drawn uniformly, with replacement. Full strength, m = 10, is a shear of
    0.3, a shift of 150/331 of the side, 30 degrees, factors 1 -+ 0.9, 4 bits, threshold 0; 30 of
    torchvision's 31 bins are our 10.

    Args:
      n: operations in turn.
      m: strength of all, from 0 to 10.
      operations: "paper", the 14 of the paper; or "extended", those of the code that was
        released with it: no identity, but invert and solarize_add (15; cutout is apart).
    """
    _between("n", n, 1, 16)
    _between("m", m, 0, 10)
    lists = {"paper": PAPER, "extended": EXTENDED}
    if operations not in lists:
        raise unknown("value of config.augment.options.operations", operations, lists)
    names = lists[operations]

    def policy(image: Image, key: PRNGKeyArray, fill: int) -> Image:
        chosen = _any_of(named(key, "operations"), names, (n,))
        strengths = jnp.full((n,), m / 10, jnp.float32)
        magnitudes = _magnitudes(named(key, "signs"), chosen, strengths, _randaugment_ranges(image))
        return in_turn(image, chosen, magnitudes, fill)

    return policy


def _randaugment_ranges(image: Image) -> Ranges:
    height, width, _ = image.shape
    return _ranges(
        shear=0.3,
        shift=(150 / 331 * height, 150 / 331 * width),
        degrees=30.0,
        enhancement=Range(1, 0.9, signed=True),
        posterize=Range(8, -4, whole=True),
        solarize=Range(256, -256, whole=True),
    )


def trivialaugment() -> Policy:
    """TrivialAugment Wide (Mueller and Hutter 2021, arXiv:2103.10158): one operation.

    It is uniform among the 14 of RandAugment's paper, its strength among 31 levels of wide
    ranges (table 8): shear to 0.99, 32 pixels, 135 degrees, factors 1 -+ 0.99, 2 bits,
    threshold 0.
    """

    def policy(image: Image, key: PRNGKeyArray, fill: int) -> Image:
        ranges = _ranges(
            shear=0.99,
            shift=(32.0, 32.0),
            degrees=135.0,
            enhancement=Range(1, 0.99, signed=True),
            posterize=Range(8, -6, whole=True),
            solarize=Range(256, -256, whole=True),
        )
        chosen = _any_of(named(key, "operations"), PAPER, (1,))
        strengths = jax.random.randint(named(key, "strengths"), (1,), 0, 31) / 30
        magnitudes = _magnitudes(named(key, "signs"), chosen, strengths, ranges)
        return apply(image, chosen[0], magnitudes[0], fill)

    return policy


def autoaugment(table: str) -> Policy:
    """AutoAugment (Cubuk et al. 2018, arXiv:1805.09501): one of 25 learned pairs.

    Each operation of the pair is applied with its own probability. Level 0 to 9 is spread
    evenly over the ranges of the paper's table 6, low end first: shear to 0.3, shift to 150/331
    of the side, 30 degrees, factors 0.1 to 1.9, 4 to 8 bits, threshold 0 to 256.
    """
    pairs = [[step.split() for step in line.split(",")] for line in table.strip().splitlines()]
    names = np.array([[OPERATIONS.index(step[0]) for step in pair] for pair in pairs])
    probabilities = np.array([[float(step[1]) for step in pair] for pair in pairs], np.float32)
    levels = np.array([[int(step[2]) for step in pair] for pair in pairs])

    def policy(image: Image, key: PRNGKeyArray, fill: int) -> Image:
        height, width, _ = image.shape
        ranges = _ranges(
            shear=0.3,
            shift=(150 / 331 * height, 150 / 331 * width),
            degrees=30.0,
            enhancement=Range(0.1, 1.8),
            posterize=Range(4, 4, whole=True),
            solarize=Range(0, 256, whole=True),
        )
        i = jax.random.randint(named(key, "pair"), (), 0, len(pairs))
        applied = jax.random.bernoulli(named(key, "applied"), jnp.asarray(probabilities)[i])
        chosen = jnp.where(applied, jnp.asarray(names)[i], OPERATIONS.index("identity"))
        strengths = jnp.asarray(levels)[i] / 9
        magnitudes = _magnitudes(named(key, "signs"), chosen, strengths, ranges)
        return in_turn(image, chosen, magnitudes, fill)

    return policy


# Paper's table 7 and table 9: operation, probability, level (0 where it takes none).
CIFAR10 = """
invert 0.1 0, contrast 0.2 6
rotate 0.7 2, translate_x 0.3 9
sharpness 0.8 1, sharpness 0.9 3
shear_y 0.5 8, translate_y 0.7 9
autocontrast 0.5 0, equalize 0.9 0
shear_y 0.2 7, posterize 0.3 7
saturation 0.4 3, brightness 0.6 7
sharpness 0.3 9, brightness 0.7 9
equalize 0.6 0, equalize 0.5 0
contrast 0.6 7, sharpness 0.6 5
saturation 0.7 7, translate_x 0.5 8
equalize 0.3 0, autocontrast 0.4 0
translate_y 0.4 3, sharpness 0.2 6
brightness 0.9 6, saturation 0.2 8
solarize 0.5 2, invert 0.0 0
equalize 0.2 0, autocontrast 0.6 0
equalize 0.2 0, equalize 0.6 0
saturation 0.9 9, equalize 0.6 0
autocontrast 0.8 0, solarize 0.2 8
brightness 0.1 3, saturation 0.7 0
solarize 0.4 5, autocontrast 0.9 0
translate_y 0.9 9, translate_y 0.7 9
autocontrast 0.9 0, solarize 0.8 3
equalize 0.8 0, invert 0.1 0
translate_y 0.7 9, autocontrast 0.9 0
"""
IMAGENET = """
posterize 0.4 8, rotate 0.6 9
solarize 0.6 5, autocontrast 0.6 0
equalize 0.8 0, equalize 0.6 0
posterize 0.6 7, posterize 0.6 6
equalize 0.4 0, solarize 0.2 4
equalize 0.4 0, rotate 0.8 8
solarize 0.6 3, equalize 0.6 0
posterize 0.8 5, equalize 1.0 0
rotate 0.2 3, solarize 0.6 8
equalize 0.6 0, posterize 0.4 6
rotate 0.8 8, saturation 0.4 0
rotate 0.4 9, equalize 0.6 0
equalize 0.0 0, equalize 0.8 0
invert 0.6 0, equalize 1.0 0
saturation 0.6 4, contrast 1.0 8
rotate 0.8 8, saturation 1.0 2
saturation 0.8 8, solarize 0.8 7
sharpness 0.4 7, invert 0.6 0
shear_x 0.6 5, equalize 1.0 0
saturation 0.4 0, equalize 0.6 0
equalize 0.4 0, solarize 0.2 4
solarize 0.6 5, autocontrast 0.6 0
invert 0.6 0, equalize 1.0 0
saturation 0.6 4, contrast 1.0 8
equalize 0.8 0, equalize 0.6 0
"""


def autoaugment_cifar10() -> Policy:
    """AutoAugment's policy for CIFAR-10."""
    return autoaugment(CIFAR10)


def autoaugment_imagenet() -> Policy:
    """AutoAugment's policy for ImageNet."""
    return autoaugment(IMAGENET)


def augmix(*, width: int = 3, depth: int = 3, alpha: float = 1.0, severity: float = 3.0) -> Policy:
    """AugMix (Hendrycks et al. 2019, arXiv:1912.02781, algorithm 1): a mean of chains.

    Chains of random operations are averaged with weights from Dirichlet(alpha), and their mean
    with the image by a weight from Beta(alpha, alpha). The operations are the nine that occur
    in no corruption benchmark; each draws its strength uniformly from 0.01 to severity / 10 of
    RandAugment's full strength. The weights are rounded to 16 bits, the result to levels. The
    paper's Jensen-Shannon loss is a matter of the task, not part of this.

    Args:
      width: number of chains.
      depth: of a chain at most; its length is uniform from 1 to this.
      alpha: of both distributions.
      severity: from 0.1 to 10.
    """
    _between("width", width, 1, 16)
    _between("depth", depth, 1, 16)
    _between("alpha", alpha, 0.05, 100)
    _between("severity", severity, 0.1, 10)

    def policy(image: Image, key: PRNGKeyArray, fill: int) -> Image:
        shape = (width, depth)
        chosen = _any_of(named(key, "operations"), AUGMIX, shape)
        lengths = jax.random.randint(named(key, "lengths"), (width, 1), 1, depth + 1)
        chosen = jnp.where(jnp.arange(depth) < lengths, chosen, OPERATIONS.index("identity"))
        strengths = jax.random.uniform(
            named(key, "strengths"), shape, minval=0.01, maxval=severity / 10
        )
        magnitudes = _magnitudes(named(key, "signs"), chosen, strengths, _randaugment_ranges(image))
        chains = jax.vmap(partial(in_turn, image, fill=fill))(chosen, magnitudes)

        share = symmetric_beta(named(key, "beta"), alpha)  # of the chains together
        weights = share * dirichlet(named(key, "dirichlet"), alpha, width)
        whole = jnp.round(weights * 65536).astype(jnp.int32)
        mixed = (65536 - whole.sum()) * image.astype(jnp.int32)
        mixed += (whole[:, None, None, None] * chains.astype(jnp.int32)).sum(axis=0)
        return jnp.clip((mixed + 32768) >> 16, 0, 255).astype(jnp.uint8)

    return policy


def three_augment(*, jitter: float = 0.3) -> Policy:
    """3-Augment (Touvron et al. 2022, arXiv:2204.07118, section 3): one of three, and jitter.

    Greyscale, solarize (threshold 128) or Gaussian blur (sigma uniform from 0.1 to 2 pixels),
    each with probability one third, and then brightness, contrast and saturation of the same
    strength.

    Args:
      jitter: strength, as in `colour.jitter`.
    """
    _between("jitter", jitter, 0, 10)

    def policy(image: Image, key: PRNGKeyArray, fill: int) -> Image:
        i = jax.random.randint(named(key, "which"), (), 0, 3)
        sigma = jax.random.uniform(
            named(key, "sigma"), minval=_BLUR_SIGMA[0], maxval=_BLUR_SIGMA[1]
        )
        blurred = colour.blur(image, sigma, _BLUR_SIGMA[1])
        image = jnp.where(
            i == 0,
            colour.greyscale(image),
            jnp.where(i == 1, colour.solarize(image, 128), blurred),
        )
        return colour.jitter(image, key, brightness=jitter, contrast=jitter, saturation=jitter)

    return policy


POLICIES: dict[str, Callable[..., Policy]] = {
    "augmix": augmix,
    "autoaugment_cifar10": autoaugment_cifar10,
    "autoaugment_imagenet": autoaugment_imagenet,
    "randaugment": randaugment,
    "three_augment": three_augment,
    "trivialaugment": trivialaugment,
}


def _any_of(
    key: PRNGKeyArray, names: tuple[str, ...], shape: tuple[int, ...]
) -> Int[Array, "*shape"]:
    """Indices in `OPERATIONS`, each uniform among those of the names."""
    indices = jnp.array([OPERATIONS.index(name) for name in names])
    return indices[jax.random.randint(key, shape, 0, len(names))]


def _magnitudes(
    key: PRNGKeyArray,
    chosen: Int[Array, "*shape"],
    strengths: Float[Array, "*shape"],
    ranges: Ranges,
) -> Float[Array, "*shape"]:
    """The magnitude of each chosen operation at its strength, with a sign where it has one."""
    table = [ranges.get(name, Range()) for name in OPERATIONS]
    start, extent = (jnp.array([r[i] for r in table], jnp.float32)[chosen] for i in range(2))
    signed, whole = (jnp.array([r[i] for r in table])[chosen] for i in (2, 3))
    turned = signed & jax.random.bernoulli(key, shape=chosen.shape)
    magnitudes = start + strengths * jnp.where(turned, -extent, extent)
    return jnp.where(whole, jnp.round(magnitudes), magnitudes)


def _between(name: str, value: int | float, low: int | float, high: int | float) -> None:
    if not low <= value <= high:
        raise UserError(
            f"config.augment.options.{name}={value} is impossible; it must be between {low:g} "
            f"and {high:g}."
        )
