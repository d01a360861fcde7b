"""The corruption benchmarks as pure functions that run inside a compiled evaluation.

A profile holds the kinds of one published benchmark with the constants of its resolution; a
kind is a function of an image, a key and a severity from 1 to 5. Kind and severity may be
traced, so all conditions of a profile are one program: it compiles once, with the model, and
runs once a condition.

    corrupted = corrupt(images, index, profile="cifar_c", kind=3, severity=5, seed=0)

Nothing is stored and nothing depends on the batch: what happens to an image is a function of
the seed, the kind, the severity and the image's index.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, UInt8

from imgrec.corruptions.profiles import (
    CATEGORIES,
    CIFAR_C,
    EXTRA,
    IMAGENET_C,
    PUBLISHED,
    TINY_IMAGENET_C,
)
from imgrec.corruptions.severity import LEVELS, Corruption, Severity
from imgrec.randomness import named

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
]

PROFILES: Mapping[str, Mapping[str, Corruption]] = {
    "cifar_c": CIFAR_C,
    "tiny_imagenet_c": TINY_IMAGENET_C,
    "imagenet_c": IMAGENET_C,
}


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
    off to whole numbers, as the programs that made the published sets do.

    Args:
      images: of 1 or 3 channels.
      index: names each image in its split.
      profile: a name in `PROFILES`.
      kind: a name in the profile, which puts this kind alone into the program, or its position
        in `names(profile)`, which may be traced.
      severity: from 1 to 5, may be traced.
      seed: of the whole benchmark.

    Raises:
      ValueError: no such profile, kind or severity.
    """
    kinds = names(profile)
    if isinstance(severity, int) and not 1 <= severity <= LEVELS:
        raise ValueError(f"severity={severity}: expected 1 to {LEVELS}.")

    def branch(name: str) -> Callable[[], UInt8[Array, "batch height width channels"]]:
        key = jax.random.fold_in(named(jax.random.key(seed), name), severity)
        return lambda: _corrupted(PROFILES[profile][name], images, index, key, severity)

    if isinstance(kind, str):
        if kind not in kinds:
            raise ValueError(f"No corruption {kind!r} in {profile}: it has {', '.join(kinds)}.")
        return branch(kind)()
    if isinstance(kind, int) and not 0 <= kind < len(kinds):
        raise ValueError(f"kind={kind}: {profile} has {len(kinds)} kinds, counted from 0.")
    return jax.lax.switch(kind, [branch(name) for name in kinds])


_WHOLE = 1 / 64  # of a level: what is that close below a whole level is taken for it


def _corrupted(
    corruption: Corruption,
    images: UInt8[Array, "batch height width channels"],
    index: Int[Array, " batch"],
    key: PRNGKeyArray,
    severity: Severity,
) -> UInt8[Array, "batch height width channels"]:
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
    pixels = images.astype(jnp.float32) / 255
    corrupted = jax.vmap(lambda image, key: corruption(image, key, severity))(pixels, keys)
    return jnp.floor(jnp.clip(255 * corrupted + _WHOLE, 0, 255)).astype(jnp.uint8)


def names(profile: str) -> tuple[str, ...]:
    """The kinds of a profile, in the order that positions count them.

    Raises:
      ValueError: no such profile.
    """
    if profile not in PROFILES:
        raise ValueError(f"No profile {profile!r}: expected one of {', '.join(PROFILES)}.")
    return tuple(PROFILES[profile])


def profile_for(image_shape: tuple[int, ...]) -> str:
    """The profile for images of (height, width, channels): `cifar_c` below 64 pixels.

    A blur or a displacement is in pixels, so the constants belong to a resolution: those of
    ImageNet-C still leave something to recognise at 64 pixels, and nothing much at 32. `mnist_c`
    is only taken by name, also for grey images: its severities are our own (the published set
    has one of each kind), and some of its kinds draw white strokes that belong on black.
    """
    return "imagenet_c" if min(image_shape[:2]) >= 64 else "cifar_c"
