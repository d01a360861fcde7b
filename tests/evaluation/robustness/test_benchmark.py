import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from imgrec import corruptions
from imgrec.data import ArraySource, Split
from imgrec.errors import UserError
from imgrec.evaluation.robustness import benchmark as robustness
from imgrec.evaluation.subject import Subject

RNG = np.random.default_rng(0)
N, SHAPE = 21, (16, 16, 3)
IMAGES = RNG.integers(0, 200, (N, *SHAPE), dtype=np.uint8)
KERNEL = RNG.normal(size=(3, 4)).astype(np.float32)


class Colours(nn.Module):
    """A linear classifier of the mean colour."""

    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(4, use_bias=False)(images.mean(axis=(1, 2)))


def subject(batch_size=8, image_shape=SHAPE):
    return Subject(
        module=Colours(),
        variables={"params": {"Dense_0": {"kernel": 50 * KERNEL}}},
        mean=(0.4, 0.4, 0.4),
        std=(0.1, 0.1, 0.1),
        image_shape=image_shape,
        class_names=tuple("abcd"),
        batch_size=batch_size,
        put=jax.device_put,
    )


def logits(images):
    return np.asarray(subject().logits(subject().variables, jnp.asarray(images)))


LABELS = logits(IMAGES).argmax(axis=1)
SPLIT = Split("test", ArraySource(IMAGES, LABELS), np.arange(N))
KINDS, SEVERITIES = ("brightness", "impulse_noise", "contrast"), (2, 5)


def benchmark(**given):
    given = {"kinds": KINDS, "severities": SEVERITIES} | given
    return robustness.corruption_benchmark(subject(), SPLIT, **given)


def test_the_table_is_that_of_corrupted_copies():
    report = benchmark(seed=3)
    for row, kind in enumerate(KINDS):
        for column, severity in enumerate(SEVERITIES):
            corrupted = corruptions.corrupt(
                jnp.asarray(IMAGES),
                jnp.arange(N),
                profile="cifar_c",
                kind=kind,
                severity=severity,
                seed=3,
            )
            accuracy = np.mean(logits(corrupted).argmax(axis=1) == LABELS)
            assert report["accuracy"][row][column] == pytest.approx(accuracy)
    assert report["clean_accuracy"] == 1
    assert (report["profile"], report["seed"], report["n"]) == ("cifar_c", 3, N)
    assert report["mean_corrupted_accuracy"] < 1
    assert json.loads(json.dumps(report, allow_nan=False)) == report


@pytest.mark.parametrize("batch_size", [1, 64])
def test_batches_change_nothing(batch_size):
    other = robustness.corruption_benchmark(
        subject(batch_size), SPLIT, kinds=KINDS, severities=SEVERITIES
    )
    assert other["accuracy"] == benchmark()["accuracy"]


def test_a_run_is_its_own_yardstick():
    report = benchmark(reference=benchmark() | {"name": "itself"})
    assert report["mce_relative_to_reference"] == pytest.approx(1)
    assert report["reference"]["name"] == "itself"


def test_mnist_c_has_one_severity():
    images = np.repeat(IMAGES[..., :1], 3, axis=-1)
    split = Split("test", ArraySource(images, LABELS), np.arange(N))
    report = robustness.corruption_benchmark(
        subject(), split, profile="mnist_c", kinds=("stripe", "translate")
    )
    assert report["severities"] == [1]
    assert report["categories"] == {"stripe": "strokes", "translate": "geometry"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"profile": "cifarc"}, "Unknown profile of corruptions 'cifarc'.*'cifar_c'"),
        ({"kinds": ["blure"]}, "Unknown corruption of cifar_c 'blure'"),
        ({"severities": [6]}, "no severity 6; it can be 1, 2, 3, 4, 5"),
        ({"profile": "mnist_c", "kinds": ["stripe"], "severities": [3]}, "no severity 3; .* be 1"),
        ({"kinds": []}, "at least one kind"),
        ({"severities": [1, 1]}, "at least one severity .* none twice"),
    ],
)
def test_what_is_not_there_is_refused_in_words(given, message):
    with pytest.raises(UserError, match=message):
        benchmark(**given)


@pytest.mark.slow
def test_the_published_kinds_at_their_severities_are_the_default():
    report = robustness.corruption_benchmark(subject(), SPLIT)
    assert report["kinds"] == list(corruptions.PUBLISHED)
    assert report["severities"] == [1, 2, 3, 4, 5]
    assert [len(row) for row in report["accuracy"]] == [5] * 15
