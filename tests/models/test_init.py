"""What holds for every model: shapes, gradients, modes, arithmetic, devices, published sizes."""

import functools
import re

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig

NUM_CLASSES = 5
BATCH = 8  # one image for each simulated device


def _module(name, dtype=jnp.float32, fields=(), **options):
    config = ModelConfig(name, ConfigDict(options))
    return models.create(config, NUM_CLASSES, dtype=dtype).clone(**dict(fields))


# Each architecture at a size that compiles in a second: real names where there are small
# ones, and for ViT the real module with fewer and narrower blocks.
_THIN = (("width", 24), ("depth", 2), ("num_heads", 3))
SMALL = {
    "lenet5": (functools.partial(_module, "lenet5"), (28, 28, 1)),
    "lenet5 of today": (
        functools.partial(
            _module, "lenet5", activation="relu", pool="max", connections="full", head="linear"
        ),
        (32, 32, 3),
    ),
    "small_cnn": (functools.partial(_module, "small_cnn", width=4), (28, 28, 1)),
    "resnet8": (functools.partial(_module, "resnet8", stochastic_depth=0.5), (12, 12, 3)),
    "resnet8 B": (functools.partial(_module, "resnet8", shortcut="B"), (9, 9, 1)),
    "plain8": (functools.partial(_module, "plain8"), (8, 8, 3)),
    "wrn10_1": (
        functools.partial(_module, "wrn10_1", dropout=0.3, stochastic_depth=0.2),
        (12, 12, 3),
    ),
    "vit cls": (
        functools.partial(_module, "vit_ti4", fields=_THIN, dropout=0.1, stochastic_depth=0.2),
        (8, 12, 3),
    ),
    "vit mean": (
        functools.partial(_module, "vit_ti4", fields=_THIN, pool="mean", positions="sincos"),
        (8, 8, 1),
    ),
}
RANDOM = ("small_cnn", "resnet8", "wrn10_1", "vit cls")  # in training
NORMALISED = ("small_cnn", "resnet8", "resnet8 B", "plain8", "wrn10_1")  # over the batch


@functools.cache
def _case(name):
    """Module, variables away from their initial zeros, images and labels."""
    build, image_shape = SMALL[name]
    module = build()
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(BATCH, *image_shape)), jnp.float32)
    variables = jax.jit(functools.partial(module.init, train=False))(jax.random.key(0), images)
    # A zero head lets no gradient through, and zero biases hide faults, so nothing stays 0.
    params = jax.tree.map(
        lambda p: p + 0.05 * rng.normal(size=p.shape).astype(np.float32), variables["params"]
    )
    labels = jnp.asarray(rng.integers(0, NUM_CLASSES, BATCH))
    return module, {**variables, "params": params}, images, labels


@functools.cache
def _loss_and_gradient(name):
    module, _, _, _ = _case(name)

    def loss(params, rest, images, labels, key):
        logits, updates = module.apply(
            {"params": params, **rest},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), updates

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def _train(name, key=1, params=None, batch_sharding=None):
    """(loss, updates), gradients of one training batch."""
    _, variables, images, labels = _case(name)
    rest = {k: v for k, v in variables.items() if k != "params"}
    if batch_sharding is not None:
        images, labels = jax.device_put((images, labels), batch_sharding)
    params = variables["params"] if params is None else params
    return _loss_and_gradient(name)(params, rest, images, labels, jax.random.key(key))


@functools.cache
def _predict(name):
    module, _, _, _ = _case(name)
    return jax.jit(functools.partial(module.apply, train=False))


@pytest.mark.parametrize("name", models.list_models())
def test_every_listed_model_takes_the_images_of_its_paper(name):
    height, width, channels = models.describe(name).image_shape
    models.check(ModelConfig(name), NUM_CLASSES, (height, width, channels))


@pytest.mark.parametrize("name", models.list_models())
def test_parameter_count_is_the_published_one(name):
    description = models.describe(name)
    published = description.parameters
    if not published:
        pytest.skip("its paper prints no count")
    module = models.create(ModelConfig(name), description.parameters_classes)
    images = jnp.zeros((1, *description.image_shape))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    count = models.count_parameters(variables)
    if "," in published:
        assert f"{count:,}" == published
    else:
        digits = len(published.removesuffix("M").partition(".")[2])
        assert f"{count / 1e6:.{digits}f}M" == published


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_float32_finite_and_one_row_for_each_image(name):
    _, variables, images, _ = _case(name)
    logits = _predict(name)(variables, images)
    assert logits.shape == (BATCH, NUM_CLASSES)
    assert logits.dtype == jnp.float32
    assert np.isfinite(logits).all()
    assert np.ptp(logits, axis=0).min() > 0, "different images must differ in every logit"


