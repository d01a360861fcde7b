"""Sentences are read back and judged by a second reader, which knows nothing of the grammar."""

import collections
import dataclasses
import re

import numpy as np
import pytest

from imgrec.data.scenes import (
    COLOURS,
    SHAPES,
    Knobs,
    Question,
    captions,
    masks,
    questions,
    render,
    scene,
    truth,
    whole_masks,
)
from imgrec.data.scenes.language import BACKGROUNDS, KINDS, NUMBERS

CROWD = Knobs(n_objects=(1, 5), scale=(0.3, 0.45), overlap=0.4, occlusion=(0, 0.6), resolution=40)
SCENES = [scene(0, index, CROWD) for index in range(150)]
SINGULAR = {("crosses" if s == "cross" else f"{s}s"): s for s in SHAPES} | {s: s for s in SHAPES}


class Reader:
    """Judges sentences by the objects of which the masks show a pixel."""

    def __init__(self, shown):
        seen = masks(shown).any(axis=(1, 2))
        self.whole = whole_masks(shown)
        self.things = [(i, t) for i, t in enumerate(shown.objects) if seen[i]]
        self.background = shown.background.kind

    def those(self, text):
        """Objects that "red circles", "red objects" or "star" may mean."""
        *colour, kind = text.split()
        shape = SINGULAR.get(kind)
        assert shape or kind in ("object", "objects"), text
        return [
            (i, t)
            for i, t in self.things
            if (shape is None or t.shape == shape) and (not colour or t.colour == colour[0])
        ]

    def the(self, text):
        (found,) = self.those(text)  # "the" promises that there is exactly one
        return found

    def related(self, first, name, second):
        (i, one), (j, other) = self.the(first), self.the(second)
        return {
            "left of": one.x < other.x - 0.05,
            "right of": one.x > other.x + 0.05,
            "above": one.y < other.y - 0.05,
            "below": one.y > other.y + 0.05,
            "in front of": i < j and bool((self.whole[i] & self.whole[j]).any()),
            "behind": i > j and bool((self.whole[i] & self.whole[j]).any()),
        }[name]

    def answer(self, text):
        if match := re.fullmatch(r"Is there an? (\w+ \w+)\?", text):
            return self.yes(self.those(match[1]))
        if match := re.fullmatch(r"How many ([\w ]+) are there\?", text):
            return str(len(self.those(match[1])))
        if match := re.fullmatch(r"What colour is the (\w+)\?", text):
            return self.the(match[1])[1].colour
        if match := re.fullmatch(r"What shape is the (\w+ object)\?", text):
            return self.the(match[1])[1].shape
        if match := re.fullmatch(r"Are there more (\w+) than (\w+)\?", text):
            return self.yes(len(self.those(match[1])) > len(self.those(match[2])))
        match = re.fullmatch(rf"Is the (\w+ \w+) ({RELATIONS}) the (\w+ \w+)\?", text)
        return self.yes(self.related(*match.groups()))

    @staticmethod
    def yes(holds):
        return "yes" if holds else "no"


RELATIONS = "left of|right of|above|below|in front of|behind"


def parts(text):
    return re.split(r", | and ", text)


def test_answers_are_right():
    asked = collections.Counter()
    for shown in SCENES:
        reader = Reader(shown)
        for question in questions(shown):
            assert reader.answer(question.text) == question.answer, (shown, question)
            asked[question.kind] += 1
    assert asked.keys() == KINDS.keys() and min(asked.values()) > 50, asked


