"""Peers compute the same networks; what cannot be compared is refused."""

import importlib.util
import json
import runpy
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from imgrec import models
from imgrec.benchmarking import flax_networks, step, workers
from imgrec.config import DataConfig, Experiment, ModelConfig
from imgrec.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"
NETS = {
    "lenet": ("mnist", "lenet5", {}),
    "modern lenet": (
        "mnist",
        "lenet5",
        {"activation": "relu", "pool": "max", "connections": "full", "head": "linear"},
    ),
    "average lenet": ("mnist", "lenet5", {"pool": "average", "activation": "tanh"}),
    "resnet": ("cifar10", "resnet8", {}),
    "projected resnet": ("cifar10", "resnet8", {"shortcut": "B"}),
    "plain": ("cifar10", "plain8", {}),
    "wrn": ("cifar10", "wrn10_2", {}),
    "vit": ("cifar10", "vit_ti16", {"pool": "mean", "positions": "sincos"}),
    "cls vit": ("cifar10", "vit_ti16", {"gelu": "erf", "dropout": 0.1}),
}


def experiment(name):
    dataset, model, options = NETS[name]
    return Experiment(
        name="x",
        data=DataConfig(dataset=dataset, batch_size=2),
        model=ModelConfig(name=model, options=ConfigDict(options)),
    )


