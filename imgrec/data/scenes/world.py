"""What is in a scene: a pure function of (seed, index, knobs), before any pixel is drawn.

Every choice has a numbered place of its own in the random streams of its scene. So a dial that
is turned leaves all other choices as they were, and a further object or piece of clutter joins
those that were there.
"""

import bisect
import colorsys
import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from imgrec.data import order
from imgrec.data.scenes.knobs import Knobs, Range, between
from imgrec.data.scenes.shapes import COLOURS

Rgb = tuple[float, float, float]
"""Red, green, blue on the scale [0, 1]."""


@dataclass(frozen=True)
class Thing:
    """One object. Lengths are shares of the image's side; x points right and y down."""

    shape: str
    colour: str
    rgb: Rgb
    x: float  # of the centre of the circumscribed circle
    y: float
    radius: float  # of that circle
    angle: float  # degrees, clockwise


@dataclass(frozen=True)
class Background:
    """What lies behind everything: a tint, and a pattern of it with a lighter one."""

    kind: str
    tint: int  # which of as many hues as there are classes
    rgb: Rgb
    second: Rgb
    angle: float  # degrees; of the pattern
    period: float  # of stripes and checkers
    phase: float


@dataclass(frozen=True)
class Dash:
    """A piece of clutter: a short bar behind the objects."""

    rgb: Rgb
    x: float
    y: float
    angle: float  # degrees
    half_length: float
    half_width: float


@dataclass(frozen=True)
class Card:
    """A grey card that is pushed over the target until it hides a given share of it."""

    share: float
    angle: float  # degrees; the side of the target from which it comes
    rgb: Rgb


@dataclass(frozen=True)
class Scene:
    """Everything that decides a picture. `dataclasses.replace` one factor to render another.

    Attributes:
      seed: of the world.
      index: of the scene; together they also decide the noise of the pixels.
      resolution: height and width in pixels.
      objects: from front to back; the first is the target, which is the largest, too.
      label: of the target's shape in `Knobs.classes`, or a wrong one by label noise.
      clean_label: of the target's shape.
      held_out: whether training draws no target of this shape and colour.
      background: what is behind.
      clutter: from back to front.
      card: what hides part of the target; None where nothing does.
      light: factor of all colours.
      shading: share of it that is lost at the darkest corner.
      direction: degrees; where the light comes from.
      pixel_noise: largest change of a value, of 255.
    """

    seed: int
    index: int
    resolution: int
    objects: tuple[Thing, ...]
    label: int
    clean_label: int
    held_out: bool
    background: Background
    clutter: tuple[Dash, ...]
    card: Card | None
    light: float
    shading: float
    direction: float
    pixel_noise: float

    @property
    def cue_agrees(self) -> bool:
        """Whether the background's tint is the one that goes with the target's class."""
        return self.background.tint == self.clean_label


# Streams of a scene's key; a number, once given, keeps its meaning.
_SCENE, _OBJECTS, _CLUTTER, PIXELS, BLOBS, LANGUAGE = range(6)
# Places in the stream of the scene, likewise.
(
    _CLASS,
    _COUNT,
    _FLIP,
    _WRONG,
    _AGREE,
    _TINT,
    _TINT_VALUE,
    _KIND,
    _PATTERN_ANGLE,
    _PERIOD,
    _PHASE,
    _CLUTTER_COUNT,
    _OCCLUSION,
    _CARD_ANGLE,
    _CARD_GREY,
    _LIGHT,
    _SHADING,
    _DIRECTION,
) = range(18)
# Places of an object: five, some to spare, then candidates for its position.
_SHAPE, _COLOUR, _SIZE, _ANGLE, _ROTATION, _SHADE = range(6)
_FIRST_CANDIDATE, _CANDIDATES = 8, 20
_PER_OBJECT = _FIRST_CANDIDATE + 2 * _CANDIDATES
_PER_DASH = 8

_T = TypeVar("_T")


