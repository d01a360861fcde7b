"""Features of images by name: checked, learnt where they have something to learn, computed.

`recipe(config.features)` is a value that says how; `describe` turns images into rows by it, and
`describe_split` a whole split, in blocks, over processes.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from imgrec.classical.packages import require
from imgrec.config import FeaturesConfig
from imgrec.data import Split
from imgrec.errors import UserError, unknown
from imgrec.options import keyword_options

Images = UInt8[np.ndarray, "n height width channels"]
Rows = Float32[np.ndarray, "n features"]
Shown = Callable[[str, int, int], None]  # (stage, done, total)

NETWORK = "network"
NAMES = ("colour", "edges", "gabor", "hog", "lbp", "pixels", "words")
_BLOCK = 256  # images that a process is given at a time


@dataclass(frozen=True, eq=False)
class Recipe:
    """How features of an image are computed; may be sent to other processes.

    Attributes:
      parts: names of `NAMES` with their options, whose features stand one after the other.
      deskew: whether strokes are set upright first.
      vocabularies: what parts have learnt from training images, by name.
    """

    parts: tuple[tuple[str, Mapping[str, Any]], ...]
    deskew: bool = False
    vocabularies: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)


def recipe(config: FeaturesConfig) -> Recipe:
    """The recipe of a configuration; one that learns has not learnt yet.

    Raises:
      UserError: an unknown name or option, an impossible value, or a package that lacks.
    """
    names = config.name.split("+")
    for name in names:
        if name not in NAMES:
            more = {NETWORK} if len(names) == 1 else set()
            raise unknown("features", name, {*NAMES, *more})
    if len(set(names)) < len(names):
        raise UserError(f"config.features.name={config.name!r} names features twice.")
    functions = {name: _function(name) for name in names}
    options: dict[str, dict[str, Any]] = {name: {} for name in names}
    for option, value in config.options.items():
        # An option is for each of the features that know it.
        takers = [n for n in names if option in inspect.signature(functions[n]).parameters]
        for name in takers or names[:1]:
            options[name] |= keyword_options(functions[name], {option: value}, "features")
        _check_value(option, value)
    return Recipe(tuple(options.items()), config.deskew)


def learnt(recipe: Recipe, split: Split, seed: int) -> Recipe:
    """The recipe with what its parts learn from training images.

    Args:
      recipe: of `recipe`.
      split: of training images.
      seed: of what is drawn.
    """
    vocabularies = {}
    for name, options in recipe.parts:
        if name == "words":
            words = require("imgrec.classical.words")
            rows = np.linspace(0, len(split) - 1, min(words.SAMPLE, len(split))).astype(np.int64)
            images = _prepared(recipe, split.gather(rows)["image"])
            vocabularies[name] = words.learn(images, seed, **options)
    return dataclasses.replace(recipe, vocabularies=vocabularies)


def describe(recipe: Recipe, images: Images) -> Rows:
    """Features of images, by a recipe that has learnt."""
    images = _prepared(recipe, images)
    described = []
    for name, options in recipe.parts:
        given = (recipe.vocabularies[name],) if name == "words" else ()
        described.append(_function(name)(images, *given, **options))
    return described[0] if len(described) == 1 else np.concatenate(described, axis=1)


def dimensions(recipe: Recipe, image: UInt8[np.ndarray, "height width channels"]) -> int:
    """Features of an image, known before anything is learnt.

    Raises:
      UserError: the options do not suit an image of this shape.
    """
    known = 0
    for name, options in recipe.parts:
        if name == "words":
            known += options.get("words", _default("words", "words"))
        else:
            known += describe(Recipe(((name, options),)), image[None]).shape[1]
    return known


def describe_split(recipe: Recipe, split: Split, shown: Shown, *, processes: int = 0) -> Rows:
    """Features of a whole split, in its order.

    Args:
      recipe: that has learnt.
      split: of images.
      shown: is told how far it is.
      processes: that compute beside this one; with 0 or 1 this one does.
    """
    n = len(split)
    starts = range(0, n, _BLOCK)
    blocks = (split.gather(np.arange(i, min(i + _BLOCK, n)))["image"] for i in starts)
    rows: Rows | None = None
    for start, described in zip(starts, _over(recipe, blocks, processes), strict=True):
        if rows is None:  # what is known before: how many; what is not: how long
            rows = np.empty((n, described.shape[1]), np.float32)
        rows[start : start + len(described)] = described
        shown(f"features of {split.name}", start + len(described), n)
    assert rows is not None
    return rows


def _over(recipe: Recipe, blocks: Iterator[Images], processes: int) -> Iterator[Rows]:
    if processes < 2:
        return (describe(recipe, block) for block in blocks)
    joblib = require("joblib")
    # Few blocks are on their way at a time, so that images are not all held at once.
    pool = joblib.Parallel(
        processes, return_as="generator", pre_dispatch=2 * processes, batch_size=1, max_nbytes=None
    )
    found: Iterator[Rows] = pool(joblib.delayed(describe)(recipe, block) for block in blocks)
    return found


def _prepared(recipe: Recipe, images: Images) -> Images:
    return require("imgrec.classical.descriptors").deskewed(images) if recipe.deskew else images


def _function(name: str) -> Callable[..., Rows]:
    module = "words" if name == "words" else "descriptors"
    found: Callable[..., Rows] = getattr(require(f"imgrec.classical.{module}"), name)
    return found


def _default(name: str, option: str) -> Any:
    return inspect.signature(_function(name)).parameters[option].default


def _check_value(option: str, value: Any) -> None:
    values = value if isinstance(value, tuple | list) else (value,)
    numbers = [v for v in values if isinstance(v, int | float)]
    if not values or any(not 0 < v < _MOST[option] for v in numbers if option in _MOST):
        raise UserError(
            f"config.features.options.{option}={value!r} is impossible; it must be above 0 and "
            f"below {_MOST.get(option, float('inf'))}."
        )


_MOST: Mapping[str, float] = {
    "orientations": 181,
    "cell": 1025,
    "cells": 65,
    "block": 65,
    "points": 25,
    "radius": 64,
    "bins": 65,
    "wavelengths": 257,
    "corners": 10_001,
    "words": 65_537,
}
