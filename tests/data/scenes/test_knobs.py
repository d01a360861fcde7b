import dataclasses
import re

import pytest
from ml_collections import ConfigDict

from imgrec.data.scenes import COLOURS, Knobs, parse
from imgrec.data.scenes.knobs import SHARED, TRAIN_ONLY, between
from imgrec.errors import UserError

NAMES = [f.name for f in dataclasses.fields(Knobs)]

# Every dial turned away from its default, to a value that goes with all the others.
TURNED = {
    "shapes": ("star", "heart", "ring", "circle"),
    "held_out_shapes": ("heart",),
    "held_out_combinations": ("red star", "blue ring"),
    "novelty": "only",
    "n_objects": (1, 3),
    "scale": (0.3, 0.4),
    "position": 0.5,
    "angle": (10.0, 20.0),
    "rotation": 15.0,
    "occlusion": (0.2, 0.4),
    "overlap": 0.25,
    "background": ("stripes", "blobs"),
    "clutter": (2, 5),
    "light": (0.4, 0.9),
    "shading": (0.1, 0.6),
    "pixel_noise": 4.0,
    "resolution": 48,
    "imbalance": 10.0,
    "imbalance_seed": 3,
    "cue": 0.9,
    "label_noise": 0.2,
    "label_noise_kind": "next",
}


def test_every_dial_is_turned_here():
    assert sorted(TURNED) == sorted(NAMES)
    assert all(getattr(Knobs(), name) != value for name, value in TURNED.items())


def test_every_dial_is_an_option_and_turns_both_splits():
    options = parse(ConfigDict(TURNED))
    assert dataclasses.asdict(options.train) == TURNED
    test = dataclasses.asdict(options.test)
    for name in NAMES:
        if name in TRAIN_ONLY:
            assert test[name] == getattr(Knobs(), name)
        elif name != "novelty":
            assert test[name] == TURNED[name], name


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SHARED])
def test_every_dial_but_the_shared_has_one_of_its_own_for_test(name):
    both = {"held_out_shapes": "heart", "held_out_combinations": ("red star", "blue ring")}
    options = parse({**both, f"test_{name}": TURNED[name]})
    assert getattr(options.test, name) == TURNED[name]
    assert options.train == Knobs(
        held_out_shapes=("heart",), held_out_combinations=both["held_out_combinations"]
    )


def test_a_test_dial_wins_over_the_common_one():
    options = parse({"test_occlusion": 0.6, "occlusion": 0.2})
    assert (options.train.occlusion, options.test.occlusion) == ((0.2, 0.2), (0.6, 0.6))


def test_defaults():
    options = parse(ConfigDict())
    assert options.train == options.test == Knobs()
    assert (options.seed, options.train_size, options.test_size) == (0, 2000, 500)
    options = parse({"seed": 4, "train": 10, "test": 20})
    assert (options.seed, options.train_size, options.test_size) == (4, 10, 20)


def test_the_test_split_shows_what_is_held_out_unless_told_otherwise():
    assert parse({"held_out_shapes": "star"}).test.novelty == "mixed"
    assert parse({"held_out_combinations": "red star"}).test.novelty == "mixed"
    assert parse({"held_out_shapes": "star", "novelty": "none"}).test.novelty == "mixed"
    assert parse({"held_out_shapes": "star", "test_novelty": "none"}).test.novelty == "none"
    assert parse({"held_out_shapes": "star"}).train.novelty == "none"


def test_held_out_classes_come_last():
    knobs = Knobs(shapes=("star", "circle", "ring"), held_out_shapes=("star",))
    assert knobs.known == ("circle", "ring")
    assert knobs.classes == ("circle", "ring", "star")


def test_a_number_is_a_range_of_one_and_text_is_a_list():
    assert Knobs(light=1) == Knobs(light=(1, 1.0)) == parse({"light": [1.0, 1]}).train == Knobs()
    assert isinstance(Knobs(light=1).light[0], float) and isinstance(Knobs(cue=1).cue, float)
    assert Knobs(n_objects=2, scale=0.3).n_objects == (2, 2)
    assert parse({"background": "stripes, blobs"}).train.background == ("stripes", "blobs")
    assert parse({"shapes": ["star", "ring"]}).train.shapes == ("star", "ring")
    assert parse({"held_out_shapes": ""}).train.held_out_shapes == ()