def scene(seed: int, index: int, knobs: Knobs) -> Scene:
    """The scene with this index in the world of this seed."""
    u = uniforms(18, seed, index, _SCENE)
    shown = _shown(knobs)
    clean = shown.labels[bisect.bisect_right(shown.cumulative, u[_CLASS])]
    objects = _objects(seed, index, knobs, clean, _whole(knobs.n_objects, u[_COUNT]))
    combination = f"{objects[0].colour} {objects[0].shape}"
    share = between(knobs.occlusion, u[_OCCLUSION])
    grey = 0.35 + 0.3 * u[_CARD_GREY]
    return Scene(
        seed=seed,
        index=index,
        resolution=knobs.resolution,
        objects=objects,
        label=_given_label(clean, knobs, u[_FLIP], u[_WRONG]),
        clean_label=clean,
        held_out=clean >= len(knobs.known) or combination in knobs.held_out_combinations,
        background=_background(clean, knobs, u),
        clutter=_clutter(seed, index, _whole(knobs.clutter, u[_CLUTTER_COUNT])),
        card=Card(share, 360 * u[_CARD_ANGLE], (grey, grey, grey)) if share else None,
        light=between(knobs.light, u[_LIGHT]),
        shading=between(knobs.shading, u[_SHADING]),
        direction=360 * u[_DIRECTION],
        pixel_noise=knobs.pixel_noise,
    )


def uniforms(n: int, seed: int, index: int, stream: int) -> list[float]:
    """The first `n` numbers in [0, 1) of one of a scene's streams."""
    return [word * 2.0**-53 for word in (order.words(n, (seed, index), stream) >> 11).tolist()]


@dataclass(frozen=True)
class _Shown:
    """What a split may draw, worked out once."""

    labels: tuple[int, ...]  # of targets
    cumulative: tuple[float, ...]  # of their prior, without the last, which is 1
    target_colours: tuple[tuple[str, ...], ...]  # by label
    shapes: tuple[int, ...]  # labels of the other objects
    colours: tuple[tuple[str, ...], ...]  # of them, by label


@functools.lru_cache(maxsize=64)
def _shown(knobs: Knobs) -> _Shown:
    classes, known = knobs.classes, len(knobs.known)
    every = tuple(COLOURS)

    def held_out(label: int) -> tuple[str, ...]:
        pairs = (f"{colour} {classes[label]}" for colour in every)
        return tuple(
            colour
            for colour, pair in zip(every, pairs, strict=True)
            if label >= known or pair in knobs.held_out_combinations
        )

    unseen = tuple(held_out(label) for label in range(len(classes)))
    seen = tuple(tuple(c for c in every if c not in colours) for colours in unseen)
    everything = tuple(every for _ in classes)
    colours = {"none": seen, "mixed": everything, "only": unseen}[knobs.novelty]
    others = seen if knobs.novelty == "none" else everything
    labels = tuple(label for label in range(len(classes)) if colours[label])
    return _Shown(
        labels=labels,
        cumulative=_cumulative_prior(len(labels), knobs),
        target_colours=colours,
        shapes=tuple(label for label in range(len(classes)) if others[label]),
        colours=others,
    )


def _cumulative_prior(n: int, knobs: Knobs) -> tuple[float, ...]:
    """The exponential profile of Cui et al. 2019, section 5.1, as probabilities."""
    ranks = list(range(n))
    if knobs.imbalance_seed:
        ranks = order.permutation(n, (knobs.imbalance_seed, 0)).tolist()
    weights = [knobs.imbalance ** (-rank / max(n - 1, 1)) for rank in ranks]
    total = math.fsum(weights)
    return tuple(itertools.accumulate(weight / total for weight in weights[:-1]))


def _pick(things: Sequence[_T], uniform: float) -> _T:
    return things[int(uniform * len(things))]


def _whole(dial: Range, uniform: float) -> int:
    """A whole number from the range, both ends included and all equally likely."""
    low, high = dial if isinstance(dial, tuple) else (dial, dial)
    return int(low) + int(uniform * (int(high) - int(low) + 1))


def _given_label(clean: int, knobs: Knobs, flip: float, wrong: float) -> int:
    """The label that a careless annotator gives; of those that the split shows."""
    labels = _shown(knobs).labels
    if flip >= knobs.label_noise or len(labels) == 1:
        return clean
    step = 1
    if knobs.label_noise_kind == "symmetric":
        step += int(wrong * (len(labels) - 1))
    return labels[(labels.index(clean) + step) % len(labels)]


