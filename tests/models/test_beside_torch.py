"""Whole networks against the same networks written with PyTorch's operations.

Thin ones with random weights and statistics, on images whose odd sizes would show a wrong
padding. What is here is written from the papers, layer by layer, and shares nothing with the
models but their variables.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig

torch = pytest.importorskip("torch")
F = torch.nn.functional


class Weights:
    """A model's variables, taken by name as PyTorch wants them, and the layers that need them."""

    def __init__(self, variables):
        self.variables = variables
        self.used = set()

    def _take(self, collection, name):
        value = self.variables[collection]
        for part in name.split("/"):
            value = value[part]
        self.used.add((collection, name))
        return torch.from_numpy(np.array(value))

    def conv(self, name, x, stride=1, groups=1, bias=False):
        kernel = self._take("params", f"{name}/kernel").permute(3, 2, 0, 1)
        offset = self._take("params", f"{name}/bias") if bias else None
        padding = kernel.shape[-1] // 2
        return F.conv2d(x, kernel, offset, stride=stride, padding=padding, groups=groups)

    def norm(self, name, x, eps=1e-5, scaled=True):
        mean, var = (self._take("batch_stats", f"{name}/{key}") for key in ("mean", "var"))
        scale = self._take("params", f"{name}/scale") if scaled else None
        return F.batch_norm(x, mean, var, scale, self._take("params", f"{name}/bias"), eps=eps)

    def conv_norm(self, name, x, **arguments):
        return self.norm(f"{name}/norm", self.conv(f"{name}/conv", x, **arguments))

    def dense(self, name, x, bias=True):
        kernel = self._take("params", f"{name}/kernel").T
        return F.linear(x, kernel, self._take("params", f"{name}/bias") if bias else None)


def _blur(x):
    weights = torch.tensor([1.0, 2.0, 1.0])
    kernel = (torch.outer(weights, weights) / 16).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), "reflect"), kernel, stride=2, groups=x.shape[1])


def _pooled_mean(x):
    return x.mean((2, 3))


def _basic_resnet(w, x):
    """ResNet-18's kind: 7x7 stem, blocks of two 3x3."""
    x = F.max_pool2d(F.relu(w.conv_norm("stem", x, stride=2)), 3, 2, 1)
    for stage, block in itertools.product((1, 2), (0, 1)):
        name, stride = f"stage{stage}_block{block}", 2 if (stage, block) == (2, 0) else 1
        y = F.relu(w.norm(f"{name}/norm1", w.conv(f"{name}/conv1", x, stride=stride)))
        y = w.norm(f"{name}/norm2", w.conv(f"{name}/conv2", y))
        x = F.relu(y + (w.conv_norm(f"{name}/projection", x, stride=2) if stride == 2 else x))
    return w.dense("head", _pooled_mean(x))


def _refined_resnext(w, x):
    """Bottlenecks with two groups, a deep stem, means in the shortcut, squeeze-excitation."""
    for layer in (1, 2, 3):
        x = F.relu(w.conv_norm(f"stem{layer}", x, stride=2 if layer == 1 else 1))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage in (1, 2):
        name = f"stage{stage}_block0"
        y = F.relu(w.norm(f"{name}/norm1", w.conv(f"{name}/conv1", x)))
        y = w.conv(f"{name}/conv2", y, stride=stage, groups=2)
        y = w.norm(f"{name}/norm3", w.conv(f"{name}/conv3", F.relu(w.norm(f"{name}/norm2", y))))
        hidden = F.relu(w.dense(f"{name}/attention/hidden", _pooled_mean(y)))
        y = y * torch.sigmoid(w.dense(f"{name}/attention/out", hidden))[:, :, None, None]
        if stage == 2:
            x = F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)
        x = F.relu(y + w.conv_norm(f"{name}/projection", x))
    return w.dense("head", _pooled_mean(x))


