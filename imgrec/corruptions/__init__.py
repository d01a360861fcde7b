"""The corruption benchmarks as pure functions that run inside a compiled evaluation.

A profile holds the kinds of one published benchmark with the constants of its resolution; a
kind is a function of an image, a key and a severity from 1 to 5. Kind and severity may be
traced, so all conditions of a profile are one program: it compiles once, with the model, and
runs once a condition.

    corrupted = corrupt(images, index, profile="cifar_c", kind=3, severity=5, seed=0)

Nothing is stored and nothing depends on the batch: what happens to an image is a function of
the seed, the kind, the severity and the image's index.
"""

import zlib
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, UInt8

from imgrec.corruptions import filters, mnist_c, profiles
from imgrec.corruptions.profiles import (
    CIFAR_C,
    EXTRA,
    IMAGENET_C,
    PUBLISHED,
    TINY_IMAGENET_C,
)
from imgrec.corruptions.severity import LEVELS, Corruption, Severity

__all__ = [
    "CATEGORIES",
    "EXTRA",
    "LEVELS",
    "PROFILES",
    "PUBLISHED",
    "Corruption",
    "corrupt",
    "names",
    "profile_for",
    "published",
    "severities",
]

PROFILES: Mapping[str, Mapping[str, Corruption]] = {
    "cifar_c": CIFAR_C,
    "tiny_imagenet_c": TINY_IMAGENET_C,
    "imagenet_c": IMAGENET_C,
    "mnist_c": mnist_c.MNIST_C,
}
CATEGORIES: Mapping[str, str] = {**profiles.CATEGORIES, **mnist_c.CATEGORIES}


def corrupt(
    images: UInt8[Array, "batch height width channels"],
    index: Int[Array, " batch"],
    *,
    profile: str,
    kind: str | int | Int[Array, ""],
    severity: Severity,
    seed: int,
) -> UInt8[Array, "batch height width channels"]:
    """The images corrupted, the same way in any batch and on any number of devices.

    The key of an image is folded from (seed, name of the kind, severity, index). Levels are cut
    off to whole numbers, as the programs that made the published sets do; where a value lies at
    the edge of a level, another batch size or device may round it to the other side, which
    happens to about one in a million. ImageNet-C was also stored as JPEG of quality 85, which
    this leaves out.

    Args:
      images: of 1 or 3 channels.
      index: names each image in its split.
      profile: a name in `PROFILES`.
      kind: a name in the profile, which puts this kind alone into the program, or its position
        in `names(profile)`, which may be traced.
      severity: of `severities(profile)`, may be traced.
      seed: of the whole benchmark.

    Raises:
      ValueError: no such profile, kind or severity.
    """
    kinds = names(profile)
    if isinstance(severity, int) and severity not in severities(profile):
        raise ValueError(f"severity={severity}: {profile} has {severities(profile)}.")

    if isinstance(kind, str):
        if kind not in kinds:
            raise ValueError(f"No corruption {kind!r} in {profile}: it has {', '.join(kinds)}.")
        kind = kinds.index(kind)
    if isinstance(kind, int):
        if not 0 <= kind < len(kinds):
            raise ValueError(f"kind={kind}: {profile} has {len(kinds)} kinds, counted from 0.")
        kinds, kind = kinds[kind : kind + 1], 0

    # The keys are made outside of the branches, so that they are compiled once, not once a kind.
    named = jnp.array([zlib.crc32(name.encode()) for name in kinds], jnp.uint32)[kind]
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), named), severity)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
    pixels = images.astype(jnp.float32) / 255

    def branch(name: str) -> Callable[[Array, PRNGKeyArray], Array]:
        corruption = PROFILES[profile][name]
        return jax.vmap(lambda image, key: corruption(image, key, severity))

    corrupted = jax.lax.switch(kind, [branch(name) for name in kinds], pixels, keys)
    return filters.levels(corrupted).astype(jnp.uint8)


def names(profile: str) -> tuple[str, ...]:
    """The kinds of a profile, in the order that positions count them.

    Raises:
      ValueError: no such profile.
    """
    if profile not in PROFILES:
        raise ValueError(f"No profile {profile!r}: expected one of {', '.join(PROFILES)}.")
    return tuple(PROFILES[profile])


def severities(profile: str) -> tuple[int, ...]:
    """The severities of a profile: 1 to 5, or 1 alone where a kind has one published strength."""
    return mnist_c.SEVERITIES if profile == "mnist_c" else tuple(range(1, LEVELS + 1))


def published(profile: str) -> tuple[str, ...]:
    """The kinds of a profile that results are averaged over: without those for validation."""
    if profile == "mnist_c":
        return names(profile)
    return tuple(name for name in names(profile) if name in PUBLISHED)


def profile_for(image_shape: tuple[int, ...]) -> str:
    """The profile for images of (height, width, channels), by the shorter side.

    The constants belong to a resolution, as a blur is in pixels: those of ImageNet-C leave little
    to recognise at 32. So it is the set that was made nearest, by ratio: `cifar_c` (32) below 46
    pixels, `tiny_imagenet_c` (64) below 120, else `imagenet_c` (224). `mnist_c` is only taken by
    name, also for grey images: its kinds have one severity, and some of them draw white strokes
    that belong on black.
    """
    side = min(image_shape[:2])
    return "cifar_c" if side < 46 else "tiny_imagenet_c" if side < 120 else "imagenet_c"
