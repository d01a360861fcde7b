import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy.special import log_softmax

from imgrec.data import ArraySource, Split
from imgrec.evaluation.robustness import conditions
from imgrec.evaluation.subject import Subject

RNG = np.random.default_rng(0)
N, SHAPE, CLASSES = 37, (4, 3, 2), 5
IMAGES = RNG.integers(0, 200, (N, *SHAPE), dtype=np.uint8)
LABELS = (np.arange(N) % CLASSES).astype(np.int32)
KERNEL = RNG.normal(size=(24, CLASSES)).astype(np.float32)
SPLIT = Split("test", ArraySource(IMAGES, LABELS), np.arange(N))


class Linear(nn.Module):
    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(CLASSES, use_bias=False)(images.reshape(len(images), -1))


def on_mesh(devices):
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return lambda batch: {name: jax.device_put(value, sharding) for name, value in batch.items()}


def subject(batch_size=8, devices=1, kernel=KERNEL):
    return Subject(
        module=Linear(),
        variables={"params": {"Dense_0": {"kernel": kernel}}},
        mean=(0.4, 0.5),
        std=(0.2, 0.3),
        image_shape=SHAPE,
        class_names=tuple("abcde"),
        batch_size=batch_size,
        put=on_mesh(devices),
    )


def brighter(images, index, amount):
    return images + jnp.uint8(amount)


def shuffled(images, index, amount):
    """Noise by the example's index, as every corruption makes it."""
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(3), i))(index)
    noise = jax.vmap(lambda key: jax.random.randint(key, SHAPE, 0, 50))(keys)
    return images + noise.astype(jnp.uint8)


CONDITIONS = [(0, 0), (1, 1), (0, 17), (0, 50)]


def expected(images):
    logits = (((images / 255 - (0.4, 0.5)) / (0.2, 0.3)).reshape(N, -1)) @ KERNEL
    chosen = log_softmax(logits, axis=1)
    return logits.argmax(axis=1) == LABELS, -chosen[np.arange(N), LABELS], np.exp(chosen.max(1))


def test_answers_are_those_to_the_changed_images():
    found = conditions.answers(subject(), SPLIT, [brighter, shuffled], CONDITIONS)
    assert len(found) == N
    for column, amount in ((0, 0), (2, 17), (3, 50)):
        correct, nll, confidence = expected(IMAGES + np.uint8(amount))
        np.testing.assert_array_equal(found.correct[:, column], correct)
        np.testing.assert_allclose(found.nll[:, column], nll, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.confidence[:, column], confidence, rtol=1e-5)
    part = found.columns(slice(2, None))
    np.testing.assert_array_equal(part.nll, found.nll[:, 2:])


@pytest.mark.parametrize(("batch_size", "devices"), [(1, 1), (64, 8), (8, 4)])
def test_batches_and_devices_change_nothing(batch_size, devices):
    one = conditions.answers(subject(), SPLIT, [brighter, shuffled], CONDITIONS)
    other = conditions.answers(
        subject(batch_size, devices), SPLIT, [brighter, shuffled], CONDITIONS
    )
    np.testing.assert_array_equal(one.correct, other.correct)
    np.testing.assert_allclose(one.nll, other.nll, rtol=1e-4, atol=1e-5)


def test_one_program_serves_all_conditions_and_progress_is_told():
    traced, told = [], []

    def counted(images, index, amount):
        traced.append(amount)
        return brighter(images, index, amount)

    conditions.answers(
        subject(16),
        SPLIT,
        [counted],
        [(0, amount) for amount in range(6)],
        progress=lambda done, total: told.append((done, total)),
    )
    assert len(traced) == 1
    assert told == [(done, 18) for done in range(1, 19)]  # three batches of six conditions


def test_parts_of_the_same_examples_become_columns():
    parts = [
        Split(str(amount), ArraySource(IMAGES + np.uint8(amount), LABELS), np.arange(N))
        for amount in (0, 17)
    ]
    found = conditions.answers_of_parts(subject(), parts)
    alone = conditions.answers(subject(), SPLIT, [brighter], [(0, 0), (0, 17)])
    np.testing.assert_array_equal(found.correct, alone.correct)
    np.testing.assert_allclose(found.nll, alone.nll, rtol=1e-6)
    others = dataclasses.replace(SPLIT, rows=SPLIT.rows[::-1])
    with pytest.raises(ValueError, match=r"labels of 'test' are not those of '0'"):
        conditions.answers_of_parts(subject(), [parts[0], others])


def test_a_choice_may_be_restricted_to_some_classes():
    classes = np.array([1, 2, 4])
    rows = np.flatnonzero(np.isin(LABELS, classes))
    split = dataclasses.replace(SPLIT, rows=rows)
    found = conditions.answers_of_parts(subject(), [split], classes=classes)
    logits = (((IMAGES[rows] / 255 - (0.4, 0.5)) / (0.2, 0.3)).reshape(len(rows), -1)) @ KERNEL
    chosen = classes[logits[:, classes].argmax(axis=1)]
    np.testing.assert_array_equal(found.correct[:, 0], chosen == LABELS[rows])
    assert found.correct.sum() > (logits.argmax(axis=1) == LABELS[rows]).sum()
    places = np.searchsorted(classes, LABELS[rows])
    nll = -log_softmax(logits[:, classes], axis=1)[np.arange(len(rows)), places]
    np.testing.assert_allclose(found.nll[:, 0], nll, rtol=1e-4, atol=1e-5)


def test_a_diverged_model_answers_the_first_class_as_in_the_metrics():
    found = conditions.answers(subject(kernel=KERNEL * np.nan), SPLIT, [brighter], [(0, 0)])
    np.testing.assert_array_equal(found.correct[:, 0], LABELS == 0)
    assert np.isnan(found.nll).all()
