import dataclasses
import functools
import itertools
import math

import numpy as np
import pytest

from imgrec.data.scenes import COLOURS, SHAPES, Knobs, scene

EASY = Knobs()
CROWD = Knobs(n_objects=(2, 6), scale=(0.25, 0.4))

# (dial, value, fields of a scene that it may change)
DIALS = [
    ({"n_objects": (1, 2)}, {"objects"}),
    ({"scale": 0.3}, {"objects"}),
    ({"position": 0.0}, {"objects"}),
    ({"angle": 30.0}, {"objects"}),
    ({"rotation": 10.0}, {"objects"}),
    ({"occlusion": 0.4}, {"card"}),
    ({"background": ("stripes", "checker", "blobs", "gradient")}, {"background"}),
    ({"clutter": (3, 9)}, {"clutter"}),
    ({"light": 0.5}, {"light"}),
    ({"shading": 0.5}, {"shading"}),
    ({"pixel_noise": 0.0}, {"pixel_noise"}),
    ({"resolution": 64}, {"resolution"}),
    ({"imbalance": 20.0}, {"objects", "label", "clean_label"}),
    ({"cue": 0.8}, {"background"}),
    ({"label_noise": 0.4}, {"label"}),
    ({"held_out_combinations": ("red star", "blue ring")}, {"objects"}),
]


@functools.cache
def scenes(knobs, n=200):
    return [scene(0, index, knobs) for index in range(n)]


def test_a_scene_is_a_pure_function_of_seed_index_and_knobs():
    first = scene(0, 5, CROWD)
    scene(0, 6, CROWD)
    assert first == scene(0, 5, dataclasses.replace(CROWD))
    assert first.objects != scene(0, 6, CROWD).objects
    assert first.objects != scene(1, 5, CROWD).objects
    assert scene(2**63, 2**64 - 1, CROWD) == scene(2**63, 2**64 - 1, CROWD)


@pytest.mark.parametrize(("turned", "may_change"), DIALS, ids=lambda value: ",".join(sorted(value)))
def test_a_dial_changes_its_own_factor_alone(turned, may_change):
    before, after = scenes(EASY), scenes(dataclasses.replace(EASY, **turned))
    changed = {
        f.name
        for f in dataclasses.fields(before[0])
        if any(getattr(b, f.name) != getattr(a, f.name) for b, a in zip(before, after, strict=True))
    }
    assert changed == may_change


@pytest.mark.parametrize(
    ("turned", "may_change"),
    [
        ({"scale": (0.2, 0.3)}, {"radius", "x", "y"}),
        ({"position": 0.5}, {"x", "y"}),
        ({"angle": 30.0}, {"angle"}),
        ({"rotation": 10.0}, {"angle"}),
        ({"held_out_combinations": ("red star", "blue ring")}, {"colour", "rgb"}),
        ({"imbalance": 20.0}, {"shape"}),
    ],
    ids=lambda value: ",".join(sorted(value)),
)
def test_a_dial_of_objects_changes_its_own_attribute_alone(turned, may_change):
    before, after = scenes(EASY), scenes(dataclasses.replace(EASY, **turned))
    pairs = [(b.objects[0], a.objects[0]) for b, a in zip(before, after, strict=True)]
    changed = {
        f.name
        for f in dataclasses.fields(pairs[0][0])
        if any(getattr(b, f.name) != getattr(a, f.name) for b, a in pairs)
    }
    assert changed == may_change


def test_more_objects_and_clutter_join_those_that_were_there():
    for few, many in zip(
        scenes(Knobs(n_objects=2, scale=0.4, clutter=3), 50),
        scenes(Knobs(n_objects=5, scale=0.4, clutter=7), 50),
        strict=True,
    ):
        assert (len(few.objects), len(many.objects)) == (2, 5)
        assert many.objects[:2] == few.objects
        assert (len(few.clutter), len(many.clutter)) == (3, 7)
        assert many.clutter[:3] == few.clutter


