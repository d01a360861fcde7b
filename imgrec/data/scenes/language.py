"""Captions and questions about a scene, by a small grammar; every one is true of the picture.

They speak of the objects of which at least one pixel is seen. Nothing here is drawn from the
streams that decide the picture.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from imgrec.data.scenes.shapes import COLOURS, SHAPES
from imgrec.data.scenes.truth import INVERSE, Truth, truth
from imgrec.data.scenes.world import LANGUAGE, Scene, uniforms

NUMBERS = (
    *("no", "one", "two", "three", "four", "five", "six", "seven", "eight"),
    *("nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"),
)
BACKGROUNDS: Mapping[str, str] = MappingProxyType(
    {
        "plain": "a plain background",
        "gradient": "a background with a gradient",
        "stripes": "a striped background",
        "checker": "a checkered background",
        "blobs": "a blotchy background",
    }
)
_PLURALS = {"cross": "crosses"}


@dataclass(frozen=True)
class Question:
    """A question with one right answer; `kind` is a key of `KINDS`."""

    kind: str
    text: str
    answer: str


def captions(scene: Scene, known: Truth | None = None) -> tuple[str, ...]:
    """Sentences that are true of a scene.

    The first names what is seen, from the largest to the smallest object: "a red circle and a
    blue star". The second adds the background, and the third counts shapes: "two circles and
    one star". Then follows one for each relation of the pairs that a colour and a shape tell
    apart: "a red circle left of a blue star".

    Args:
      scene: what is spoken of.
      known: its `truth`, where that is at hand.
    """
    view = _View(scene, known)
    sizes = [(-scene.objects[i].radius, i) for i in view.seen]
    listed = _listed([f"{_article(view.names[i])} {view.names[i]}" for _, i in sorted(sizes)])
    counted = Counter(scene.objects[i].shape for i in view.seen)
    counts = [_counted(counted[shape], shape) for shape in SHAPES if counted[shape]]
    related = (
        f"{_article(view.names[i])} {view.names[i]} {name} "
        f"{_article(view.names[j])} {view.names[j]}"
        for i, name, j in view.relations
    )
    background = BACKGROUNDS[scene.background.kind]
    return (listed, f"{listed} on {background}", _listed(counts), *related)


def questions(scene: Scene, known: Truth | None = None) -> tuple[Question, ...]:
    """One question of each kind that the scene allows, drawn at random.

    Where an answer is "yes" or "no", a fair coin decides which before the question is chosen,
    so that nothing is learned from the words alone. Uniqueness is part of the question: "the
    red circle" is asked of only where there is exactly one.

    Args:
      scene: what is asked of.
      known: its `truth`, where that is at hand.
    """
    view = _View(scene, known)
    if not view.seen:
        return ()
    asked = []
    draws = uniforms(_PER_KIND * len(KINDS), scene.seed, scene.index, LANGUAGE)
    for place, (kind, ask) in enumerate(KINDS.items()):
        # Each kind has its own numbers, so that one kind's questions leave the others' alone.
        pair = ask(view, iter(draws[_PER_KIND * place : _PER_KIND * (place + 1)]))
        if pair is not None:
            asked.append(Question(kind, *pair))
    return tuple(asked)


class _View:
    """A scene as it is spoken of."""

    def __init__(self, scene: Scene, known: Truth | None):
        known = truth(scene) if known is None else known
        self.objects = scene.objects
        self.seen = [i for i, share in enumerate(known.visible) if share > 0]
        self.names = [f"{thing.colour} {thing.shape}" for thing in scene.objects]
        self.pairs = Counter(self.names[i] for i in self.seen)
        self.shapes = Counter(scene.objects[i].shape for i in self.seen)
        self.colours = Counter(scene.objects[i].colour for i in self.seen)
        self.relations = [
            (relation.subject, relation.name, relation.object)
            for relation in known.relations
            if self._told_apart(relation.subject) and self._told_apart(relation.object)
        ]

    def _told_apart(self, i: int) -> bool:
        return i in self.seen and self.pairs[self.names[i]] == 1


_PER_KIND = 4  # numbers that a kind of question may draw
_Draws = Iterator[float]
_Asked = tuple[str, str] | None
_T = TypeVar("_T")


def _pick(things: Sequence[_T], draws: _Draws) -> _T:
    return things[int(next(draws) * len(things))]


def _exist(view: _View, draws: _Draws) -> _Asked:
    """An absent pair differs from one that is there in its colour or its shape alone."""
    yes, name = next(draws) < 0.5, _pick(sorted(view.pairs), draws)
    if not yes:
        colour, shape = name.split()
        near = [f"{other} {shape}" for other in COLOURS] + [f"{colour} {s}" for s in SHAPES]
        name = _pick([other for other in near if not view.pairs[other]], draws)
    return f"Is there {_article(name)} {name}?", "yes" if yes else "no"


def _count(view: _View, draws: _Draws) -> _Asked:
    """Of all objects, of a colour or of a shape; half of these are picked of what is there."""
    which, there = next(draws), next(draws) < 0.5
    if which < 0.2:
        return "How many objects are there?", str(len(view.seen))
    if which < 0.6:
        colour = _pick(sorted(view.colours) if there else tuple(COLOURS), draws)
        return f"How many {colour} objects are there?", str(view.colours[colour])
    shape = _pick(sorted(view.shapes) if there else tuple(SHAPES), draws)
    return f"How many {_plural(shape)} are there?", str(view.shapes[shape])


def _colour(view: _View, draws: _Draws) -> _Asked:
    unique = [i for i in view.seen if view.shapes[view.objects[i].shape] == 1]
    if not unique:
        return None
    thing = view.objects[_pick(unique, draws)]
    return f"What colour is the {thing.shape}?", thing.colour


def _shape(view: _View, draws: _Draws) -> _Asked:
    unique = [i for i in view.seen if view.colours[view.objects[i].colour] == 1]
    if not unique:
        return None
    thing = view.objects[_pick(unique, draws)]
    return f"What shape is the {thing.colour} object?", thing.shape


def _compare(view: _View, draws: _Draws) -> _Asked:
    """Two shapes of different number, asked either way round."""
    pairs = [
        (more, less)
        for more in sorted(view.shapes)
        for less in SHAPES
        if view.shapes[more] > view.shapes[less]
    ]
    yes = next(draws) < 0.5
    if not pairs:
        return None
    more, less = _pick(pairs, draws)
    first, second = (more, less) if yes else (less, more)
    return f"Are there more {_plural(first)} than {_plural(second)}?", "yes" if yes else "no"


def _relate(view: _View, draws: _Draws) -> _Asked:
    """A relation that holds, or its inverse."""
    yes = next(draws) < 0.5
    if not view.relations:
        return None
    one, name, other = _pick(view.relations, draws)
    if not yes:
        name = _INVERSES[name]
    return f"Is the {view.names[one]} {name} the {view.names[other]}?", "yes" if yes else "no"


_INVERSES = {**INVERSE, **{inverse: name for name, inverse in INVERSE.items()}}

# A kind, once here, keeps its place: its numbers are drawn by it.
KINDS: Mapping[str, Callable[[_View, _Draws], _Asked]] = MappingProxyType(
    {
        "exist": _exist,
        "count": _count,
        "colour": _colour,
        "shape": _shape,
        "compare": _compare,
        "relate": _relate,
    }
)


def _listed(parts: list[str]) -> str:
    """In a sentence: "a", "a and b", "a, b and c"."""
    if not parts:
        return "nothing"
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def _article(name: str) -> str:
    return "an" if name[0] in "aeiou" else "a"


def _plural(shape: str) -> str:
    return _PLURALS.get(shape, f"{shape}s")


def _counted(count: int, shape: str) -> str:
    return f"{NUMBERS[count]} {shape if count == 1 else _plural(shape)}"
