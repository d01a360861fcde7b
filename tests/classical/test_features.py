"""Recipes of features: checked names and options, several together, vocabularies, processes."""

import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict

from imgrec import data
from imgrec.classical import descriptors, features, words
from imgrec.config import DataConfig, FeaturesConfig
from imgrec.errors import UserError


@pytest.fixture(scope="module")
def split():
    return data.load(DataConfig(dataset="digits", validation="0")).test


def configured(name, **options):
    return FeaturesConfig(name=name, options=ConfigDict(options))


def silent(*told):
    return None


@pytest.mark.parametrize("name", [n for n in features.NAMES if n != "words"])
def test_a_whole_split_is_its_images_one_by_one(name, split):
    options = {"cell": 2} if name == "hog" else {"cells": 2} if name != "pixels" else {}
    recipe = features.recipe(configured(name, **options))
    rows = features.describe_split(recipe, split, silent)
    assert rows.shape == (len(split), features.dimensions(recipe, split[0]["image"]))
    assert np.isfinite(rows).all() and np.ptp(rows) > 0
    for i in (0, 258, len(split) - 1):
        np.testing.assert_array_equal(
            rows[i], features.describe(recipe, split[i]["image"][None])[0]
        )


def test_several_stand_side_by_side_and_share_options(split):
    recipe = features.recipe(configured("edges+colour", cells=2, bins=4))
    images = split.gather(np.arange(5))["image"]
    expected = [
        descriptors.edges(images, cells=2),
        descriptors.colour(images, cells=2, bins=4),
    ]
    np.testing.assert_array_equal(features.describe(recipe, images), np.hstack(expected))


def test_deskewing_comes_first(split):
    recipe = features.recipe(FeaturesConfig(name="pixels", deskew=True))
    images = split.gather(np.arange(5))["image"]
    expected = descriptors.pixels(descriptors.deskewed(images))
    np.testing.assert_array_equal(features.describe(recipe, images), expected)


@pytest.mark.parametrize("detector", words.DETECTORS)
def test_words(detector, split):
    split = dataclasses.replace(split, rows=split.rows[:60])
    recipe = features.recipe(configured("words", words=8, detector=detector, corners=20))
    assert features.dimensions(recipe, split[0]["image"]) == 8
    learnt = features.learnt(recipe, split, 0)
    again = features.learnt(recipe, split, 0)
    means = learnt.vocabularies["words"]["means"]
    np.testing.assert_array_equal(means, again.vocabularies["words"]["means"])
    assert means.shape == (8, 256)
    rows = features.describe(learnt, split.gather(np.arange(20))["image"])
    squares = (rows**2).sum(1)  # shares sum to 1, or there is no corner
    np.testing.assert_allclose(squares[squares > 0], 1, rtol=1e-5)
    assert (squares > 0).mean() > 0.5
    blank = features.describe(learnt, np.zeros((1, 8, 8, 1), np.uint8))
    assert not blank.any()


def test_the_nearest_word_is_counted(monkeypatch):
    bits = np.zeros((3, 256), np.float32)
    bits[2] = 1
    monkeypatch.setattr(words, "_described", lambda *given: [bits])
    means = np.stack([np.full(256, 0.9), np.full(256, 0.2)]).astype(np.float32)
    row = words.words(np.zeros((1, 8, 8, 1), np.uint8), {"means": means}, words=2)
    np.testing.assert_allclose(row, np.sqrt([[1 / 3, 2 / 3]]), rtol=1e-6)


def test_images_without_enough_corners(split):
    recipe = features.recipe(configured("words", words=60_000))
    with pytest.raises(UserError, match=r"words=60000: the 359 training images have"):
        features.learnt(recipe, split, 0)


def test_processes_change_nothing(split):
    recipe = features.recipe(configured("lbp", cells=2))
    told = []
    alone = features.describe_split(recipe, split, silent)
    spread = features.describe_split(recipe, split, lambda *t: told.append(t), processes=2)
    np.testing.assert_array_equal(alone, spread)
    assert told == [("features of test", 256, 359), ("features of test", 359, 359)]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (configured("hgo"), "Unknown features 'hgo'. Did you mean 'hog'?"),
        (configured("hog+netwrok"), "Unknown features 'netwrok'"),
        (configured("netwrok"), "Did you mean 'network'?"),
        (configured("hog+hog"), "names features twice"),
        (configured("hog", cel=4), "Unknown option of features 'hog' 'cel'. Did you mean 'cell'?"),
        (configured("hog", cell="4"), "has the type str; expected int"),
        (configured("hog", cell=0), "options.cell=0 is impossible"),
        (configured("gabor", wavelengths=()), "wavelengths=\\(\\) is impossible"),
    ],
)
def test_refuses(config, message):
    with pytest.raises(UserError, match=message):
        features.recipe(config)


def test_an_unknown_detector(split):
    with pytest.raises(UserError, match="detector='sift' is none of harris, orb"):
        features.learnt(features.recipe(configured("words", detector="sift")), split, 0)