@pytest.mark.parametrize(
    "knobs",
    [
        CROWD,
        Knobs(n_objects=2, scale=0.71),
        Knobs(n_objects=9, scale=0.4),
        Knobs(n_objects=16, scale=0.31),
        Knobs(n_objects=4, scale=0.4, overlap=0.5),
    ],
)
def test_objects_lie_within_the_image_and_keep_their_distance(knobs):
    for shown in scenes(knobs, 100):
        target = shown.objects[0]
        for i, one in enumerate(shown.objects):
            assert one.radius - 1e-9 <= min(one.x, one.y)
            assert max(one.x, one.y) <= 1 - one.radius + 1e-9
            assert i == 0 or 0.25 * target.radius <= one.radius <= 0.85 * target.radius
            for other in shown.objects[:i]:
                apart = math.hypot(one.x - other.x, one.y - other.y)
                assert apart >= (1 - knobs.overlap) * (one.radius + other.radius) - 1e-9


def test_overlap_is_used():
    """Of pairs in a crowd, some come nearer than touching, and none where none may."""

    def touching(knobs):
        return sum(
            math.dist((a.x, a.y), (b.x, b.y)) < a.radius + b.radius
            for shown in scenes(knobs, 50)
            for a, b in itertools.combinations(shown.objects, 2)
        )

    crowd = Knobs(n_objects=5, scale=0.4)
    assert touching(crowd) == 0
    assert touching(dataclasses.replace(crowd, overlap=0.2)) < touching(
        dataclasses.replace(crowd, overlap=0.5)
    )


def test_ranges_are_kept_and_used_to_their_ends():
    knobs = Knobs(
        n_objects=(1, 3),
        scale=(0.3, 0.5),
        angle=(20, 40),
        rotation=10,
        occlusion=(0.1, 0.3),
        light=(0.5, 0.7),
        shading=(0.2, 0.4),
        clutter=(2, 4),
    )
    shown = scenes(knobs, 400)
    measured = {
        "n_objects": ([len(s.objects) for s in shown], 1, 3),
        "scale": ([2 * s.objects[0].radius for s in shown], 0.3, 0.5),
        "angle": ([thing.angle for s in shown for thing in s.objects], 10, 50),
        "occlusion": ([s.card.share for s in shown], 0.1, 0.3),
        "light": ([s.light for s in shown], 0.5, 0.7),
        "shading": ([s.shading for s in shown], 0.2, 0.4),
        "clutter": ([len(s.clutter) for s in shown], 2, 4),
    }
    for name, (values, low, high) in measured.items():
        assert low <= min(values) <= low + 0.08 * (high - low), name
        assert high - 0.08 * (high - low) <= max(values) <= high, name
    for name in ("n_objects", "clutter"):
        counts = np.bincount(measured[name][0])[-3:]
        assert abs(counts - 400 / 3).max() < 4 * math.sqrt(400 * 2 / 9), name


def test_position_is_the_share_of_the_free_way():
    assert all(
        (s.objects[0].x, s.objects[0].y) == (0.5, 0.5) for s in scenes(Knobs(position=0), 20)
    )
    for half, whole in zip(scenes(Knobs(position=0.5)), scenes(EASY), strict=True):
        assert half.objects[0].x - 0.5 == pytest.approx((whole.objects[0].x - 0.5) / 2)


def counts_within(counts, n, shares, sigmas=4):
    """Multinomial counts: each within some standard deviations of its share of n."""
    shares = np.asarray(shares)
    return (abs(counts - n * shares) <= sigmas * np.sqrt(n * shares * (1 - shares))).all()


def test_classes_colours_and_tints_are_equally_likely():
    shown = scenes(EASY, 1000)
    for values in (
        [s.label for s in shown],
        [list(COLOURS).index(s.objects[0].colour) for s in shown],
        [s.background.tint for s in shown],
    ):
        assert counts_within(np.bincount(values), 1000, [1 / 8] * 8)
    assert all(EASY.classes[s.label] == s.objects[0].shape and not s.held_out for s in shown)