def _smoothed_resnet(w, x):
    """Anti-aliased bottlenecks: after the second rectifier, in the shortcut and in the stem."""
    x = _blur(F.max_pool2d(F.relu(w.conv_norm("stem", x, stride=2)), 3, 1, 1))
    for stage in (1, 2):
        name = f"stage{stage}_block0"
        y = F.relu(w.norm(f"{name}/norm1", w.conv(f"{name}/conv1", x)))
        y = F.relu(w.norm(f"{name}/norm2", w.conv(f"{name}/conv2", y)))
        x, y = (_blur(x), _blur(y)) if stage == 2 else (x, y)
        y = w.norm(f"{name}/norm3", w.conv(f"{name}/conv3", y))
        x = F.relu(y + w.conv_norm(f"{name}/projection", x))
    return w.dense("head", _pooled_mean(x))


def _smoothed_basic_resnet(w, x):
    """Anti-aliased blocks of two 3x3 convolutions, for small images."""
    x = F.relu(w.conv_norm("stem", x))
    for stage in (1, 2):
        name = f"stage{stage}_block0"
        y = F.relu(w.norm(f"{name}/norm1", w.conv(f"{name}/conv1", x)))
        x, y = (_blur(x), _blur(y)) if stage == 2 else (x, y)
        y = w.norm(f"{name}/norm2", w.conv(f"{name}/conv2", y))
        x = F.relu(y + (w.conv_norm(f"{name}/projection", x) if stage == 2 else x))
    return w.dense("head", _pooled_mean(x))


def _preact_resnet(w, x):
    """Bottlenecks that begin with norm and rectifier; the first follows the pooling."""
    x = F.max_pool2d(w.conv("stem", x, stride=2), 3, 2, 1)
    for stage, block in itertools.product((1, 2), (0, 1)):
        name, stride = f"stage{stage}_block{block}", 2 if (stage, block) == (2, 0) else 1
        y = F.relu(w.norm(f"{name}/norm1", x))
        if block == 0:
            x = w.conv(f"{name}/projection", y, stride=stride)
        y = w.conv(f"{name}/conv1", y)
        y = w.conv(f"{name}/conv2", F.relu(w.norm(f"{name}/norm2", y)), stride=stride)
        x = x + w.conv(f"{name}/conv3", F.relu(w.norm(f"{name}/norm3", y)))
    return w.dense("head", _pooled_mean(F.relu(w.norm("norm", x))))


def _basic_preact_resnet(w, x):
    """Two 3x3 convolutions, and a shortcut that only changes where the shape does."""
    x = w.conv("stem", x)
    for stage in (1, 2):
        name = f"stage{stage}_block0"
        y = F.relu(w.norm(f"{name}/norm1", x))
        x = w.conv(f"{name}/projection", y, stride=2) if stage == 2 else x
        y = w.conv(f"{name}/conv1", y, stride=stage)
        x = x + w.conv(f"{name}/conv2", F.relu(w.norm(f"{name}/norm2", y)))
    return w.dense("head", _pooled_mean(F.relu(w.norm("norm", x))))


def _vgg(w, x):
    for stage, layers in ((1, 1), (2, 2)):
        for layer in range(layers):
            x = F.relu(w.conv_norm(f"stage{stage}_layer{layer}", x, bias=True))
        x = F.max_pool2d(x, 2)
    x = F.adaptive_avg_pool2d(x, 7).permute(0, 2, 3, 1).flatten(1)
    return w.dense("head", F.relu(w.dense("fc2", F.relu(w.dense("fc1", x)))))


def _densenet(w, x):
    x = F.max_pool2d(F.relu(w.conv_norm("stem", x, stride=2)), 3, 2, 1)
    for stage, layers in ((1, 2), (2, 1)):
        for layer in range(layers):
            name = f"stage{stage}_layer{layer}"
            y = w.conv(f"{name}/conv1", F.relu(w.norm(f"{name}/norm1", x)))
            y = w.conv(f"{name}/conv2", F.relu(w.norm(f"{name}/norm2", y)))
            x = torch.cat([x, y], 1)
        if stage == 1:
            x = w.conv("transition1/conv", F.relu(w.norm("transition1/norm", x)))
            x = F.avg_pool2d(x, 2)
    return w.dense("head", _pooled_mean(F.relu(w.norm("norm", x))))