@pytest.mark.parametrize("name", SMALL)
def test_evaluation_treats_each_image_by_itself(name):
    _, variables, images, _ = _case(name)
    together = _predict(name)(variables, images)
    reversed_batch = _predict(name)(variables, images[::-1])
    np.testing.assert_allclose(together, reversed_batch[::-1], rtol=1e-4, atol=1e-4)
    alone = _predict(name)(variables, images.at[1:].set(7.0))
    np.testing.assert_allclose(together[0], alone[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_has_a_finite_gradient_that_is_not_zero(name):
    (_, _), gradients = _train(name)
    for path, gradient in flax.traverse_util.flatten_dict(gradients, sep="/").items():
        assert np.isfinite(gradient).all(), path
        # A bias of the keys adds the same score to every key of a query, which the softmax
        # takes away again: its gradient is zero but for rounding.
        if not path.endswith("key/bias"):
            assert np.abs(gradient).max() > 1e-7, path


@pytest.mark.parametrize("name", SMALL)
def test_a_small_step_against_the_gradient_lowers_the_loss(name):
    (before, _), gradients = _train(name)
    params = _case(name)[1]["params"]
    norm = float(optax.global_norm(gradients))
    size = 0.02 / norm
    (after, _), _ = _train(name, params=jax.tree.map(lambda p, g: p - size * g, params, gradients))
    # First order: the loss falls by the step's length times the norm.
    assert before - after > 0.25 * 0.02 * norm


@pytest.mark.parametrize("name", SMALL)
def test_initialisation_is_a_function_of_the_key(name):
    module, _, images, _ = _case(name)
    init = jax.jit(functools.partial(module.init, train=False))
    first, again, other = (init(jax.random.key(k), images) for k in (3, 3, 4))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    kernels = [
        (a, b)
        for (path, a), (_, b) in zip(
            jax.tree_util.tree_leaves_with_path(first["params"]),
            jax.tree_util.tree_leaves_with_path(other["params"]),
            strict=True,
        )
        if path[-1].key == "kernel" and np.any(a)
    ]
    assert kernels
    assert not any(np.array_equal(a, b) for a, b in kernels)


@pytest.mark.parametrize("name", SMALL)
def test_training_is_random_only_where_a_rate_asks_for_it(name):
    (first, _), _ = _train(name, key=1)
    (again, _), _ = _train(name, key=1)
    (other, _), _ = _train(name, key=2)
    assert first == again
    assert (first != other) == (name in RANDOM)


@pytest.mark.parametrize("name", SMALL)
def test_moving_statistics_move_in_training_and_only_where_there_are_any(name):
    module, variables, images, _ = _case(name)
    (_, updates), _ = _train(name)
    assert ("batch_stats" in variables) == (name in NORMALISED) == bool(updates)
    if name in NORMALISED:
        moved = jax.tree.map(
            lambda a, b: not np.array_equal(a, b), variables["batch_stats"], updates["batch_stats"]
        )
        assert all(jax.tree.leaves(moved))
        _, updates = module.apply(variables, images, train=False, mutable=["batch_stats"])
        jax.tree.map(
            np.testing.assert_array_equal, variables["batch_stats"], updates["batch_stats"]
        )


@pytest.mark.parametrize("name", ["lenet5", "resnet8", "vit cls"])
def test_eight_devices_compute_what_one_does(name):
    mesh = Mesh(np.array(jax.devices()), ("data",))
    assert mesh.size == BATCH
    (loss, updates), gradients = _train(name)
    batch_sharding = NamedSharding(mesh, PartitionSpec("data"))
    sharded = _train(name, batch_sharding=batch_sharding)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5),
        ((loss, updates), gradients),
        sharded,
    )


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_is_the_arithmetic_and_not_the_parameters(name):
    _, variables, images, _ = _case(name)
    module = SMALL[name][0](dtype="bfloat16")
    fresh = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype("float32")}

    logits = jax.jit(functools.partial(module.apply, train=False))(variables, images)
    assert logits.dtype == jnp.float32
    exact = _predict(name)(variables, images)
    error = np.abs(logits - exact).max() / np.abs(exact).max()
    assert 1e-6 < error < 0.05

    named = jax.eval_shape(lambda: models.intermediates(module, variables, images))
    assert named["pre_logits"].dtype == jnp.bfloat16


@pytest.mark.parametrize("name", SMALL)
def test_parameter_names_are_words_that_rules_can_match(name):
    _, variables, _, _ = _case(name)
    for path in flax.traverse_util.flatten_dict(variables["params"], sep="/"):
        assert re.fullmatch(r"([a-z][a-z0-9_]*/)*[a-z][a-z0-9]*", path), path
        assert not re.search(r"(conv|dense|norm|dropout|block|module)_\d", path.lower()), (
            f"{path}: a number that Flax made up changes when a layer is added"
        )
