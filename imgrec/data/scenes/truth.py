"""What is true of a picture, to the pixel: masks, boxes, visible shares, relations."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from imgrec.data.scenes.render import card, outline
from imgrec.data.scenes.world import Scene, Thing

MARGIN = 0.05  # of the side by which centres must differ for one to be beside the other
INVERSE = {
    "left of": "right of",
    "above": "below",
    "in front of": "behind",
}

Masks = Bool[np.ndarray, "objects side side"]


@dataclass(frozen=True)
class Relation:
    """Two objects by their places in `Scene.objects`: (0, "left of", 1)."""

    subject: int
    name: str
    object: int


@dataclass(frozen=True, eq=False)
class Truth:
    """Of a scene's objects, in their order.

    Attributes:
      masks: the pixels in which each is seen; no two share one.
      whole_masks: the pixels it would be seen in if nothing were in front.
      boxes: (x0, y0, x1, y1) around `masks`, in pixels, x1 and y1 just past the last; zeros
        for an object of which nothing is seen.
      whole_boxes: likewise of `whole_masks`.
      visible: pixels in `masks` over those in `whole_masks`.
      relations: every true one. "left of", "above" and their inverses compare centres, which
        must differ by more than 5% of the side; "in front of" hides at least one pixel.
    """

    masks: Masks
    whole_masks: Masks
    boxes: Float[np.ndarray, "objects 4"]
    whole_boxes: Float[np.ndarray, "objects 4"]
    visible: Float[np.ndarray, "objects"]
    relations: tuple[Relation, ...]


def truth(scene: Scene) -> Truth:
    """All that can be asked of a picture, from its scene."""
    whole = whole_masks(scene)
    seen = _uncovered(scene, whole)
    areas = whole.sum(axis=(1, 2))
    return Truth(
        masks=seen,
        whole_masks=whole,
        boxes=np.array([_box(mask) for mask in seen], np.float32),
        whole_boxes=np.array([_box(mask) for mask in whole], np.float32),
        visible=seen.sum(axis=(1, 2)) / np.maximum(areas, 1),
        relations=tuple(_relations(scene, whole)),
    )


def masks(scene: Scene) -> Masks:
    """The pixels in which each object is seen."""
    return _uncovered(scene, whole_masks(scene))


def whole_masks(scene: Scene) -> Masks:
    """The pixels whose centre lies within each object's outline, seen or hidden."""
    side = scene.resolution
    return np.stack([outline(thing, side).inside(side) for thing in scene.objects])


def _uncovered(scene: Scene, whole: Masks) -> Masks:
    if scene.card is None:
        covered = np.zeros(whole.shape[1:], bool)
    else:
        covered = card(scene).inside(scene.resolution)
    seen = np.empty_like(whole)
    for i, mask in enumerate(whole):
        seen[i] = mask & ~covered
        covered = covered | mask
    return seen


def _box(mask: Bool[np.ndarray, "side side"]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return (0, 0, 0, 0)
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def _relations(scene: Scene, whole: Masks) -> Iterator[Relation]:
    for i, one in enumerate(scene.objects):
        for j, other in enumerate(scene.objects):
            holds = {"left of": _beside(one, other), "above": _above(one, other)}
            # Objects come from front to back.
            holds["in front of"] = i < j and bool((whole[i] & whole[j]).any())
            for name, true in holds.items():
                if true:
                    yield Relation(i, name, j)
                    yield Relation(j, INVERSE[name], i)


def _beside(one: Thing, other: Thing) -> bool:
    return one.x + MARGIN < other.x


def _above(one: Thing, other: Thing) -> bool:
    return one.y + MARGIN < other.y
