"""CIFAR ResNets from PyTorch: the same logits, from files of both formats."""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.transfer import mapping, sources, tables

torch = pytest.importorskip("torch")
nn = torch.nn

SHAPE = (16, 16, 3)


class Block(nn.Module):
    """Written from the paper, with the names and the shortcut of akamaster's repository."""

    def __init__(self, before, features, stride, option):
        super().__init__()
        self.conv1 = nn.Conv2d(before, features, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)
        self.gained = features - before
        if self.gained and option == "B":
            projection = nn.Conv2d(before, features, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(features))
        else:
            self.shortcut = None

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.gained:
            half = self.gained // 2
            x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
        return (x + y).relu()


class ResNet(nn.Module):
    def __init__(self, blocks, option="A", classes=10):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        before = 16
        for stage, features in enumerate((16, 32, 64), start=1):
            layers = []
            for block in range(blocks):
                stride = 2 if stage > 1 and block == 0 else 1
                layers.append(Block(before, features, stride, option))
                before = features
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self.linear = nn.Linear(64, classes)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def create(name, shortcut="A"):
    module = models.create(ModelConfig(name, ConfigDict({"shortcut": shortcut})), 10)
    images = jnp.zeros((1, *SHAPE))
    shapes = flax.core.unfreeze(jax.eval_shape(lambda: module.init(jax.random.key(0), images)))
    return module, shapes.pop("params"), shapes


@functools.cache
def forward(depth, shortcut):
    module, _, _ = create(f"resnet{depth}", shortcut)
    return jax.jit(functools.partial(module.apply, train=False))


def agree(network, module_name, shortcut, arrays):
    module, params, model_state = create(module_name, shortcut)
    table = mapping.choose(arrays, tables.known(module, SHAPE))
    params, model_state, accounting = mapping.convert(arrays, table, params, model_state)
    images = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    found = forward(module.depth, shortcut)({"params": params, **model_state}, images)
    assert np.ptp(expected, axis=0).max() > 0.3  # the images are told apart
    np.testing.assert_allclose(found, expected, atol=1e-4)
    return accounting


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_resnet20_as_akamaster_saves_it(legacy, randomised, tmp_path):
    network = randomised(ResNet(3))
    assert sum(p.numel() for p in network.parameters()) == 269_722
    path = tmp_path / "resnet20.th"
    checkpoint = {
        "state_dict": {f"module.{name}": t for name, t in network.state_dict().items()},
        "best_prec1": 91.25,
    }
    torch.save(checkpoint, path, _use_new_zipfile_serialization=not legacy)
    accounting = agree(network, "resnet20", "A", sources.read(path).arrays)
    # 19 convolutions, as many batch norms of four arrays, and the head.
    assert len(accounting.renamed) == 19 + 4 * 19 + 2
    assert len(accounting.ignored) == 19
    assert accounting.prefix == "module."
    assert accounting.naming == "akamaster/pytorch_resnet_cifar10"


def test_the_order_of_channels_matters_with_padded_shortcuts(randomised):
    """Without the turn the logits would differ, so the test above can fail."""
    network = randomised(ResNet(1))
    arrays = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    module, params, model_state = create("resnet8", "A")
    plain = tables.named(module.clone(shortcut="none"), SHAPE, "akamaster/pytorch_resnet_cifar10")
    params, model_state, _ = mapping.convert(arrays, plain, params, model_state)
    images = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    found = forward(8, "A")({"params": params, **model_state}, images)
    assert np.abs(found - expected).max() > 0.1
    agree(network, "resnet8", "A", arrays)


def test_projected_shortcuts(randomised):
    network = randomised(ResNet(1, option="B"))
    arrays = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    agree(network, "resnet8", "B", arrays)