def _airbench(w, x, convolutions):
    kernel = w._take("whitening", "whiten/kernel").permute(3, 2, 0, 1)
    x = F.gelu(F.conv2d(x, kernel, w._take("params", "whiten/bias")))
    norm = functools.partial(w.norm, eps=1e-12, scaled=False)
    for stage in (1, 2, 3):
        name = f"stage{stage}_group"
        x = F.max_pool2d(w.conv(f"{name}/conv1", x), 2)
        x = F.gelu(norm(f"{name}/norm1", x))
        y = norm(f"{name}/norm2", w.conv(f"{name}/conv2", x))
        if convolutions == 3:
            y = x + norm(f"{name}/norm3", w.conv(f"{name}/conv3", F.gelu(y)))
        x = F.gelu(y)
    x = F.max_pool2d(x, 3).flatten(1)
    return w.dense("head", x, bias=False) / 9


# Name, options, fields that make it thin, size of the images, and the network in PyTorch.
CASES = {
    "resnet18": ("resnet18", {"width": 4}, {"blocks": (2, 2)}, (33, 46), _basic_resnet),
    "resnext50 refined": (
        "resnext50_2x32d",
        {"width": 8, "stem": "deep", "shortcut": "mean", "attention": "se"},
        {"blocks": (1, 1)},
        (33, 46),
        _refined_resnext,
    ),
    "resnet50 anti-aliased": (
        "resnet50",
        {"width": 4, "anti_aliased": True},
        {"blocks": (1, 1)},
        (33, 46),
        _smoothed_resnet,
    ),
    "resnet18 anti-aliased": (
        "resnet18",
        {"width": 4, "anti_aliased": True, "stem": "small_images"},
        {"blocks": (1, 1)},
        (9, 12),
        _smoothed_basic_resnet,
    ),
    "preact_resnet50": (
        "preact_resnet50",
        {"width": 4},
        {"blocks": (2, 2)},
        (33, 46),
        _preact_resnet,
    ),
    "preact_resnet18": (
        "preact_resnet18",
        {"width": 4, "stem": "small_images"},
        {"blocks": (1, 1)},
        (9, 12),
        _basic_preact_resnet,
    ),
    "vgg11_bn": (
        "vgg11_bn",
        {"width": 4, "hidden": 8},
        {"layers": (1, 2)},
        (33, 46),
        _vgg,
    ),
    "densenet121": (
        "densenet121",
        {},
        {"layers": (2, 1), "growth_rate": 4, "stem_features": 6},
        (33, 46),
        _densenet,
    ),
    "airbench94": (
        "airbench94",
        {},
        {"widths": (8, 12, 12)},
        (32, 32),
        functools.partial(_airbench, convolutions=2),
    ),
    "airbench96": (
        "airbench96",
        {},
        {"widths": (8, 12, 12)},
        (32, 32),
        functools.partial(_airbench, convolutions=3),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_same_network_in_torch(case, fill):
    name, options, fields, size, network = CASES[case]
    module = models.create(ModelConfig(name, ConfigDict(options)), 5).clone(**fields)
    images = np.random.default_rng(1).normal(size=(3, *size, 3)).astype(np.float32)
    variables = fill(module, jnp.asarray(images), train=False)
    ours = jax.jit(functools.partial(module.apply, train=False))(variables, jnp.asarray(images))

    weights = Weights(variables)
    with torch.no_grad():
        theirs = network(weights, torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    assert np.std(theirs) > 1e-3
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())
    everything = {
        (path[0].key, "/".join(key.key for key in path[1:]))
        for path, _ in jax.tree_util.tree_leaves_with_path(variables)
    }
    assert weights.used == everything