def test_between():
    assert [between((2.0, 4.0), u) for u in (0.0, 0.25, 0.5)] == [2.0, 2.5, 3.0]
    assert between(3.0, 0.7) == 3.0


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("oclusion", 0.5, "Unknown option of data set 'scenes' 'oclusion'. Did you mean 'occl"),
        ("test_lihgt", 0.5, "Unknown option of data set 'scenes' 'test_lihgt'. Did you mean "),
        ("occlusion", "half", "occlusion='half' has the type str; expected a number between 0"),
        ("occlusion", True, "occlusion=True has the type bool; expected a number"),
        ("occlusion", 1.5, "occlusion=1.5 is impossible; it must be between 0 and 0.95."),
        ("test_occlusion", -0.1, "config.data.options.test_occlusion=-0.1 is impossible"),
        ("occlusion", float("nan"), "occlusion=nan is impossible"),
        ("occlusion", (0.1, 0.2, 0.3), "has 3 values; expected one number, or the least and"),
        ("occlusion", (0.5, 0.2), "the least comes first, as in (0.2, 0.5)."),
        ("occlusion", (0.5, "x"), "occlusion='x' has the type str"),
        ("n_objects", 1.5, "n_objects=1.5 has the type float; expected a whole number between"),
        ("n_objects", 0, "n_objects=0 is impossible; it must be between 1 and 16."),
        ("resolution", 32.0, "resolution=32.0 has the type float; expected a whole number"),
        ("resolution", 4, "resolution=4 is impossible"),
        ("train", 0, "train=0 is impossible; it must be between 1"),
        ("test", 1.5, "test=1.5 has the type float; expected a whole number"),
        ("seed", -1, "seed=-1 is impossible"),
        ("imbalance", 0.5, "imbalance=0.5 is impossible; it must be between 1 and 1e+06."),
        ("shapes", "circle,start", "of config.data.options.shapes 'start'. Did you mean 'star'"),
        ("shapes", "circle", "leaves 1 classes to train on; at least 2"),
        ("shapes", "circle,circle", "must name at least one thing and none twice"),
        ("shapes", 3, "shapes=3 has the type int; expected names, as in 'circle,square'."),
        ("background", "", "must name at least one thing"),
        ("novelty", 1, "novelty=1 has the type int; expected a name, as in 'none'."),
        ("novelty", "all", "Unknown value of config.data.options.novelty 'all'"),
        ("novelty", "only", "nothing is held out"),
        ("label_noise_kind", "pair", "Known: next, symmetric"),
        ("held_out_combinations", "red disc", "'red disc'. Did you mean 'red"),
        ("test_shapes", "circle,star", "train and test have the same shapes. Set --config.data"),
        ("test_resolution", 64, "train and test have the same resolution"),
        ("test_train", 5, "Unknown option"),
        ("scale", 0.1, "scale=0.1 of resolution=32 are 3.2 pixels, and a shape needs 4; write at"),
        ("resolution", 8, "at least --config.data.options.scale=0.5."),
        ("n_objects", 9, "9 objects do not fit beside each other at scale=0.625; for so many"),
    ],
)
def test_what_cannot_be_is_refused(option, value, message):
    with pytest.raises(UserError, match=re.escape(message)):
        parse({option: value})


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        (
            {"shapes": ("circle", "star"), "held_out_shapes": ("heart",)},
            "names 'heart', which is not among",
        ),
        (
            {"held_out_shapes": ("heart",), "held_out_combinations": ("red heart",)},
            "names 'red heart', but no heart is ever trained on",
        ),
        (
            {"held_out_combinations": tuple(f"{colour} star" for colour in COLOURS)},
            "takes every colour of 'star' away",
        ),
    ],
)
def test_dials_that_contradict_each_other(knobs, message):
    with pytest.raises(UserError, match=re.escape(message)):
        Knobs(**knobs)


def test_the_scale_that_is_offered_for_many_objects_fits():
    with pytest.raises(UserError) as refusal:
        Knobs(n_objects=9)
    offered = float(re.search(r"scale=([\d.]+)\.$", str(refusal.value))[1])
    assert Knobs(n_objects=9, scale=offered).scale == (offered, offered)
