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
from imgrec.models.efficientnet import Stage

NUM_CLASSES = 5
BATCH = 8  # one image for each simulated device


def _module(name, dtype=jnp.float32, fields=(), **options):
    config = ModelConfig(name, ConfigDict(options))
    return models.create(config, NUM_CLASSES, dtype=dtype).clone(**dict(fields))


# Each architecture at a size that compiles in a second: real names where there are small
# ones, and for ViT the real module with fewer and narrower blocks.
_THIN = (("width", 24), ("depth", 2), ("num_heads", 3))
_FEW = (("layers", (2, 1)), ("growth_rate", 4), ("stem_features", 6))
_NARROW = (("stem", 8), ("final", 16), ("stages", (Stage(3, 1, 8, 1, 1), Stage(5, 3, 8, 2, 2))))
_FUSED = (*_NARROW[:2], ("stages", (Stage(3, 1, 8, 1, 1, True), Stage(3, 2, 8, 2, 2, True))))
_V3_STAGES = (
    ((3, 16, 16, True, "relu", 2),),
    ((5, 24, 16, True, "hard_swish", 2), (3, 24, 16, False, "hard_swish", 1)),
)
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
    "wrn10_1": (functools.partial(_module, "wrn10_1", stochastic_depth=0.5), (12, 12, 3)),
    "resnet18": (
        functools.partial(
            _module, "resnet18", fields=(("blocks", (1, 1)),), width=4, stochastic_depth=0.5
        ),
        (16, 16, 3),
    ),
    "resnext50 refined": (
        functools.partial(
            _module,
            "resnext50_2x32d",
            fields=(("blocks", (1, 1)),),
            width=8,
            attention="cbam",
            stem="deep",
            shortcut="mean",
            anti_aliased=True,
        ),
        (15, 18, 3),
    ),
    "preact_resnet50": (
        functools.partial(
            _module, "preact_resnet50", fields=(("blocks", (1, 1)),), width=4, attention="se"
        ),
        (16, 16, 3),
    ),
    "vgg11_bn": (
        functools.partial(
            _module, "vgg11_bn", fields=(("layers", (1, 2)),), width=4, hidden=16, dropout=0.1
        ),
        (16, 12, 3),
    ),
    "densenet121": (functools.partial(_module, "densenet121", fields=_FEW), (16, 16, 3)),
    "airbench96": (
        functools.partial(_module, "airbench96", fields=(("widths", (32, 8, 8)),)),
        (20, 25, 3),
    ),
    "vit cls": (functools.partial(_module, "vit_ti4", fields=_THIN, dropout=0.1), (8, 12, 3)),
    "vit mean": (
        functools.partial(
            _module,
            "vit_ti4",
            fields=_THIN,
            pool="mean",
            positions="sincos",
            stochastic_depth=0.5,
        ),
        (8, 8, 1),
    ),
    "deit distilled": (
        functools.partial(
            _module,
            "deit_ti4_distilled",
            fields=_THIN,
            stochastic_depth=0.0,
            registers=2,
            qk_norm=True,
            layer_scale=0.1,
        ),
        (8, 8, 3),
    ),
    "efficientnet": (functools.partial(_module, "efficientnet_b0", fields=_NARROW), (16, 12, 3)),
    "efficientnet_lite": (
        functools.partial(
            _module, "efficientnet_lite0", fields=_NARROW, dropout=0.0, stochastic_depth=0.0
        ),
        (9, 16, 1),
    ),
    "efficientnet_v2": (
        functools.partial(_module, "efficientnet_v2_s", fields=_FUSED),
        (12, 12, 3),
    ),
    "mobilenet_v2": (
        functools.partial(
            _module,
            "mobilenet_v2",
            fields=(("stages", ((1, 16, 1, 1), (3, 24, 2, 2))),),
            width_factor=0.5,
        ),
        (12, 12, 3),
    ),
    "mobilenet_v3": (
        functools.partial(
            _module,
            "mobilenet_v3_small",
            fields=(("stages", _V3_STAGES), ("hidden", 32)),
            stochastic_depth=0.5,
        ),
        (16, 16, 3),
    ),
    "convnext": (
        functools.partial(
            _module,
            "convnext_atto",
            fields=(("depths", (1, 2)), ("width", 8)),
            stochastic_depth=0.5,
            patch_size=2,
        ),
        (12, 8, 3),
    ),
    "mixer": (
        functools.partial(
            _module,
            "mixer_s4",
            fields=(("width", 16), ("depth", 2), ("token_hidden", 8), ("channel_hidden", 24)),
        ),
        (12, 8, 3),
    ),
    "swin": (
        functools.partial(
            _module,
            "swin_t",
            fields=(("width", 32), ("depths", (2, 1))),
            window_size=3,
            patch_size=2,
        ),
        (12, 10, 3),
    ),
}
# Their gradient is zero but for rounding, as what they add is taken away again.
WITHOUT_GRADIENT = (
    "key/bias",  # the same score to every key of a query, by the softmax
    "conv/bias",  # VGG's, by the batch norm behind it
    "project/norm/bias",  # a constant to a whole map, by the next 1x1 convolution's batch norm
    "token_mixing/out/bias",  # the same to all channels of a token, by every layer norm
)
RANDOM = (  # in training
    "small_cnn",
    "resnet8",
    "wrn10_1",
    "resnet18",
    "vgg11_bn",
    "vit cls",
    "vit mean",
    "efficientnet",
    "efficientnet_v2",
    "mobilenet_v2",
    "mobilenet_v3",
    "convnext",
    "swin",
)
NORMALISED = (  # over the batch
    "small_cnn",
    "resnet8",
    "resnet8 B",
    "wrn10_1",
    "resnet18",
    "resnext50 refined",
    "preact_resnet50",
    "vgg11_bn",
    "densenet121",
    "airbench96",
    "efficientnet",
    "efficientnet_lite",
    "efficientnet_v2",
    "mobilenet_v2",
    "mobilenet_v3",
)


