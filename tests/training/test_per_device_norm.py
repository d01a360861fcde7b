import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from imgrec.config import MeshConfig
from imgrec.errors import UserError
from imgrec.training import mesh as meshes
from imgrec.training import per_device_norm, state, step

ROWS, CLASSES = 16, 3
COLLECTIVE = re.compile(r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)")


class Net(nn.Module):
    """Two layers with batch norm, so that the second sees what the first made of the rows."""

    @nn.compact
    def __call__(self, x, train):
        for name in ("first", "second"):
            x = nn.Dense(8, name=name)(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=0.8, name=f"{name}_norm")(x)
            x = nn.tanh(x)
        return nn.Dense(CLASSES, name="head")(x)


class Squares:
    """The task of a regression; what `step` needs of a task."""

    def init(self, key, images=None):
        raise NotImplementedError

    def prepare(self, batch, key):
        return batch

    def predict(self, variables, images):
        raise NotImplementedError

    def loss(self, params, model_state, batch, key):
        variables = {"params": params, **model_state}
        y, changed = Net().apply(variables, batch["x"], True, mutable=["batch_stats"])
        loss = jnp.mean((y - batch["y"]) ** 2)
        return loss, (dict(changed), {"loss": loss})


@pytest.fixture
def variables():
    found = Net().init(jax.random.key(1), jnp.zeros((1, 5)), False)
    # Statistics that are no start, so that what is kept of them shows.
    moved = jax.tree.map(lambda leaf: leaf + 0.25, found["batch_stats"])
    return jax.tree.map(np.array, {"params": found["params"], "batch_stats": moved})


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    # Rows of different scales, so that devices' statistics differ.
    scale = np.linspace(0.5, 3, ROWS)[:, None]
    x = (rng.normal(size=(ROWS, 5)) * scale + scale).astype(np.float32)
    return {"x": x, "y": rng.normal(size=(ROWS, CLASSES)).astype(np.float32)}


def started(variables):
    params, statistics = variables["params"], {"batch_stats": variables["batch_stats"]}
    return state.create(
        jax.tree.map(jnp.array, params), jax.tree.map(jnp.array, statistics), SGD, ema=False
    )


SGD = optax.sgd(1.0)  # so that gradients are what parameters lose


def take_step(variables, batch, sizes, *, accumulate=1, norm="per_device"):
    mesh = meshes.create(MeshConfig(*sizes))
    train_step = step.create(
        Squares(),
        SGD,
        lambda count: 1.0,
        seed=0,
        accumulate=accumulate,
        norm_devices=mesh if norm == "per_device" else None,
    )
    compiled = jax.jit(train_step).lower(started(variables), meshes.put_batch(mesh, batch))
    compiled = compiled.compile()
    after, metrics = compiled(started(variables), meshes.put_batch(mesh, batch))
    gradients = jax.tree.map(
        lambda before, now: before - np.asarray(now), variables["params"], after.params
    )
    return gradients, jax.device_get(after.model_state["batch_stats"]), metrics, compiled


def by_hand(variables, parts):
    """One device after the other: means of gradients, statistics and losses over `parts`, each
    the rows that one device sees one after the other."""
    found = []
    for rows in parts:
        statistics = variables["batch_stats"]
        gradients, losses = [], []
        for x, y in rows:

            def loss(params, x=x, y=y, statistics=statistics):
                every = {"params": params, "batch_stats": statistics}
                out, changed = Net().apply(every, x, True, mutable=["batch_stats"])
                return jnp.mean((out - y) ** 2), changed["batch_stats"]

            (value, statistics), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
            gradients.append(grads)
            losses.append(value)
        mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *gradients)
        found.append((mean, statistics, np.mean(losses)))
    return jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *found)


def assert_close(found, expected):
    # Sums of some hundred float32 products of order one.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6), found, expected
    )


@pytest.mark.parametrize(
    ("sizes", "accumulate"),
    [((1, 1, 1), 1), ((2, 1, 1), 1), ((8, 1, 1), 2), ((2, 2, 1), 1), ((1, 4, 1), 4)],
)
def test_each_device_normalises_its_own_rows(variables, batch, sizes, accumulate):
    devices = sizes[0] * sizes[1]
    x, y = (np.split(batch[name], devices) for name in "xy")
    # Of its rows, a device takes every accumulate-th at a time.
    parts = [
        [(x[device][i::accumulate], y[device][i::accumulate]) for i in range(accumulate)]
        for device in range(devices)
    ]
    gradients, statistics, metrics, _ = take_step(variables, batch, sizes, accumulate=accumulate)
    expected_gradients, expected_statistics, loss = by_hand(variables, parts)
    assert_close(gradients, expected_gradients)
    assert_close(statistics, expected_statistics)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)


def test_the_devices_matter_here_and_nowhere_else(variables, batch):
    whole = take_step(variables, batch, (1, 1, 1))
    same = take_step(variables, batch, (4, 1, 1), norm="global")
    other = take_step(variables, batch, (4, 1, 1))
    assert_close(same[:2], whole[:2])
    kernel = "second", "kernel"
    difference = other[0][kernel[0]][kernel[1]] - whole[0][kernel[0]][kernel[1]]
    assert np.abs(difference).max() > 1e-2


def test_a_tensor_axis_changes_nothing(variables, batch):
    assert_close(
        take_step(variables, batch, (2, 1, 2))[:3], take_step(variables, batch, (2, 1, 1))[:3]
    )


def test_nothing_waits_for_other_devices_in_the_forward_pass(variables, batch):
    mesh = meshes.create(MeshConfig(data=8))
    placed = meshes.put_batch(mesh, batch)

    def logits(variables, x, spread):
        statistics = {"batch_stats": variables["batch_stats"]}
        if not spread:
            every = {"params": variables["params"], **statistics}
            return Net().apply(every, x, True, mutable=["batch_stats"])[0]
        with per_device_norm.within_devices(mesh):
            every = {"params": variables["params"], **per_device_norm.spread(statistics, mesh)}
            return Net().apply(every, x, True, mutable=["batch_stats"])[0]

    def collectives(spread):
        jitted = jax.jit(lambda v, x: logits(v, x, spread))
        return len(COLLECTIVE.findall(jitted.lower(variables, placed["x"]).compile().as_text()))

    assert collectives(spread=False) >= 2  # each norm waits
    assert collectives(spread=True) == 0


def test_a_step_sends_no_more_than_once_for_all_layers(variables, batch):
    """Gradients, statistics and the loss are sums that nothing waits for, so they go together."""
    own = take_step(variables, batch, (8, 1, 1))[-1].as_text()
    whole = take_step(variables, batch, (8, 1, 1), norm="global")[-1].as_text()
    assert len(COLLECTIVE.findall(own)) < len(COLLECTIVE.findall(whole))
    parts = take_step(variables, batch, (8, 1, 1), accumulate=2)[-1].as_text()
    assert "while" in parts


def test_a_network_without_batch_norm_is_refused():
    per_device_norm.check({"batch_stats": {}}, "resnet8")
    with pytest.raises(UserError, match=r"vit_ti4 has none\. Set --config.train.bn_sync=global"):
        per_device_norm.check({}, "vit_ti4")
