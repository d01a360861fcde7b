import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from imgrec import augment, randomness
from imgrec.config import AugmentConfig, MeshConfig, OptimizerConfig
from imgrec.tasks.classification import Classification
from imgrec.training import mesh as meshes
from imgrec.training import optimizers, placement, state, step
from imgrec.training.state import TrainState

CLASSES, BATCH, SHAPE = 4, 16, (8, 8, 3)


class ConvNet(nn.Module):
    """One convolution, its statistics, dropout and a head: all that could mix examples."""

    normalised: bool = True
    dropout: float = 0.2

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.Conv(8, (3, 3), name="conv")(images)
        if self.normalised:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        x = nn.relu(x)[:, ::4, ::4].reshape(len(x), -1)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(CLASSES, name="head")(x)


EVERYTHING = AugmentConfig(pad_crop=1, flip=True, rotation=15.0, cutout=3, mixup=0.4, cutmix=1.0)


def make_task(module, augmentation=None):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
    return Classification(
        module=module,
        augment=augment.build(augmentation or AugmentConfig(), SHAPE, mean, std, CLASSES),
        image_shape=SHAPE,
        mean=mean,
        std=std,
        label_smoothing=0.1,
    )


def batches(count):
    rng = np.random.default_rng(0)
    return [
        {
            "image": rng.integers(0, 256, (BATCH, *SHAPE), dtype=np.uint8),
            "label": rng.integers(0, CLASSES, BATCH, dtype=np.int32),
            "index": np.arange(i * BATCH, (i + 1) * BATCH),
            "mask": np.ones(BATCH, np.bool_),
        }
        for i in range(count)
    ]


def schedule(count):
    return 0.1 / (1 + jnp.asarray(count, jnp.float32))


@dataclasses.dataclass
class Run:
    """A train step, jitted as the loop does, and the state it has come to."""

    mesh: jax.sharding.Mesh
    shardings: TrainState
    train_step: Callable
    state: TrainState
    traces: list

    def take(self, some_batches):
        """Trains, and gives the state and each step's metrics as numpy arrays."""
        metrics = []
        for batch in some_batches:
            self.state, found = self.train_step(self.state, meshes.put_batch(self.mesh, batch))
            metrics.append(found)
        return jax.tree.map(np.array, jax.device_get((self.state, metrics)))


@functools.cache
def initial_variables(module):
    return jax.tree.map(np.array, make_task(module).init(jax.random.key(0)))


def start(task, sizes=(1, 1, 1), placements=((".*", "auto"),), *, accumulate=1, ema=0.9, seed=1):
    params, model_state = initial_variables(task.module)
    config = OptimizerConfig(weight_decay=1e-3, clip_norm=1.0, weight_decay_rules=())
    optimizer = optimizers.create(config, schedule, params)
    pure = step.create(task, optimizer, schedule, seed=seed, accumulate=accumulate, ema=ema)
    traces = []

    def counted(train_state, batch):
        traces.append(None)
        return pure(train_state, batch)

    mesh = meshes.create(MeshConfig(*sizes))
    first = state.create(params, model_state, optimizer, ema=ema > 0)
    shardings = placement.state_shardings(first, mesh, placements)
    train_step = jax.jit(counted, donate_argnums=0, out_shardings=(shardings, None))
    copies = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), first)
    return Run(mesh, shardings, train_step, jax.device_put(copies, shardings), traces)


def assert_close(found, expected, **tolerance):
    found = jax.tree.leaves(found)
    for (path, leaf), other in zip(jax.tree.leaves_with_path(expected), found, strict=True):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(other, leaf, err_msg=name, **tolerance)


def assert_identical(found, expected):
    assert_close(found, expected, rtol=0, atol=0)


@pytest.fixture(scope="module")
def on_one_device():
    """State and metrics after three steps with everything on."""
    return start(make_task(ConvNet(), EVERYTHING)).take(batches(3))


MESHES = {
    "2 devices": ((2, 1, 1), [(".*", "auto")]),
    "8 devices": ((8, 1, 1), [(".*", "auto")]),
    "2 x 2 x 2": (
        (2, 2, 2),
        [("conv/kernel", "-,-,-,tensor"), ("head/kernel", "fsdp,tensor"), (".*", "auto")],
    ),
}


