"""What a configuration leaves open is as its weights were made; what it sets stays."""

import copy

import pytest

from imgrec import validation
from imgrec.config import Experiment, InitConfig, ModelConfig
from imgrec.errors import UserError
from imgrec.training import resolving


def with_weights(name="efficientnet_lite1"):
    return Experiment(model=ModelConfig(name), init=InitConfig(weights=name))


def decided(experiment):
    c, a = experiment.data, experiment.augment
    return (c.image_size, c.channels, c.crop, c.crop_fraction, c.interpolation, a.mean, a.std)


def test_without_published_weights_the_choices_are_those_of_always():
    for weights in ("", "runs/digits_lenet", "a.pth", "./efficientnet_lite0"):
        open_one = Experiment(init=InitConfig(weights=weights))
        assert decided(resolving.resolve(open_one)) == (0, 0, "none", 0.875, "bilinear", (), ())
        assert resolving.said(resolving.resolve(open_one)) == ()


def test_published_weights_decide_what_is_open():
    given = with_weights()
    before = copy.deepcopy(given)
    resolved = resolving.resolve(given)
    assert given == before
    thrice = (127 / 255,) * 3, (128 / 255,) * 3
    assert decided(resolved) == (240, 3, "center", 240 / 272, "bicubic", *thrice)
    validation.validate(resolved)
    assert resolving.resolve(resolved) == resolved
    assert resolving.said(resolved) == (
        "  prepared as these weights were: data.image_size=240, data.channels=3, data.crop=center, "
        "data.crop_fraction=0.8824, data.interpolation=bicubic, "
        "augment.mean=(0.498, 0.498, 0.498), augment.std=(0.502, 0.502, 0.502)",
    )


def test_what_is_set_stays_and_is_said():
    given = with_weights()
    given.data.image_size, given.data.interpolation = 96, "bilinear"
    given.augment.mean, given.augment.std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    resolved = resolving.resolve(given)
    set_ones = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert decided(resolved) == (96, 3, "center", 240 / 272, "bilinear", *set_ones)
    first, *others = resolving.said(resolved)
    assert first == (
        "  prepared as these weights were: data.channels=3, data.crop=center, "
        "data.crop_fraction=0.8824"
    )
    assert [
        line.split(", as configured; these weights were evaluated with ") for line in others
    ] == [
        ["  OTHER PREPROCESSING: data.image_size=96", "240"],
        ["  OTHER PREPROCESSING: data.interpolation=bilinear", "bicubic"],
        ["  OTHER PREPROCESSING: augment.mean=(0.5, 0.5, 0.5)", "(0.498, 0.498, 0.498)"],
        ["  OTHER PREPROCESSING: augment.std=(0.25, 0.25, 0.25)", "(0.502, 0.502, 0.502)"],
    ]


def test_of_crops_it_is_the_evaluated_one_that_counts():
    given = with_weights()
    given.data.crop = "inception"  # which shows the centre to evaluate
    resolved = resolving.resolve(given)
    assert resolved.data.crop == "inception" and resolved.data.crop_fraction == 240 / 272
    assert len(resolving.said(resolved)) == 1

    given.data.crop = "none"  # for which no fraction counts
    _, other = resolving.said(resolving.resolve(given))
    assert "data.crop=none, as configured; these weights were evaluated with center" in other


def test_another_model_is_refused():
    given = with_weights()
    given.model.name = "efficientnet_lite0"
    with pytest.raises(UserError, match=r"weights of the model 'efficientnet_lite1', and .*lite0'"):
        resolving.resolve(given)