class Case:
    """A model at work: variables without a zero, a batch, and its compiled functions."""

    def __init__(self, name, fill):
        build, image_shape = SMALL[name]
        rng = np.random.default_rng(0)
        self.name = name
        self.module = build()
        self.images = jnp.asarray(rng.normal(size=(BATCH, *image_shape)), jnp.float32)
        self.labels = jnp.asarray(rng.integers(0, NUM_CLASSES, BATCH))
        self.variables = fill(self.module, self.images, train=False)
        self.predict = jax.jit(functools.partial(self.module.apply, train=False))
        self._loss_and_gradient = jax.jit(jax.value_and_grad(self._loss, has_aux=True))

    def train(self, key=1, params=None, sharding=None):
        """((loss, updates), gradients) of one training batch."""
        rest = {k: v for k, v in self.variables.items() if k != "params"}
        batch = self.images, self.labels
        if sharding is not None:
            batch = jax.device_put(batch, sharding)
        params = self.variables["params"] if params is None else params
        return self._loss_and_gradient(params, rest, *batch, jax.random.key(key))

    def _loss(self, params, rest, images, labels, key):
        logits, updates = self.module.apply(
            {"params": params, **rest},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), updates


@pytest.fixture(scope="module", params=SMALL)
def case(request, fill):
    return Case(request.param, fill)


@pytest.mark.parametrize("name", models.list_models())
def test_every_listed_model_takes_the_images_of_its_paper(name):
    height, width, channels = models.describe(name).image_shape
    models.check(ModelConfig(name), NUM_CLASSES, (height, width, channels))


@pytest.mark.parametrize(
    "name", [name for name in models.list_models() if models.describe(name).parameters]
)
def test_parameter_count_is_the_published_one(name):
    description = models.describe(name)
    published = description.parameters
    module = models.create(ModelConfig(name), description.parameters_classes)
    images = jnp.zeros((1, *description.image_shape))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    count = models.count_parameters(variables)
    if "," in published:
        assert f"{count:,}" == published
    else:
        digits = len(published.removesuffix("M").partition(".")[2])
        assert f"{count / 1e6:.{digits}f}M" == published


def test_logits_are_float32_finite_and_one_row_for_each_image(case):
    logits = case.predict(case.variables, case.images)
    assert logits.shape == (BATCH, NUM_CLASSES)
    assert logits.dtype == jnp.float32
    assert np.isfinite(logits).all()
    assert np.ptp(logits, axis=0).min() > 0, "different images must differ in every logit"


