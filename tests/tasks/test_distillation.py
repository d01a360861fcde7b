"""Soft labels: values by hand, what the teacher sees, and that nothing of it changes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.special import log_softmax

from imgrec import augment
from imgrec.config import AugmentConfig
from imgrec.tasks import Task
from imgrec.tasks.classification import Classification
from imgrec.tasks.distillation import Distillation, soft_divergence

SHAPE, CLASSES = (4, 4, 2), 3
MEAN, STD = (0.5, 0.25), (0.2, 0.4)
KEY = jax.random.key(3)


class Net(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(images)
        return nn.Dense(CLASSES, name="head")(x.mean(axis=(1, 2)))


def make(alpha=0.7, temperature=3.0, mean=(0.4, 0.3), std=(0.3, 0.1), augmentation=None):
    student = Classification(
        module=Net(),
        augment=augment.build(augmentation or AugmentConfig(), SHAPE, MEAN, STD, CLASSES),
        image_shape=SHAPE,
        mean=MEAN,
        std=STD,
        label_smoothing=0.1,
    )
    params, state = student.init(jax.random.key(1))
    return Distillation(student, Net(), {"params": params, **state}, mean, std, alpha, temperature)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.integers(0, 256, (6, *SHAPE), dtype=np.uint8)),
        "label": jnp.array([0, 1, 2, 0, 1, 2], jnp.int32),
        "index": np.arange(6, dtype=np.int32),
        "mask": np.ones(6, np.bool_),
    }


def test_it_is_a_task():
    assert isinstance(make(), Task)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_divergence_by_hand(temperature):
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(0, 3, (2, 5, 7))
    p = log_softmax(theirs / temperature, axis=1)
    q = log_softmax(ours / temperature, axis=1)
    expected = temperature**2 * np.sum(np.exp(p) * (p - q), axis=1)
    found = soft_divergence(jnp.float32(ours), jnp.float32(theirs), temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(soft_divergence(found[None], found[None], 2.0), [0], atol=1e-6)


def test_the_gradient_at_a_high_temperature_is_that_of_matched_logits():
    # Hinton et al. 2015, equation 4: (z - v) / N for logits of mean 0.
    rng = np.random.default_rng(0)
    z, v = rng.normal(size=(2, 1, 5))
    z, v = z - z.mean(), v - v.mean()
    grad = jax.grad(lambda x: soft_divergence(x, jnp.float32(v), 300.0).sum())(jnp.float32(z))
    np.testing.assert_allclose(grad, (z - v) / 5, atol=5e-3)


def test_the_loss_is_the_weighted_sum(batch):
    task = make()
    params, state = task.init(jax.random.key(0))
    prepared = task.prepare(batch, KEY)
    loss, (new_state, metrics) = task.loss(params, state, prepared, KEY)
    hard, (expected_state, alone) = task.student.loss(params, state, prepared, KEY)
    logits, _ = task.student.forward(params, state, prepared, KEY)
    soft = soft_divergence(logits, prepared["teacher"], 3.0).mean()
    np.testing.assert_allclose(loss, 0.3 * hard + 0.7 * soft, rtol=1e-6)
    np.testing.assert_allclose(metrics["cross_entropy"], hard, rtol=1e-6)
    np.testing.assert_allclose(metrics["distillation"], soft, rtol=1e-6)
    assert metrics["accuracy"] == alone["accuracy"]
    jax.tree.map(np.testing.assert_array_equal, new_state, expected_state)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_ends(batch, alpha):
    task = make(alpha=alpha)
    params, state = task.init(jax.random.key(0))
    prepared = task.prepare(batch, KEY)
    loss, (_, metrics) = task.loss(params, state, prepared, KEY)
    assert loss == (metrics["distillation"] if alpha else metrics["cross_entropy"])


def test_the_teacher_sees_the_augmented_images_on_its_own_scale(batch):
    task = make(augmentation=AugmentConfig(flip=True, cutout=2, mixup=0.5))
    prepared = task.prepare(batch, KEY)
    expected = task.student.prepare(batch, KEY)
    np.testing.assert_array_equal(prepared["image"], expected["image"])
    np.testing.assert_array_equal(prepared["target"], expected["target"])
    levels = np.asarray(expected["image"]) * STD + MEAN
    seen = (levels - task.mean) / task.std
    logits = Net().apply(task.variables, jnp.float32(seen))
    np.testing.assert_allclose(prepared["teacher"], logits, atol=1e-4)


def test_no_gradient_reaches_the_teacher(batch):
    task = make()
    params, state = task.init(jax.random.key(0))

    def loss(variables):
        followed = dataclasses.replace(task, variables=variables)
        return followed.loss(params, state, followed.prepare(batch, KEY), KEY)[0]

    for leaf in jax.tree.leaves(jax.grad(loss)(task.variables)):
        np.testing.assert_array_equal(leaf, 0)
