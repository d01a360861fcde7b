import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import linen as nn

from imgrec.data import ArraySource, Shifted, Split
from imgrec.data.shifted import Part
from imgrec.errors import UserError
from imgrec.evaluation.robustness import published
from imgrec.evaluation.subject import Subject

NAMES = ("ant", "bee", "cat", "dog")
N = 12


class Stored(nn.Module):
    """Logits are what is written into an image's first pixels."""

    @nn.compact
    def __call__(self, images, train):
        return images[:, 0, :4, 0] * 10


def subject(names=NAMES):
    return Subject(
        module=Stored(),
        variables={},
        mean=(0.0,),
        std=(1.0,),
        image_shape=(2, 4, 1),
        class_names=names,
        batch_size=5,
        put=jax.device_put,
    )


def images(predicted, second=0):
    """Images that are taken for these labels, or failing that for the second."""
    pixels = np.zeros((len(predicted), 2, 4, 1), np.uint8)
    pixels[:, 0, second, 0] = 100
    pixels[np.arange(len(predicted)), 0, predicted, 0] = 200
    return pixels


LABELS = np.arange(N) % 4


def wrong(count):
    """The labels, of which so many are wrong."""
    return np.where(np.arange(N) < count, (LABELS + 1) % 4, LABELS)


def shifted(parts, names=NAMES, **given):
    first = next(iter(parts.values()))
    return Shifted(
        **{
            "name": "cifar10_c",
            "base": "cifar10",
            "profile": "cifar_c",
            "parts": parts,
            "clean": None,
            "class_names": names,
            "wnids": (),
            "classes": np.unique(first.labels()).astype(np.int64),
            "image_shape": (2, 4, 1),
            "source": "here",
            "notes": ("small",),
        }
        | given
    )


def corrupted(**given):
    kinds = {"fog": (1, 3), "snow": (2, 6), "spatter": (12, 12)}
    return shifted(
        {
            Part(kind, severity): ArraySource(images(wrong(count)), LABELS)
            for kind, counts in kinds.items()
            for severity, count in zip((1, 2), counts, strict=True)
        },
        **given,
    )


CLEAN = Split("test", ArraySource(images(LABELS), LABELS), np.arange(N))


def test_a_corrupted_set_gets_the_table_without_what_is_for_validation():
    report = published.published_benchmark(subject(), corrupted(), clean=CLEAN)
    assert report["kinds"] == ["fog", "snow"]
    assert report["severities"] == [1, 2]
    np.testing.assert_allclose(report["error"], np.array([[1, 3], [2, 6]]) / N)
    assert report["clean_accuracy"] == 1
    assert (report["name"], report["base"], report["n"]) == ("cifar10_c", "cifar10", N)
    assert report["restricted_to"] is None
    assert report["notes"] == ["small"]
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    asked = published.published_benchmark(subject(), corrupted(), kinds=["spatter"])
    assert asked["mean_corrupted_accuracy"] == 0
    assert asked["clean_accuracy"] is None


def test_clean_images_that_are_not_those_are_not_compared_with():
    others = dataclasses.replace(CLEAN, rows=CLEAN.rows[1:])
    report = published.published_benchmark(subject(), corrupted(), clean=others)
    assert report["clean_accuracy"] is None
    its_own = corrupted(clean=ArraySource(images(wrong(1)), LABELS))
    report = published.published_benchmark(subject(), its_own, clean=others)
    assert report["clean_error"] == pytest.approx(1 / N)


def test_a_reference_may_be_another_run_on_the_same_set():
    first = published.published_benchmark(subject(), corrupted(), clean=CLEAN)
    report = published.published_benchmark(subject(), corrupted(), clean=CLEAN, reference=first)
    assert report["mce_relative_to_reference"] == pytest.approx(1)


def test_classes_are_matched_by_name():
    turned = ("dog", "ant", "bee", "cat")
    found = corrupted(class_names=turned)
    place = np.array([turned.index(name) for name in NAMES])
    parts = {
        part: ArraySource(source.images, place[source.labels()])
        for part, source in found.parts.items()
    }
    report = published.published_benchmark(subject(), dataclasses.replace(found, parts=parts))
    np.testing.assert_allclose(report["error"], np.array([[1, 3], [2, 6]]) / N)
    with pytest.raises(UserError, match="none that the model knows: 'dog'"):
        published.published_benchmark(subject(("ant", "bee", "cat", "cow")), corrupted())


def natural(**given):
    """Three images of each of two classes; a third class would win, were it asked for."""
    labels = np.array([0, 2] * 3)
    predicted = np.array([1, 1, 1, 1, 1, 0])
    source = ArraySource(images(predicted, second=2), labels)
    given = {"name": "imagenet_a", "base": "imagenet", "profile": ""} | given
    return shifted({Part("", 0): source}, **given)


def test_the_choice_is_among_the_classes_that_occur():
    report = published.published_benchmark(subject(), natural(), clean=CLEAN)
    assert report["restricted_to"] == 2
    # The third class being out, the second choice, 2, stands but where 0 was the first.
    assert report["accuracy"] == pytest.approx(2 / 6)
    assert report["n"] == 6
    assert report["n_clean"] == 6
    assert report["clean_accuracy"] == 1
    assert report["accuracy_drop"] == pytest.approx(4 / 6)
    low, high = report["intervals"]["accuracy_drop"]
    assert low < 4 / 6 < high
    assert report["nll"] > 0
    assert report["ece_equal_width_15"] > 0
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_wordnet_ids_are_names_too():
    wnids = ("n01", "n02", "n03", "n04")
    report = published.published_benchmark(subject(wnids), natural(wnids=wnids))
    assert report["accuracy"] == pytest.approx(2 / 6)
    assert report["clean_accuracy"] is None
    assert "no images" in report["reasons"]["clean_accuracy"]


def test_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match=r"Unknown corruption of cifar10_c 'frog'.*'fog'"):
        published.published_benchmark(subject(), corrupted(), kinds=["frog"])
    only = corrupted()
    parts = {part: source for part, source in only.parts.items() if part.kind == "spatter"}
    with pytest.raises(UserError, match="no corruption to evaluate on"):
        published.published_benchmark(subject(), dataclasses.replace(only, parts=parts))
