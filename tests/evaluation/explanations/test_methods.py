import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.errors import UserError
from imgrec.evaluation import explanations
from imgrec.evaluation.explanations import METHODS, Explainer, explain, methods_for

CONVOLUTIONAL = tuple(name for name in METHODS if name != "rollout")


def created(name, **fields):
    return models.create(ModelConfig(name, ConfigDict()), 5).clone(**fields)


@pytest.fixture(scope="module")
def lenet(subject_of):
    module = created("lenet5", activation="relu", pool="max", connections="full", head="linear")
    return subject_of(module, (28, 28, 1))


@pytest.fixture(scope="module")
def vit(subject_of):
    return subject_of(created("vit_ti4", width=12, depth=2, num_heads=3), (12, 8, 3))


@pytest.fixture(scope="module")
def explained(lenet, noise):
    return explain(lenet, noise(5, (28, 28, 1)), np.arange(5))


def test_a_network_has_every_method_or_a_reason_why_not(lenet, vit, subject_of):
    mixer = subject_of(created("mixer_s4", width=8, depth=1), (8, 8, 3))
    for subject, expected in (
        (lenet, CONVOLUTIONAL),
        (vit, tuple(METHODS)),
        (mixer, CONVOLUTIONAL),
    ):
        names, reasons = methods_for(subject)
        assert names == expected
        assert set(names) | set(reasons) == set(METHODS)
        assert not set(names) & set(reasons)
        assert all(reason.startswith("it") for reason in reasons.values())


def test_maps_are_as_large_as_the_images_and_on_one_scale(explained):
    assert tuple(explained.maps) == CONVOLUTIONAL
    for name, maps in explained.maps.items():
        assert maps.shape == (5, 28, 28)
        assert maps.dtype == np.float32
        lowest = -1 if METHODS[name].signed else 0
        assert lowest <= maps.min() <= maps.max() <= 1
        largest = np.abs(maps).max(axis=(1, 2))
        np.testing.assert_allclose(largest, explained.scales[name] > 0)
    signed = [name for name in explained.maps if (explained.maps[name] < 0).any()]
    assert signed == [name for name in explained.maps if METHODS[name].signed]


def test_batches_change_nothing(lenet, noise, explained):
    few = Explainer(lenet, batch_size=2)(noise(5, (28, 28, 1)), np.arange(5))
    for name, maps in explained.maps.items():
        np.testing.assert_allclose(few.maps[name], maps, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(few.scales[name], explained.scales[name], rtol=1e-3)
    for name, errors in explained.completeness.items():
        assert few.completeness[name].shape == errors.shape == (5,)


def test_a_class_is_explained_and_not_the_image_alone(lenet, noise, explained):
    images = noise(5, (28, 28, 1))
    other = explain(lenet, images, (np.arange(5) + 1) % 5, ["grad_cam", "occlusion"])
    for name in ("grad_cam", "occlusion"):
        assert np.abs(other.maps[name] - explained.maps[name]).max(axis=(1, 2)).min() > 0.1


def test_attention_reaches_every_method_of_a_transformer(vit, noise):
    found = explain(vit, noise(5, (12, 8, 3)), np.arange(5))
    assert tuple(found.maps) == tuple(METHODS)
    assert not found.left_out
    assert "tell each other" in found.notes[0]
    assert all(maps.any() for maps in found.maps.values())


def test_only_what_was_asked_for_is_computed(lenet, noise):
    found = explain(lenet, noise(1, (28, 28, 1)), np.array([1]), ["rollout", "hires_cam"])
    assert tuple(found.maps) == ("hires_cam",)
    assert found.left_out == {"rollout": "it has no attention among places"}
    assert found.completeness == {}


def test_variables_on_eight_devices_explain_the_same(lenet, noise, explained):
    mesh = Mesh(np.array(jax.devices()), ("data",))
    placed = jax.device_put(lenet.variables, NamedSharding(mesh, PartitionSpec()))
    names = [name for name in CONVOLUTIONAL if name != "integrated_gradients_black"]
    found = explain(
        dataclasses.replace(lenet, variables=placed), noise(5, (28, 28, 1)), np.arange(5), names
    )
    for name in names:
        np.testing.assert_allclose(found.maps[name], explained.maps[name], atol=1e-3)


def test_an_explainer_compiles_once(lenet, noise):
    traced = []
    module = lenet.module

    class Counted(type(module)):
        def __call__(self, images, *, train=False):
            traced.append(images.shape)
            return super().__call__(images, train=train)

    fields = {f.name: getattr(module, f.name) for f in dataclasses.fields(module) if f.init}
    counted = Counted(**{n: v for n, v in fields.items() if n not in ("parent", "name")})
    explainer = Explainer(dataclasses.replace(lenet, module=counted))
    explainer(noise(4, (28, 28, 1)), np.zeros(4, int))
    once = len(traced)
    explainer(noise(4, (28, 28, 1), seed=1), np.ones(4, int))
    assert 0 < once == len(traced)


def test_other_variables_may_be_explained(lenet, noise, explained):
    explainer = Explainer(lenet, ["grad_cam"])
    turned = jax.tree.map(jnp.negative, lenet.variables)
    images = noise(5, (28, 28, 1))
    own = explainer(images, np.arange(5))
    other = explainer(images, np.arange(5), turned)
    np.testing.assert_allclose(own.maps["grad_cam"], explained.maps["grad_cam"], atol=1e-5)
    assert np.abs(own.maps["grad_cam"] - other.maps["grad_cam"]).max() > 0.1


def test_a_network_that_answers_nothing_has_maps_of_zeros(lenet, noise):
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), lenet.variables)
    explainer = Explainer(dataclasses.replace(lenet, variables=broken))
    found = explainer(noise(2, (28, 28, 1)), np.zeros(2, int))
    assert not any(maps.any() for maps in found.maps.values())
    summary = found.summary()
    assert summary["methods"]["occlusion"]["empty"] == 2
    assert summary["methods"]["integrated_gradients_mean"]["completeness_error_median"] is None


def test_the_summary_is_plain_and_says_what_was_missed(explained):
    summary = explained.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["n"] == 5
    assert tuple(summary["methods"]) == CONVOLUTIONAL
    assert summary["left_out"] == {"rollout": "it has no attention among places"}
    assert summary["notes"] == []
    integrated = summary["methods"]["integrated_gradients_black"]
    errors = explained.completeness["integrated_gradients_black"]
    assert integrated["completeness_error_median"] == np.median(errors) < 0.05
    assert integrated["complete_within_1_percent"] == np.mean(errors <= 0.01)


def test_what_cannot_be_explained_is_refused(lenet, noise):
    with pytest.raises(UserError, match="Did you mean 'grad_cam'"):
        explain(lenet, noise(1, (28, 28, 1)), np.array([0]), ["gradcam"])
    explainer = Explainer(lenet, ["grad_cam"])
    with pytest.raises(ValueError, match=r"expected \[n, 28, 28, 1\]"):
        explainer(noise(1, (28, 28, 3)), np.array([0]))
    with pytest.raises(ValueError, match="0 classes cannot be explained"):
        explainer(noise(0, (28, 28, 1)), np.zeros(0, int))
    with pytest.raises(ValueError, match="Classes from -1 to 5"):
        explainer(noise(2, (28, 28, 1)), np.array([-1, 5]))


def test_every_name_of_the_package_is_there():
    for name in explanations.__all__:
        assert getattr(explanations, name) is not None