def test_evaluation_treats_each_image_by_itself(case):
    together = case.predict(case.variables, case.images)
    reversed_batch = case.predict(case.variables, case.images[::-1])
    np.testing.assert_allclose(together, reversed_batch[::-1], rtol=1e-4, atol=1e-4)
    alone = case.predict(case.variables, case.images.at[1:].set(7.0))
    np.testing.assert_allclose(together[0], alone[0], rtol=1e-4, atol=1e-4)


def test_every_parameter_has_a_finite_gradient_that_is_not_zero(case):
    (_, _), gradients = case.train()
    for path, gradient in flax.traverse_util.flatten_dict(gradients, sep="/").items():
        assert np.isfinite(gradient).all(), path
        if not path.endswith(WITHOUT_GRADIENT):
            assert np.abs(gradient).max() > 1e-7, path


def test_a_small_step_against_the_gradient_lowers_the_loss(case):
    (before, _), gradients = case.train()
    params = case.variables["params"]
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradients)))
    size = 0.02 / norm
    (after, _), _ = case.train(params=jax.tree.map(lambda p, g: p - size * g, params, gradients))
    # First order: the loss falls by the step's length times the norm.
    assert before - after > 0.25 * 0.02 * norm


@pytest.mark.parametrize("case", ["lenet5", "vit cls"], indirect=True)
def test_initialisation_is_a_function_of_the_key(case):
    init = jax.jit(functools.partial(case.module.init, train=False))
    first, again, other = (init(jax.random.key(k), case.images) for k in (3, 3, 4))
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


def test_training_is_random_only_where_a_rate_asks_for_it(case):
    (first, _), _ = case.train(key=1)
    (again, _), _ = case.train(key=1)
    (other, _), _ = case.train(key=2)
    assert first == again
    assert (first != other) == (case.name in RANDOM)


def test_moving_statistics_move_in_training_and_only_where_there_are_any(case):
    (_, updates), _ = case.train()
    assert ("batch_stats" in case.variables) == (case.name in NORMALISED) == bool(updates)
    if case.name in NORMALISED:
        before, after = case.variables["batch_stats"], updates["batch_stats"]
        moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, after)
        assert all(jax.tree.leaves(moved))
        evaluate = functools.partial(case.module.apply, train=False, mutable=["batch_stats"])
        _, updates = jax.jit(evaluate)(case.variables, case.images)
        jax.tree.map(np.testing.assert_array_equal, before, updates["batch_stats"])


@pytest.mark.parametrize("case", ["lenet5", "resnet8", "vit cls"], indirect=True)
def test_eight_devices_compute_what_one_does(case):
    mesh = Mesh(np.array(jax.devices()), ("data",))
    assert mesh.size == BATCH
    (loss, updates), gradients = case.train()
    batch_sharding = NamedSharding(mesh, PartitionSpec("data"))
    sharded = case.train(sharding=batch_sharding)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5),
        ((loss, updates), gradients),
        sharded,
    )


def test_bfloat16_is_the_arithmetic_and_not_the_parameters(case):
    module = SMALL[case.name][0](dtype="bfloat16")
    fresh = jax.eval_shape(lambda: module.init(jax.random.key(0), case.images, train=False))
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype("float32")}

    logits = jax.jit(functools.partial(module.apply, train=False))(case.variables, case.images)
    assert logits.dtype == jnp.float32
    exact = case.predict(case.variables, case.images)
    error = np.abs(logits - exact).max() / np.abs(exact).max()
    assert 1e-6 < error < 0.05

    named = jax.eval_shape(lambda: models.intermediates(module, case.variables, case.images))
    assert named["pre_logits"].dtype == jnp.bfloat16


def test_parameter_names_are_words_that_rules_can_match(case):
    for path in flax.traverse_util.flatten_dict(case.variables["params"], sep="/"):
        assert re.fullmatch(r"([a-z][a-z0-9_]*/)*[a-z][a-z0-9]*", path), path
        assert not re.search(r"(conv|dense|norm|dropout|block|module)_\d", path.lower()), (
            f"{path}: a number that Flax made up changes when a layer is added"
        )