def test_imbalance_is_the_exponential_profile():
    # Cui et al. 2019: n_c = n_max * ratio ** (-c / (C - 1)).
    shares = 100.0 ** (-np.arange(8) / 7)
    shares /= shares.sum()
    counts = np.bincount([s.label for s in scenes(Knobs(imbalance=100), 1000)], minlength=8)
    assert counts_within(counts, 1000, shares)
    two = scenes(Knobs(imbalance=9, shapes=("star", "ring")), 500)
    assert counts_within(np.bincount([s.label for s in two]), 500, [0.9, 0.1])
    permuted = np.bincount(
        [s.label for s in scenes(Knobs(imbalance=100, imbalance_seed=1), 1000)], minlength=8
    )
    assert sorted(permuted.argsort()) == list(range(8)) and not counts_within(
        permuted, 1000, shares
    )
    assert counts_within(np.sort(permuted)[::-1], 1000, shares)


@pytest.mark.parametrize("cue", [0.0, 0.5, 0.9, 1.0])
def test_the_cue_agrees_as_often_as_its_correlation_says(cue):
    shown = scenes(Knobs(cue=cue), 1000)
    agree = np.array([s.cue_agrees for s in shown])
    assert (agree == [s.background.tint == s.clean_label for s in shown]).all()
    assert counts_within(agree.sum(), 1000, cue + (1 - cue) / 8)


def test_the_cue_follows_the_true_class_not_the_noisy_label():
    shown = scenes(Knobs(cue=1.0, label_noise=0.5), 100)
    assert all(s.background.tint == s.clean_label for s in shown)
    assert any(s.background.tint != s.label for s in shown)


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_label_noise(rate):
    clean = [s.label for s in scenes(EASY, 1000)]
    shown = scenes(Knobs(label_noise=rate), 1000)
    assert [s.clean_label for s in shown] == clean
    steps = np.array([(s.label - s.clean_label) % 8 for s in shown])
    assert counts_within(np.bincount(steps), 1000, [1 - rate] + [rate / 7] * 7)
    following = scenes(Knobs(label_noise=rate, label_noise_kind="next"), 1000)
    steps_of_next = np.array([(s.label - s.clean_label) % 8 for s in following])
    assert (steps_of_next == (steps > 0)).all()


def test_more_label_noise_keeps_the_wrong_labels_of_less():
    some, more = (scenes(Knobs(label_noise=rate), 500) for rate in (0.1, 0.3))
    for one, other in zip(some, more, strict=True):
        assert one.label == one.clean_label or other.label == one.label


def test_held_out_shapes_are_nowhere_in_training_and_classes_of_their_own_in_test():
    knobs = Knobs(n_objects=3, scale=0.4, held_out_shapes=("ring", "circle"), label_noise=0.3)
    assert knobs.classes[-2:] == ("circle", "ring")
    for shown in scenes(knobs):
        assert not {"circle", "ring"} & {thing.shape for thing in shown.objects}
        assert shown.label < 6 and shown.clean_label < 6 and not shown.held_out
    for novelty, classes in (("mixed", set(range(8))), ("only", {6, 7})):
        test = scenes(dataclasses.replace(knobs, novelty=novelty, label_noise=0))
        assert {shown.label for shown in test} == classes
        for shown in test:
            assert shown.held_out == (shown.label >= 6)
            assert knobs.classes[shown.label] == shown.objects[0].shape


def test_held_out_combinations_are_nowhere_in_training_and_flagged_in_test():
    pairs = ("red circle", "blue circle", "white star")
    knobs = Knobs(n_objects=3, scale=0.4, held_out_combinations=pairs)

    def named(thing):
        return f"{thing.colour} {thing.shape}"

    shown = scenes(knobs, 400)
    seen = {named(thing) for s in shown for thing in s.objects}
    assert not seen & set(pairs) and not any(s.held_out for s in shown)
    assert len(seen) == len(SHAPES) * len(COLOURS) - 3
    mixed = scenes(dataclasses.replace(knobs, novelty="mixed"), 400)
    assert all(s.held_out == (named(s.objects[0]) in pairs) for s in mixed)
    assert 0 < sum(s.held_out for s in mixed) < 60
    only = scenes(dataclasses.replace(knobs, novelty="only"), 100)
    assert {named(s.objects[0]) for s in only} == set(pairs) and all(s.held_out for s in only)


def test_holding_combinations_out_leaves_other_shapes_as_they_were():
    held = scenes(Knobs(held_out_combinations=("red circle",)))
    for before, after in zip(scenes(EASY), held, strict=True):
        assert before == after or before.objects[0].shape == "circle"
