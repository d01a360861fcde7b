import dataclasses
import itertools

import numpy as np
import pytest

from imgrec.data.scenes import (
    Background,
    Card,
    Knobs,
    Relation,
    Scene,
    Thing,
    masks,
    scene,
    truth,
    whole_masks,
)

PLAIN = Background("plain", 0, (0.1, 0.1, 0.1), (0.3, 0.3, 0.3), 0.0, 0.2, 0.0)
CROWD = Knobs(n_objects=(2, 5), scale=(0.3, 0.45), overlap=0.5, occlusion=(0, 0.6), resolution=48)


def a_scene(*things, card=None):
    return Scene(0, 0, 20, things, 0, 0, False, PLAIN, (), card, 1.0, 0.0, 0.0, 0.0)


def square(x, y, side):
    """Its edges lie between pixels where x, y and side are whole pixels of 20."""
    return Thing("square", "red", (1.0, 0.0, 0.0), x / 20, y / 20, side / 20 / 2**0.5, 0.0)


def test_two_squares_by_hand():
    # The first covers pixels 4 to 9 both ways, the second 8 to 13 across and 4 to 9 down.
    known = truth(a_scene(square(7.0, 7.0, 6), square(11.0, 7.0, 6)))
    assert known.boxes.tolist() == [[4, 4, 10, 10], [10, 4, 14, 10]]
    assert known.whole_boxes.tolist() == [[4, 4, 10, 10], [8, 4, 14, 10]]
    assert known.visible.tolist() == [1.0, 4 / 6]
    assert known.masks[0].sum() == 36 and known.masks[1].sum() == 24
    assert set(known.relations) == {
        Relation(0, "left of", 1),
        Relation(1, "right of", 0),
        Relation(0, "in front of", 1),
        Relation(1, "behind", 0),
    }


def test_above_below_and_the_margin():
    # 1 pixel of 20 is the margin of 5%: not beside one another.
    known = truth(a_scene(square(5.0, 4.0, 4), square(6.0, 12.0, 4)))
    assert set(known.relations) == {Relation(0, "above", 1), Relation(1, "below", 0)}


def test_what_nothing_is_seen_of_has_no_box():
    known = truth(a_scene(square(10.0, 10.0, 10), square(10.0, 10.0, 4)))
    assert known.visible.tolist() == [1, 0]
    assert known.boxes[1].tolist() == [0, 0, 0, 0]
    assert known.whole_boxes[1].tolist() == [8, 8, 12, 12]


def test_the_card_hides_neighbours_too():
    # It comes from the right, from the middle at 6 to a pixel past the circle at 6 + 8 / sqrt(2).
    card = Card(0.5, 0.0, (0.5, 0.5, 0.5))
    known = truth(a_scene(square(6.0, 10.0, 8), square(13.0, 10.0, 2), card=card))
    assert known.visible.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("index", range(25))
def test_what_always_holds(index):
    shown = scene(0, index, CROWD)
    known = truth(shown)
    assert (known.masks == masks(shown)).all() and (known.whole_masks == whole_masks(shown)).all()
    assert known.masks.sum(axis=0).max() <= 1
    assert not (known.masks & ~known.whole_masks).any()
    assert known.visible == pytest.approx(
        known.masks.sum(axis=(1, 2)) / known.whole_masks.sum(axis=(1, 2))
    )
    for boxes, pixels in ((known.boxes, known.masks), (known.whole_boxes, known.whole_masks)):
        assert boxes.dtype == np.float32
        for (x0, y0, x1, y1), mask in zip(boxes.astype(int), pixels, strict=True):
            inside = mask[y0:y1, x0:x1]
            assert inside.sum() == mask.sum()
            if mask.any():
                assert inside[0].any() and inside[-1].any()
                assert inside[:, 0].any() and inside[:, -1].any()


@pytest.mark.parametrize("index", range(25))
def test_relations_by_brute_force(index):
    """From the masks of each object alone and from centres, for all pairs."""
    shown = scene(0, index, CROWD)
    alone = [whole_masks(dataclasses.replace(shown, objects=(t,)))[0] for t in shown.objects]
    expected = set()
    for i, j in itertools.permutations(range(len(shown.objects)), 2):
        one, other = shown.objects[i], shown.objects[j]
        tests = {
            "left of": other.x - one.x > 0.05,
            "right of": one.x - other.x > 0.05,
            "above": other.y - one.y > 0.05,
            "below": one.y - other.y > 0.05,
            "in front of": i < j and (alone[i] & alone[j]).any(),
            "behind": i > j and (alone[i] & alone[j]).any(),
        }
        expected |= {Relation(i, name, j) for name, holds in tests.items() if holds}
    relations = truth(shown).relations
    assert set(relations) == expected and len(relations) == len(expected)