@pytest.mark.parametrize("name", MESHES)
def test_devices_change_nothing_but_rounding(name, on_one_device):
    sizes, placements = MESHES[name]
    run = start(make_task(ConvNet(), EVERYTHING), sizes, placements)
    assert_close(run.take(batches(3)), on_one_device, rtol=1e-4, atol=1e-6)
    for leaf, sharding in zip(
        jax.tree.leaves(run.state), jax.tree.leaves(run.shardings), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
    assert len(run.traces) == 1


def test_the_same_step_gives_the_same_bits(on_one_device):
    assert_identical(start(make_task(ConvNet(), EVERYTHING)).take(batches(3)), on_one_device)


def test_a_state_is_all_that_a_resume_needs(on_one_device):
    two, _ = start(make_task(ConvNet(), EVERYTHING)).take(batches(2))
    resumed = start(make_task(ConvNet(), EVERYTHING))
    resumed.state = jax.device_put(two, resumed.shardings)
    last_state, (metrics,) = resumed.take(batches(3)[2:])
    assert_identical(last_state, on_one_device[0])
    assert_identical(metrics, on_one_device[1][2])


def test_reports_loss_accuracy_gradient_norm_and_learning_rate(on_one_device):
    final, metrics = on_one_device
    assert final.step == 3
    for count, found in enumerate(metrics):
        assert found.keys() == {"loss", "accuracy", "gradient_norm", "learning_rate"}
        np.testing.assert_allclose(found["learning_rate"], 0.1 / (1 + count), rtol=1e-6)
        assert all(np.ndim(value) == 0 and np.isfinite(value) for value in found.values())


def test_the_old_state_is_donated():
    run = start(make_task(ConvNet(), EVERYTHING), *MESHES["2 x 2 x 2"])
    before = run.state
    batch = meshes.put_batch(run.mesh, batches(1)[0])
    run.state, _ = run.train_step(before, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((run.state, batch)))


def test_accumulation_changes_nothing_but_rounding():
    # No layer here mixes examples, and dropout would draw anew for each part.
    task = make_task(ConvNet(normalised=False, dropout=0.0), AugmentConfig(mixup=0.4))
    whole = start(task).take(batches(2))
    parts = start(task, (4, 1, 1), accumulate=4).take(batches(2))
    assert_close(parts, whole, rtol=1e-4, atol=1e-6)


# A task of one number, so that what the step does around it can be computed by hand.


@dataclasses.dataclass(frozen=True)
class Mean:
    """The loss is weight times the batch's mean; the model counts and keeps what it saw."""

    def init(self, key):
        return {"weight": jnp.float32(1.0)}, {
            "stats": {"last": jnp.zeros(2), "parts": jnp.int32(0)}
        }

    def prepare(self, batch, key):
        return {"x": batch["x"], "noise": jnp.full(batch["x"].shape, jax.random.uniform(key))}

    def loss(self, params, model_state, batch, key):
        loss = params["weight"] * batch["x"].mean()
        parts = model_state["stats"]["parts"] + 1
        model_state = {"stats": {"last": batch["x"], "parts": parts}}
        draws = {"augment": batch["noise"].mean(), "model": jax.random.uniform(key)}
        return loss, (model_state, {"loss": loss, **draws})

    def predict(self, variables, images):
        return images


X = np.array([1.0, 3.0, 5.0, 7.0], np.float32)


def step_mean(count, *, accumulate=2, ema=0.0, seed=0, first_step=0):
    task, optimizer = Mean(), optax.sgd(0.1)
    train_step = jax.jit(
        step.create(task, optimizer, lambda s: 0.1, seed=seed, accumulate=accumulate, ema=ema)
    )
    current = state.create(*task.init(jax.random.key(0)), optimizer, ema=ema > 0)
    current = current.replace(step=jnp.int32(first_step))
    visited = []
    for _ in range(count):
        current, metrics = train_step(current, {"x": X})
        visited.append((current, metrics))
    return visited


def test_gradients_are_the_mean_over_the_parts():
    ((after, metrics),) = step_mean(1)
    assert metrics["gradient_norm"] == 4.0  # the mean of X, which is the derivative
    assert metrics["loss"] == 4.0
    np.testing.assert_allclose(after.params["weight"], 1 - 0.1 * 4.0, rtol=1e-6)


def test_part_i_is_every_parts_th_example_and_passes_its_statistics_on():
    ((after, _),) = step_mean(1)
    np.testing.assert_array_equal(after.model_state["stats"]["last"], [3.0, 7.0])
    assert after.model_state["stats"]["parts"] == 2


def test_ema_follows_its_formula():
    decay = 0.25
    weight, average, last = 1.0, 1.0, np.zeros(2)
    for count, (after, _) in enumerate(step_mean(6, ema=decay)):
        weight -= 0.1 * 4.0
        rate = min(decay, (1 + count) / (10 + count))  # 0.1, 2/11, 0.25, ...
        average = rate * average + (1 - rate) * weight
        last = rate * last + (1 - rate) * np.array([3.0, 7.0])
        np.testing.assert_allclose(after.params["weight"], weight, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(after.average["params"]["weight"], average, rtol=1e-5)
        statistics = after.average["model_state"]["stats"]
        np.testing.assert_allclose(statistics["last"], last, rtol=1e-5)
        assert statistics["parts"] == 2 * (count + 1)  # a count is not averaged, it is copied
        assert statistics["parts"].dtype == jnp.int32


def test_without_ema_there_is_no_average():
    assert step_mean(1)[0][0].average is None


def test_keys_are_functions_of_seed_step_purpose_and_part():
    for count, (_, metrics) in enumerate(step_mean(2, seed=5, first_step=40), 40):
        key = randomness.at_step(5, count)
        augment_draw = jax.random.uniform(randomness.named(key, "augment"))
        model_key = randomness.named(key, "model")
        parts = [jax.random.uniform(jax.random.fold_in(model_key, i)) for i in range(2)]
        np.testing.assert_allclose(metrics["augment"], augment_draw, rtol=1e-6)
        np.testing.assert_allclose(metrics["model"], np.mean(parts), rtol=1e-6)