def _background(clean: int, knobs: Knobs, u: list[float]) -> Background:
    """Dark and dull, so that every object's colour stands out from every tint."""
    tints = len(knobs.classes)
    tint = clean if u[_AGREE] < knobs.cue else int(u[_TINT] * tints)
    value = 0.2 + 0.15 * u[_TINT_VALUE]
    return Background(
        kind=_pick(knobs.background, u[_KIND]),
        tint=tint,
        rgb=colorsys.hsv_to_rgb(tint / tints, 0.6, value),
        second=colorsys.hsv_to_rgb(tint / tints, 0.45, value + 0.22),
        angle=360 * u[_PATTERN_ANGLE],
        period=0.12 + 0.16 * u[_PERIOD],
        phase=u[_PHASE],
    )


def _clutter(seed: int, index: int, count: int) -> tuple[Dash, ...]:
    if not count:
        return ()
    u = uniforms(_PER_DASH * count, seed, index, _CLUTTER)
    rows = (u[start : start + _PER_DASH] for start in range(0, len(u), _PER_DASH))
    return tuple(
        Dash(
            rgb=(0.95 * r, 0.95 * g, 0.95 * b),
            x=x,
            y=y,
            angle=180 * angle,
            half_length=0.04 + 0.05 * length,
            half_width=0.012 + 0.013 * width,
        )
        for x, y, angle, length, width, r, g, b in rows
    )


def _objects(seed: int, index: int, knobs: Knobs, label: int, count: int) -> tuple[Thing, ...]:
    u = uniforms(_PER_OBJECT * count, seed, index, _OBJECTS)
    shown, classes = _shown(knobs), knobs.classes
    things: list[Thing] = []
    for first in range(0, len(u), _PER_OBJECT):
        own = u[first : first + _PER_OBJECT]
        if not things:
            colours = shown.target_colours[label]
            radius = between(knobs.scale, own[_SIZE]) / 2
            room = (1 - 2 * radius) * knobs.position
            x = 0.5 + (own[_FIRST_CANDIDATE] - 0.5) * room
            y = 0.5 + (own[_FIRST_CANDIDATE + 1] - 0.5) * room
        else:
            label = _pick(shown.shapes, own[_SHAPE])
            colours = shown.colours[label]
            radius = things[0].radius * (0.5 + 0.35 * own[_SIZE])
            x, y, radius = _place(own[_FIRST_CANDIDATE:], radius, things, knobs.overlap)
        colour = _pick(colours, own[_COLOUR])
        shade = 0.85 + 0.15 * own[_SHADE]
        red, green, blue = COLOURS[colour]
        angle = between(knobs.angle, own[_ANGLE]) + (2 * own[_ROTATION] - 1) * knobs.rotation
        rgb = (red * shade, green * shade, blue * shade)
        things.append(Thing(classes[label], colour, rgb, x, y, radius, angle))
    return tuple(things)


def _place(
    candidates: list[float], radius: float, things: list[Thing], overlap: float
) -> tuple[float, float, float]:
    """(x, y, radius) of a further object, within the image and clear of those before it.

    The first of the candidates that is clear; where none is, with the object a quarter smaller,
    then half. Failing that, the place of a grid where it is clear by the most, or overlaps by
    the least.
    """

    def clear(x: float, y: float, radius: float) -> float:
        return min(
            math.hypot(x - other.x, y - other.y) - (1 - overlap) * (radius + other.radius)
            for other in things
        )

    for size in (1, 0.75, 0.5):
        r = size * radius
        for u, v in zip(candidates[::2], candidates[1::2], strict=True):
            x, y = r + (1 - 2 * r) * u, r + (1 - 2 * r) * v
            if clear(x, y, r) >= 0:
                return x, y, r
    steps = [r + (1 - 2 * r) * i / 20 for i in range(21)]
    x, y = max(itertools.product(steps, steps), key=lambda place: clear(place[0], place[1], r))
    return x, y, r
