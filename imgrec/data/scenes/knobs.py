"""The dials of the world: what may vary in a scene, and by how much.

A `Range` is set as one number, which every scene then has exactly (for a dose-response curve),
or as a pair of numbers, between which each scene draws uniformly (to train on). Every dial has
random numbers of its own, so turning one changes that factor alone.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from imgrec.data.scenes.shapes import COLOURS, SHAPES
from imgrec.errors import UserError, unknown

Number = int | float
Range = Number | tuple[Number, Number]

BACKGROUNDS = ("plain", "gradient", "stripes", "checker", "blobs")
NOVELTIES = ("none", "mixed", "only")
LABEL_NOISES = ("symmetric", "next")


@dataclass(frozen=True)
class Knobs:
    """Every dial of one split. Lengths are shares of the image's side, angles are in degrees.

    The first object of a scene is its target, in front of all others and the largest; its
    shape is the label. Classes are `shapes` without the held-out ones, then these.

    Raises:
      UserError: a value of a wrong type or out of its range, an unknown name, or dials that
        contradict each other.
    """

    # What there is. Training draws no held-out shape or combination (novelty "none"); a test
    # split draws from all ("mixed") or has only targets that training never saw ("only").
    shapes: tuple[str, ...] = tuple(SHAPES)
    held_out_shapes: tuple[str, ...] = ()
    held_out_combinations: tuple[str, ...] = ()  # "red circle"
    novelty: str = "none"
    n_objects: Range = (1, 1)  # the target and others, which are 0.5 to 0.85 of its size

    # Where, and how it looks.
    scale: Range = (0.3125, 0.625)  # diameter of the target's circumscribed circle
    position: Number = 1.0  # share of its free way that the target uses; 0 keeps it in the centre
    angle: Range = (0.0, 0.0)  # clockwise
    rotation: Number = 180.0  # most that each object's angle differs from that, either way
    occlusion: Range = (0.0, 0.0)  # share of the target's area that a grey card hides
    overlap: Number = 0.0  # of two objects, as a share of the distance at which they touch
    background: tuple[str, ...] = ("plain",)  # kinds, equally likely
    clutter: Range = (0, 0)  # dashes in random colours behind the objects
    light: Range = (1.0, 1.0)  # every colour is multiplied by this
    shading: Range = (0.0, 0.0)  # share of the light that is lost from corner to corner
    pixel_noise: Number = 16.0  # largest change of a value, of 255
    resolution: int = 32  # height and width in pixels

    # How labels are spread, and what else goes with them.
    imbalance: Number = 1.0  # likeliest over rarest class, exponential between
    imbalance_seed: int = 0  # permutes which class is how rare; 0 keeps the order of the labels
    cue: Number = 0.0  # correlation of the background's tint with the target's class
    label_noise: Number = 0.0  # share of labels that are wrong
    label_noise_kind: str = "symmetric"  # any other class, equally likely; or "next"

    def __post_init__(self) -> None:
        """Normalises ranges to pairs and checks everything."""
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, _checked(f, getattr(self, f.name), f.name))
        _check_novelty(self)
        _check_room(self)

    @property
    def known(self) -> tuple[str, ...]:
        """The classes that training sees."""
        return tuple(shape for shape in self.shapes if shape not in self.held_out_shapes)

    @property
    def classes(self) -> tuple[str, ...]:
        """Shapes in the order of the labels: the known ones, then the held-out ones."""
        return (*self.known, *(s for s in self.shapes if s in self.held_out_shapes))


@dataclass(frozen=True)
class Options:
    """`config.data.options` of the data set `scenes`, checked: two splits of one world."""

    train: Knobs
    test: Knobs
    seed: int  # of the world: another one shows other scenes of the same kind
    train_size: int
    test_size: int


# Biases of a training set, which a test split has only where its own dial is set.
TRAIN_ONLY = ("imbalance", "cue", "label_noise")
# What makes train and test one data set.
SHARED = ("shapes", "held_out_shapes", "held_out_combinations", "resolution")


def parse(options: Mapping[str, Any] | ConfigDict) -> Options:
    """The options of both splits.

    Any field of `Knobs` is an option and sets the dial for both splits, but `imbalance`, `cue`
    and `label_noise` for training alone. With `test_` before it, it sets the dial of the test
    split: `occlusion=0.2 test_occlusion=0.6`. Further options are `train` and `test`, the
    number of images of each, and `seed`.

    Raises:
      UserError: an unknown option, or a value that `Knobs` refuses.
    """
    sizes = {"train": (2_000, 1, 2**32), "test": (500, 1, 2**32), "seed": (0, 0, 2**63)}
    fields = {f.name: f for f in dataclasses.fields(Knobs)}
    whole: dict[str, int] = {name: default for name, (default, _, _) in sizes.items()}
    train: dict[str, Any] = {}
    test: dict[str, Any] = {"novelty": "mixed"}
    own: dict[str, Any] = {}
    for name, value in options.items():
        plain = name.removeprefix("test_")
        if name in sizes:
            whole[name] = _number(value, name, sizes[name][1], sizes[name][2], whole=True)
        elif plain not in fields:
            raise unknown("option of data set 'scenes'", name, [*fields, *sizes])
        elif name in fields:
            train[name] = _checked(fields[name], value, name)
        elif plain in SHARED:
            raise UserError(
                f"config.data.options.{name}: train and test have the same {plain}. Set "
                f"--config.data.options.{plain} alone."
            )
        else:
            own[plain] = _checked(fields[plain], value, name)
    test |= {name: value for name, value in train.items() if name not in (*TRAIN_ONLY, "novelty")}
    knobs = Knobs(**train)
    if not (knobs.held_out_shapes or knobs.held_out_combinations):
        test["novelty"] = "none"
    return Options(
        train=knobs,
        test=Knobs(**{**test, **own}),
        seed=whole["seed"],
        train_size=whole["train"],
        test_size=whole["test"],
    )


_CHOICES: Mapping[str, tuple[str, ...]] = {
    "shapes": tuple(SHAPES),
    "held_out_shapes": tuple(SHAPES),
    "held_out_combinations": tuple(f"{c} {s}" for s in SHAPES for c in COLOURS),
    "novelty": NOVELTIES,
    "background": BACKGROUNDS,
    "label_noise_kind": LABEL_NOISES,
}
_LIMITS: Mapping[str, tuple[Number, Number]] = {
    "n_objects": (1, 16),
    "scale": (0.05, 0.9),
    "position": (0, 1),
    "angle": (-360, 360),
    "rotation": (0, 180),
    "occlusion": (0, 0.95),
    "overlap": (0, 0.5),
    "clutter": (0, 256),
    "light": (0.05, 1),  # more would burn colours out, and their names would be wrong
    "shading": (0, 0.95),
    "pixel_noise": (0, 128),
    "resolution": (8, 1024),
    "imbalance": (1, 1e6),
    "imbalance_seed": (0, 2**32 - 1),
    "cue": (0, 1),
    "label_noise": (0, 0.99),
}


def _checked(dial: dataclasses.Field, value: Any, name: str) -> Any:
    """The value in its normal form; `name` is what the user would type."""
    if isinstance(value, list):
        value = tuple(value)
    if dial.name in _CHOICES:
        return _names(value, dial, name)
    low, high = _LIMITS[dial.name]
    if not isinstance(dial.default, tuple):
        return _number(value, name, low, high, whole=isinstance(dial.default, int))
    pair = value if isinstance(value, tuple) else (value, value)
    if len(pair) != 2:
        raise UserError(
            f"config.data.options.{name}={value!r} has {len(pair)} values; expected one number, "
            f"or the least and the most as in ({low:g}, {high:g})."
        )
    whole = isinstance(dial.default[0], int)
    first, last = (_number(item, name, low, high, whole) for item in pair)
    if first > last:
        raise UserError(
            f"config.data.options.{name}={value!r}: the least comes first, as in {last, first}."
        )
    return (first, last)


def _number(value: Any, name: str, low: Number, high: Number, whole: bool) -> Any:
    kinds = int if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool):
        expected = "a whole number" if whole else "a number"
        raise UserError(
            f"config.data.options.{name}={value!r} has the type {type(value).__name__}; expected "
            f"{expected} between {low:g} and {high:g}."
        )
    if not (low <= value <= high and math.isfinite(value)):
        raise UserError(
            f"config.data.options.{name}={value} is impossible; it must be between {low:g} and "
            f"{high:g}."
        )
    return value if whole else float(value)


def _names(value: Any, dial: dataclasses.Field, name: str) -> Any:
    choices = _CHOICES[dial.name]
    several = isinstance(dial.default, tuple)
    if several and isinstance(value, str):
        value = tuple(part.strip() for part in value.split(",")) if value.strip() else ()
    given = value if several else (value,)
    if not isinstance(given, tuple) or not all(isinstance(item, str) for item in given):
        example = ",".join(choices[:2]) if several else choices[0]
        raise UserError(
            f"config.data.options.{name}={value!r} has the type {type(value).__name__}; expected "
            f"{'names' if several else 'a name'}, as in {example!r}."
        )
    for item in given:
        if item not in choices:
            raise unknown(f"value of config.data.options.{name}", item, choices)
    if len(set(given)) < len(given) or (not given and dial.default):
        raise UserError(
            f"config.data.options.{name}={value!r} must name at least one thing and none twice."
        )
    return value


def _check_novelty(knobs: Knobs) -> None:
    option = "config.data.options"
    for shape in knobs.held_out_shapes:
        if shape not in knobs.shapes:
            raise UserError(
                f"{option}.held_out_shapes names {shape!r}, which is not among {option}.shapes="
                f"{','.join(knobs.shapes)}; a shape that is held out of train is shown in test."
            )
    if len(knobs.known) < 2:
        raise UserError(
            f"{option}.shapes={','.join(knobs.shapes)} less {option}.held_out_shapes leaves "
            f"{len(knobs.known)} classes to train on; at least 2 are needed."
        )
    for combination in knobs.held_out_combinations:
        shape = combination.split()[1]
        if shape not in knobs.known:
            raise UserError(
                f"{option}.held_out_combinations names {combination!r}, but no {shape} is ever "
                f"trained on; train sees {', '.join(knobs.known)}."
            )
    for shape in knobs.known:
        held_out = [c for c in knobs.held_out_combinations if c.split()[1] == shape]
        if len(held_out) == len(COLOURS):
            raise UserError(
                f"{option}.held_out_combinations takes every colour of {shape!r} away from "
                f"train. Hold the shape out instead: --{option}.held_out_shapes={shape}."
            )
    if knobs.novelty == "only" and not (knobs.held_out_shapes or knobs.held_out_combinations):
        raise UserError(
            f"{option}.novelty='only' asks for held-out targets alone, and nothing is held out. "
            f"Name some, for example --{option}.held_out_shapes={knobs.shapes[-1]}."
        )


def _check_room(knobs: Knobs) -> None:
    """Refuses targets too small to be seen, and more objects than there is room for.

    The others cover 0.45 of the target's area on average. Up to three quarters of the image,
    places were found for all in every one of thousands of scenes.
    """
    most, (smallest, largest) = _bounds(knobs.n_objects)[1], _bounds(knobs.scale)
    if smallest * knobs.resolution < _LEAST_PIXELS:
        raise UserError(
            f"config.data.options.scale={smallest:g} of resolution={knobs.resolution} are "
            f"{smallest * knobs.resolution:g} pixels, and a shape needs {_LEAST_PIXELS}; write at "
            f"least --config.data.options.scale={_LEAST_PIXELS / knobs.resolution:g}."
        )
    room = math.sqrt(0.75 / (1 + 0.45 * (most - 1)))
    if most > 1 and largest > room:
        raise UserError(
            f"config.data.options.n_objects={most:g} objects do not fit beside each other at "
            f"scale={largest:g}; for so many write at most "
            f"--config.data.options.scale={math.floor(100 * room) / 100:g}."
        )


_LEAST_PIXELS = 4  # so that every shape has a pixel's centre inside, wherever it lies


def between(dial: Range, uniform: float) -> Number:
    """The number that a uniform one in [0, 1) draws from a range."""
    low, high = _bounds(dial)
    return low + (high - low) * uniform


def _bounds(dial: Range) -> tuple[Number, Number]:
    return dial if isinstance(dial, tuple) else (dial, dial)