def shapes(variables):
    """Sizes of all parameters in some order, which tells networks apart better than their sum."""
    return sorted(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("name", NETS)
def test_the_flax_peer_has_the_parameters_of_ours(name):
    plain = step.bare(experiment(name))
    task = json.loads(json.dumps(step.peer_task(plain)))
    images = jax.ShapeDtypeStruct((2, *task["image_shape"]), jnp.float32)
    ours = models.create(plain.model, task["num_classes"])
    peer = flax_networks.create(task["kind"], task["fields"], task["num_classes"], jnp.float32)
    key = jax.random.key(0)
    mine = jax.eval_shape(lambda x: ours.init(key, x, train=False), images)
    theirs = jax.eval_shape(lambda x: peer.init(key, x), images)
    assert shapes(mine) == shapes(theirs)
    logits = jax.eval_shape(lambda v, x: peer.apply(v, x, train=False), theirs, images)
    assert logits.shape == (2, task["num_classes"])


def test_the_flax_peer_computes_what_ours_does():
    """The residual network, parameter by parameter in the order in which layers are applied."""
    plain = step.bare(experiment("resnet"))
    task = step.peer_task(plain)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32)
    ours = models.create(plain.model, 10)
    variables = jax.jit(lambda x: ours.init(jax.random.key(1), x, train=False))(images)
    peer = flax_networks.create(task["kind"], task["fields"], 10, jnp.float32)
    theirs = jax.jit(peer.init)(jax.random.key(0), images)
    own = variables["params"]
    blocks = [own["stem"], *(own[f"stage{s}_block0"] for s in (1, 2, 3))]
    convolutions = [blocks[0]["conv"]] + [b[n] for b in blocks[1:] for n in ("conv1", "conv2")]
    norms = [blocks[0]["norm"]] + [b[n] for b in blocks[1:] for n in ("norm1", "norm2")]
    params = {f"Conv_{i}": c for i, c in enumerate(convolutions)}
    params |= {f"BatchNorm_{i}": n for i, n in enumerate(norms)} | {"Dense_0": own["head"]}
    told = jax.jit(lambda v: peer.apply(v, images, train=False))({**theirs, "params": params})
    expected = jax.jit(lambda v: ours.apply(v, images, train=False))(variables)
    np.testing.assert_allclose(told, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("name", NETS)
def test_the_torch_peer_has_the_parameters_of_ours_and_steps(name):
    from imgrec.benchmarking import torch_worker

    plain = step.bare(experiment(name))
    task = json.loads(json.dumps(step.peer_task(plain)))
    run, facts = torch_worker.prepare(task)
    run(1)
    images = jax.ShapeDtypeStruct((2, *task["image_shape"]), jnp.float32)
    ours = models.create(plain.model, task["num_classes"])
    mine = jax.eval_shape(lambda x: ours.init(jax.random.key(0), x, train=False), images)
    assert facts["parameters"] == sum(shapes(mine))


def test_a_plain_experiment_keeps_network_batch_and_precision():
    c = runpy.run_path(str(CONFIGS / "cifar10_vit.py"))["get_config"]()
    c.train.compute_dtype = "bfloat16"
    plain = step.bare(c)
    assert (plain.data.batch_size, plain.train.compute_dtype) == (256, "bfloat16")
    assert plain.model.options.positions == "sincos" and plain.model.options.dropout == 0
    assert (plain.train.ema, plain.train.label_smoothing, plain.augment.mixup) == (0, 0, 0)
    assert plain.optimizer.name == "sgd" and plain.optimizer.options.momentum == 0.9


def test_a_network_without_peers_is_refused_with_those_that_have_some():
    c = experiment("resnet")
    c.model = ModelConfig(name="small_cnn")
    with pytest.raises(UserError, match=r"No peer of small_cnn.*CifarResNet.*resnet20"):
        step.peer_task(step.bare(c))
    c.model = ModelConfig(name="resnet8", options=ConfigDict({"attention": "se"}))
    with pytest.raises(UserError, match=r"have no attention='se'"):
        step.peer_task(step.bare(c))


class FakeWorker(workers.Worker):
    """A contestant with a given speed."""

    def __init__(self, seconds, parameters):
        self.seconds = seconds
        self.facts = {"parameters": parameters, "flops": 1.0, "device": "cpu"}

    def run(self, steps):
        return workers.Spent(self.seconds * steps, self.seconds * steps)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def speeds(monkeypatch):
    """speeds(ours, theirs, parameters): makes workers of given seconds a step."""

    def set_speeds(ours, theirs, parameters=(7, 7)):
        made = {"step": (ours, parameters[0]), "torch": (theirs, parameters[1])}

        def worker(module, task, **_):
            name = module.rpartition(".")[2].removesuffix("_worker")
            return FakeWorker(*made[name])

        monkeypatch.setattr(step, "Worker", worker)

    return set_speeds


def test_ratios_above_one_mean_that_ours_is_faster(speeds):
    speeds(0.5, 0.75)
    found = step.measure(experiment("resnet"), ["torch"], rounds=3, told=str)
    ratio = found["ratios"]["torch"]
    assert ratio["minimum"] == ratio["median"] == ratio["cpu"] == 1.5
    assert found["reached"] and found["median"] == 1.5 and found["n"] == 3
    assert found["images_per_second"] == {"imgrec": 4.0, "torch": 2 / 0.75}


def test_networks_of_other_sizes_are_not_compared(speeds):
    speeds(1.0, 1.0, (7, 8))
    with pytest.raises(ValueError, match="the networks differ: 7 parameters here, and 8 in torch"):
        step.measure(experiment("resnet"), ["torch"], rounds=1, told=str)


def test_a_framework_that_is_not_there_is_refused_with_what_to_type(monkeypatch):
    def worker(module, task, **_):
        if module.endswith("torch_worker"):
            raise workers.MissingError("torch")
        return FakeWorker(1.0, 7)

    monkeypatch.setattr(step, "Worker", worker)
    with pytest.raises(UserError, match=r"pip install torch, or name .*--torch_python=PATH"):
        step.measure(experiment("resnet"), ["torch"], rounds=1, torch_python=sys.executable)


def test_the_stock_networks_are_of_stock_layers():
    source = Path(flax_networks.__file__).read_text()
    assert "imgrec" not in source.split('"""')[2]
    assert all(issubclass(network, nn.Module) for network in flax_networks.NETWORKS.values())
