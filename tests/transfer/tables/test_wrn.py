"""Wide residual networks from PyTorch: the same logits."""

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.transfer import mapping, sources, tables

torch = pytest.importorskip("torch")
nn = torch.nn

SHAPE = (16, 16, 3)


class Block(nn.Module):
    """Pre-activated (figure 1d of the paper), with the names of xternalz's repository."""

    def __init__(self, before, features, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, features, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        if before != features:
            self.convShortcut = nn.Conv2d(before, features, 1, stride, bias=False)

    def forward(self, x):
        activated = self.bn1(x).relu()
        if hasattr(self, "convShortcut"):
            x = self.convShortcut(activated)
        return x + self.conv2(self.bn2(self.conv1(activated)).relu())


class Stage(nn.Module):
    def __init__(self, blocks, before, features, stride):
        super().__init__()
        rest = [Block(features, features, 1) for _ in range(blocks - 1)]
        self.layer = nn.Sequential(Block(before, features, stride), *rest)


class WideResNet(nn.Module):
    def __init__(self, depth, widen_factor):
        super().__init__()
        blocks, k = (depth - 4) // 6, widen_factor
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.block1 = Stage(blocks, 16, 16 * k, 1)
        self.block2 = Stage(blocks, 16 * k, 32 * k, 2)
        self.block3 = Stage(blocks, 32 * k, 64 * k, 2)
        self.bn1, self.fc = nn.BatchNorm2d(64 * k), nn.Linear(64 * k, 10)

    def forward(self, x):
        x = self.conv1(x)
        for stage in (self.block1, self.block2, self.block3):
            x = stage.layer(x)
        return self.fc(self.bn1(x).relu().mean((2, 3)))


@pytest.mark.parametrize(("depth", "widen_factor"), [(16, 2), (10, 1)])
def test_the_same_logits(depth, widen_factor, randomised, tmp_path):
    network = randomised(WideResNet(depth, widen_factor))
    torch.save({"state_dict": network.state_dict(), "epoch": 199}, tmp_path / "wrn.pth")
    arrays = sources.read(tmp_path / "wrn.pth").arrays

    module = models.create(ModelConfig(f"wrn{depth}_{widen_factor}"), 10)
    images = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.asarray(images)))
    shapes = flax.core.unfreeze(shapes)
    (table,) = tables.known(module, SHAPE)
    params, model_state, accounting = mapping.convert(arrays, table, shapes.pop("params"), shapes)
    assert {name.rsplit(".", 1)[-1] for name in accounting.ignored} == {"num_batches_tracked"}
    with torch.no_grad():
        expected = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    apply = jax.jit(functools.partial(module.apply, train=False))
    found = apply({"params": params, **model_state}, images)
    assert np.ptp(expected, axis=0).max() > 0.3
    np.testing.assert_allclose(found, expected, atol=1e-4)