def test_captions_are_true():
    kinds = collections.Counter()
    for shown in SCENES:
        reader = Reader(shown)
        listed, on_background, counted, *related = captions(shown)
        named = [re.fullmatch(r"an? (\w+) (\w+)", part).groups() for part in parts(listed)]
        by_size = sorted((t for _, t in reader.things), key=lambda t: -t.radius)
        assert named == [(t.colour, t.shape) for t in by_size]
        assert on_background == f"{listed} on {BACKGROUNDS[reader.background]}"
        counts = {SINGULAR[part.split()[1]]: part.split()[0] for part in parts(counted)}
        expected = collections.Counter(t.shape for _, t in reader.things)
        assert counts == {shape: NUMBERS[n] for shape, n in expected.items()}
        for sentence in related:
            match = re.fullmatch(rf"an? (\w+ \w+) ({RELATIONS}) an? (\w+ \w+)", sentence)
            assert reader.related(*match.groups())
            kinds[match[2]] += 1
        pairs = collections.Counter(f"{t.colour} {t.shape}" for _, t in reader.things)
        alone = [name for name, n in pairs.items() if n == 1]
        assert len(set(related)) == len(related) and len(related) == sum(
            reader.related(one, name, other)
            for one in alone
            for other in alone
            if one != other
            for name in RELATIONS.split("|")
        )
    assert kinds.keys() == set(RELATIONS.split("|"))


def test_one_object_by_hand():
    shown = scene(
        0,
        0,
        Knobs(
            shapes=("crescent", "star"),
            held_out_combinations=tuple(
                f"{colour} {shape}"
                for colour in COLOURS
                for shape in ("crescent", "star")
                if colour != "orange"
            ),
        ),
    )
    shape = shown.objects[0].shape
    assert captions(shown) == (
        f"an orange {shape}",
        f"an orange {shape} on a plain background",
        f"one {shape}",
    )
    asked = {question.kind: question for question in questions(shown)}
    assert asked["colour"] == Question("colour", f"What colour is the {shape}?", "orange")
    assert asked["shape"] == Question("shape", "What shape is the orange object?", shape)
    assert "relate" not in asked


def test_nothing_is_said_of_what_is_not_seen():
    shown = SCENES[0]
    small = dataclasses.replace(shown.objects[0], radius=0.05, shape="heart", colour="white")
    large = dataclasses.replace(shown.objects[0], shape="square", radius=0.3, colour="red")
    hidden = dataclasses.replace(shown, objects=(large, small), card=None)
    assert truth(hidden).visible[1] == 0
    assert captions(hidden)[0] == "a red square" and len(captions(hidden)) == 3


def test_truth_at_hand_saves_work_and_changes_nothing():
    for shown in SCENES[:10]:
        known = truth(shown)
        assert captions(shown, known) == captions(shown)
        assert questions(shown, known) == questions(shown)


def test_language_depends_on_what_is_seen_alone():
    """Neither light nor noise; and asking leaves the picture as it was."""
    for shown in SCENES[:20]:
        before = render(shown)
        other = dataclasses.replace(shown, light=0.4, pixel_noise=60.0, clutter=())
        assert captions(other) == captions(shown) and questions(other) == questions(shown)
        assert (render(shown) == before).all()


@pytest.mark.parametrize("kind", ["exist", "compare", "relate"])
def test_yes_and_no_are_a_fair_coin(kind):
    answers = [q.answer for shown in SCENES for q in questions(shown) if q.kind == kind]
    assert set(answers) == {"yes", "no"}
    yes, n = answers.count("yes"), len(answers)
    assert abs(yes - n / 2) < 4 * np.sqrt(n / 4)


def test_counts_are_not_guessed_by_the_words():
    counts = [
        q.answer
        for shown in SCENES
        for q in questions(shown)
        if q.kind == "count" and q.text != "How many objects are there?"
    ]
    assert 0.25 < counts.count("0") / len(counts) < 0.5
    assert {"0", "1", "2"} <= set(counts)


def test_the_words_of_a_relation_do_not_tell_its_answer():
    counts = collections.Counter()
    for index in range(150, 400):
        for question in questions(scene(0, index, CROWD)):
            if question.kind == "relate":
                counts[re.search(RELATIONS, question.text)[0], question.answer] += 1
    for name in ("left of", "right of", "above", "below"):
        yes, no = counts[name, "yes"], counts[name, "no"]
        assert abs(yes - no) < 4 * np.sqrt(yes + no)


def test_there_is_a_number_for_every_count_and_a_phrase_for_every_background():
    from imgrec.data.scenes import knobs

    assert len(NUMBERS) == 16 + 1
    assert tuple(BACKGROUNDS) == knobs.BACKGROUNDS
