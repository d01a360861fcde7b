import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from imgrec import augment, randomness
from imgrec.config import AugmentConfig
from imgrec.tasks import Task
from imgrec.tasks.classification import Classification

SHAPE, CLASSES = (4, 4, 2), 3
MEAN, STD = (0.5, 0.25), (0.2, 0.4)


class Net(nn.Module):
    """A linear classifier of pooled pixels, with statistics and dropout where asked for."""

    normalised: bool = True
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images, *, train=False):
        x = images.mean(axis=(1, 2))
        if self.normalised:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        self.sow("intermediates", "pre_logits", x)
        return nn.Dense(CLASSES, name="head")(x)


def make_task(*, augmentation=None, label_smoothing=0.0, **module):
    return Classification(
        module=Net(**module),
        augment=augment.build(augmentation or AugmentConfig(), SHAPE, MEAN, STD, CLASSES),
        image_shape=SHAPE,
        mean=MEAN,
        std=STD,
        label_smoothing=label_smoothing,
    )


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (8, *SHAPE), dtype=np.uint8),
        "label": np.array([0, 1, 2, 0, 1, 2, 0, 1], np.int32),
        "index": np.arange(8, dtype=np.int32),
        "mask": np.ones(8, np.bool_),
    }


KEY = jax.random.key(3)


def prepared_and_initial(task, batch):
    return jax.jit(task.prepare)(batch, KEY), *task.init(jax.random.key(0))


class Centred(nn.Module):
    """Starts its offset from the images that `init` is given."""

    @nn.compact
    def __call__(self, images, *, train=False):
        mean = self.variable("start", "mean", lambda: images.mean((0, 1, 2)))
        return nn.Dense(CLASSES, name="head")(images.mean((1, 2)) - mean.value)


def test_initialisation_sees_the_training_images_normalised(batch):
    task = dataclasses.replace(make_task(), module=Centred())
    _, without = task.init(KEY)
    assert not without["start"]["mean"].any()
    _, start = task.init(KEY, batch["image"])
    expected = (batch["image"] / 255 - MEAN) / STD
    np.testing.assert_allclose(start["start"]["mean"], expected.mean((0, 1, 2)), rtol=1e-4)


def normalised(images):
    return (images / 255 - np.array(MEAN)) / np.array(STD)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def test_is_a_task():
    assert isinstance(make_task(), Task)


def test_starts_with_parameters_and_statistics_and_nothing_else():
    params, model_state = make_task().init(jax.random.key(0))
    assert params.keys() == {"norm", "head"}
    assert model_state.keys() == {"batch_stats"}
    assert params["head"]["kernel"].shape == (2, CLASSES)
    params, model_state = make_task(normalised=False).init(jax.random.key(0))
    assert params.keys() == {"head"}
    assert model_state == {}


def test_the_start_is_a_function_of_the_key():
    task = make_task()
    first, again, other = (task.init(jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first[0]["head"]["kernel"], other[0]["head"]["kernel"])


def test_prepares_normalised_images_and_one_hot_targets(batch):
    prepared = jax.jit(make_task().prepare)(batch, KEY)
    assert prepared.keys() == {"image", "target"}
    assert prepared["image"].dtype == prepared["target"].dtype == jnp.float32
    np.testing.assert_allclose(prepared["image"], normalised(batch["image"]), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(prepared["target"], np.eye(CLASSES)[batch["label"]])


def test_mixes_across_the_whole_batch(batch):
    task = make_task(augmentation=AugmentConfig(mixup=1.0))
    targets = jax.jit(task.prepare)(batch, KEY)["target"]
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    assert (targets > 0.01).sum() > len(targets)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_cross_entropy_with_smoothed_targets(batch, smoothing):
    task = make_task(
        label_smoothing=smoothing, normalised=False, augmentation=AugmentConfig(mixup=1.0)
    )
    prepared, params, model_state = prepared_and_initial(task, batch)
    loss, (new_state, metrics) = task.loss(params, model_state, prepared, KEY)
    pooled = np.float64(prepared["image"]).mean(axis=(1, 2))
    logits = pooled @ np.float64(params["head"]["kernel"]) + np.float64(params["head"]["bias"])
    targets = np.float64(prepared["target"])
    smooth = (1 - smoothing) * targets + smoothing / CLASSES
    expected = -(smooth * np.log(softmax(logits))).sum(axis=1).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert metrics["loss"] == loss
    hits = logits.argmax(axis=1) == targets.argmax(axis=1)
    np.testing.assert_allclose(metrics["accuracy"], hits.mean(), rtol=1e-6)
    assert new_state == {}


def test_training_gathers_statistics_and_leaves_the_old_ones_alone(batch):
    task = make_task()
    prepared, params, model_state = prepared_and_initial(task, batch)
    _, (new_state, _) = task.loss(params, model_state, prepared, KEY)
    pooled = np.float64(prepared["image"]).mean(axis=(1, 2))
    statistics = new_state["batch_stats"]["norm"]
    np.testing.assert_allclose(statistics["mean"], 0.1 * pooled.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(statistics["var"], 0.9 + 0.1 * pooled.var(axis=0), rtol=1e-5)
    assert new_state.keys() == {"batch_stats"}  # what was sown is no state
    np.testing.assert_array_equal(model_state["batch_stats"]["norm"]["mean"], 0)


def test_dropout_draws_from_the_key_of_its_name(batch):
    task = make_task(dropout=0.5)
    prepared, params, model_state = prepared_and_initial(task, batch)
    losses = [
        float(task.loss(params, model_state, prepared, jax.random.key(s))[0]) for s in (1, 1, 2)
    ]
    assert losses[0] == losses[1] != losses[2]
    logits, _ = task.module.apply(
        {"params": params, **model_state},
        prepared["image"],
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": randomness.named(jax.random.key(1), "dropout")},
    )
    expected = -(np.float64(prepared["target"]) * np.log(softmax(np.float64(logits)))).sum(1).mean()
    np.testing.assert_allclose(losses[0], expected, rtol=1e-5)


def test_predicts_with_the_gathered_statistics_and_without_chance(batch):
    task = make_task(dropout=0.5)
    params, _ = task.init(jax.random.key(0))
    statistics = {"mean": jnp.array([0.5, -1.0]), "var": jnp.array([2.0, 0.5])}
    variables = {"params": params, "batch_stats": {"norm": statistics}}
    logits = jax.jit(task.predict)(variables, batch["image"])
    pooled = normalised(batch["image"]).mean(axis=(1, 2))
    pooled = (pooled - [0.5, -1.0]) / np.sqrt(np.array([2.0, 0.5]) + 1e-5)
    expected = pooled @ np.float64(params["head"]["kernel"])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    assert logits.dtype == jnp.float32


def test_a_prediction_does_not_depend_on_the_rest_of_the_batch(batch):
    task = make_task()
    params, model_state = task.init(jax.random.key(0))
    predict = jax.jit(task.predict)
    whole = predict({"params": params, **model_state}, batch["image"])
    alone = predict({"params": params, **model_state}, batch["image"][5:6])
    np.testing.assert_allclose(whole[5:6], alone, rtol=1e-5, atol=1e-6)
