import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from imgrec import data
from imgrec.config import DataConfig
from imgrec.errors import UserError
from imgrec.evaluation.robustness import dose_response
from imgrec.evaluation.subject import Subject


class Constant(nn.Module):
    """Says the first class of everything."""

    classes: int

    @nn.compact
    def __call__(self, images, train):
        return jnp.zeros((len(images), self.classes)) + 0 * images.mean(axis=(1, 2, 3))[:, None]


class ByBrightness(nn.Module):
    """The first class where the image is bright enough."""

    @nn.compact
    def __call__(self, images, train):
        return jnp.stack([images.mean(axis=(1, 2, 3)), jnp.full(len(images), 0.06)], axis=1)


def config(**options):
    known = {"test": 40, "train": 20, "shapes": "circle,square", "resolution": 16, "scale": 0.5}
    return DataConfig(dataset="scenes", options=ConfigDict(known | options))


def subject(module=None, classes=("circle", "square"), channels=3):
    return Subject(
        module=module or Constant(len(classes)),
        variables={},
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        image_shape=(16, 16, channels),
        class_names=classes,
        batch_size=16,
        put=jax.device_put,
    )


def test_constant_predictions_are_as_often_right_at_every_dose():
    given = config(occlusion=(0.0, 0.3), rotation=20, angle=(-10, 10), test=10)
    found = dose_response.dose_response(subject(), given)
    labels = data.load(given).test.labels()
    rate = float(np.mean(labels == 0))
    assert found["n"] == 10
    assert found["chance"] == 0.5
    assert found["accuracy"] == pytest.approx(rate)
    assert set(found["curves"]) == set(dose_response.DOSES)
    for name, curve in found["curves"].items():
        assert curve["accuracy"] == pytest.approx([rate] * len(curve["doses"])), name
        assert curve["half_accuracy_dose"] is None
        assert curve["unit"]
    assert found["background"]["accuracy"] == pytest.approx([rate] * 5)
    assert found["background"]["trained"] == ["plain"]
    assert found["curves"]["occlusion"]["trained"] == [0.0, 0.3]
    assert found["curves"]["angle"]["trained"] == [-30.0, 30.0]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_dose_is_that_of_the_same_scenes_with_one_dial_turned():
    found = dose_response.dose_response(
        subject(ByBrightness()), config(clutter=3), factors=["light"]
    )
    curve = found["curves"]["light"]
    expected = []
    for dose in curve["doses"]:
        split = data.load(config(clutter=3, test_light=dose)).test
        batch = split.gather(np.arange(40))
        bright = batch["image"].mean(axis=(1, 2, 3)) / 255 >= 0.06
        expected.append(np.mean(np.where(bright, 0, 1) == batch["label"]))
    assert curve["accuracy"] == pytest.approx(expected)
    assert len(set(expected)) > 1
    assert "background" not in found


def test_the_test_splits_own_dials_stay():
    given = config(test_clutter=5, test_light=0.5)
    dials = {"occlusion": 0.3}
    split = dose_response.turned_split(given, dials, most=7)
    assert len(split) == 7
    columns = split.columns()
    assert set(columns["clutter"]) == {5}
    assert set(columns["light"]) == {0.5}
    assert set(columns["occlusion"]) == {0.3}
    plain = data.load(given).test
    np.testing.assert_array_equal(plain.columns()["index"][:7], columns["index"])
    np.testing.assert_array_equal(plain.columns()["x"][:7], columns["x"])


def test_what_the_other_dials_leave_no_room_for_is_left_out():
    told = []
    found = dose_response.dose_response(
        subject(),
        config(scale=0.6),
        factors=["n_objects"],
        most=3,
        progress=lambda done, total: told.append((done, total)),
    )
    curve = found["curves"]["n_objects"]
    assert curve["doses"] == [1, 2, 3]
    assert [left["dose"] for left in curve["left_out"]] == [4, 6, 8]
    assert "do not fit" in curve["left_out"][0]["reason"]
    assert told[-1] == (7, 7)


def test_held_out_classes_stay_out():
    given = config(shapes="circle,square,star")
    given.holdout_classes = ("square",)
    model = subject(classes=("circle", "star"))
    found = dose_response.dose_response(model, given, factors=["shading"])
    labels = data.load(given).test.labels()
    assert found["n"] == len(labels) < 40
    assert found["accuracy"] == pytest.approx(np.mean(labels == 0))


def test_other_data_sets_and_factors_are_refused():
    with pytest.raises(UserError, match=r"need the data set 'scenes'.*this run's is 'digits'"):
        dose_response.dose_response(subject(), DataConfig(dataset="digits"))
    with pytest.raises(UserError, match=r"Unknown factor .*'lights'.*'light'"):
        dose_response.dose_response(subject(), config(), factors=["lights"])
