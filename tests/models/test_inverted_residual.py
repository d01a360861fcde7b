"""Inverted residuals against loops in numpy: both paddings, both gates, fused and not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from imgrec.models.inverted_residual import (
    Block,
    Conventions,
    InvertedResidual,
    SqueezeExcitation,
    round_channels,
)

EPSILON = 1e-3


def _layer(block, padding="half", gate="sigmoid", drop_rate=0.0):
    conventions = Conventions(padding, 0.99, EPSILON, jnp.float32)
    return InvertedResidual(block, gate=gate, drop_rate=drop_rate, conventions=conventions)


def _images(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def _margins(length, kernel_size, strides, padding):
    """Zeros before and after, from what TensorFlow's documentation says of "SAME"."""
    if padding == "half":
        return kernel_size // 2, kernel_size // 2
    if length % strides == 0:
        total = max(kernel_size - strides, 0)
    else:
        total = max(kernel_size - length % strides, 0)
    return total // 2, total - total // 2


def _conv(x, kernel, strides=1, padding="half"):
    """A convolution pixel by pixel; a kernel with one input channel is depthwise."""
    size = kernel.shape[0]
    margins = [_margins(n, size, strides, padding) for n in x.shape[1:3]]
    x = np.pad(x, [(0, 0), *margins, (0, 0)])
    rows = range(0, x.shape[1] - size + 1, strides)
    columns = range(0, x.shape[2] - size + 1, strides)
    out = np.zeros((len(x), len(rows), len(columns), kernel.shape[-1]))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            window = x[:, row : row + size, column : column + size]
            if kernel.shape[2] == 1:
                out[:, i, j] = np.einsum("bijc,ijc->bc", window, kernel[:, :, 0])
            else:
                out[:, i, j] = np.einsum("bijc,ijcd->bd", window, kernel)
    return out


def _norm(x, params, stats):
    x = (x - stats["mean"]) / np.sqrt(stats["var"] + EPSILON)
    return x * params["scale"] + params["bias"]


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "swish": lambda x: x * expit(x),
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
}


def _squeeze_excitation(x, params, activation, gate):
    y = x.mean((1, 2)) @ params["reduce"]["kernel"] + params["reduce"]["bias"]
    y = ACTIVATIONS[activation](y) @ params["expand"]["kernel"] + params["expand"]["bias"]
    y = expit(y) if gate == "sigmoid" else np.clip(y + 3, 0, 6) / 6
    return x * y[:, None, None]


def _reference(block, variables, x, padding, gate):
    params, stats = variables["params"], variables["batch_stats"]

    def conv_norm(name, x, strides=1):
        y = _conv(x, params[name]["conv"]["kernel"], strides, padding)
        return _norm(y, params[name]["norm"], stats[name]["norm"])

    act = ACTIVATIONS[block.activation]
    y = x
    if block.fused:
        y = act(conv_norm("expand", y, block.strides))
    else:
        if "expand" in params:
            y = act(conv_norm("expand", y))
        y = act(conv_norm("depthwise", y, block.strides))
        if block.squeezed:
            inside = "relu" if gate == "hard_sigmoid" else block.activation
            y = _squeeze_excitation(y, params["squeeze_excitation"], inside, gate)
    if "project" in params:
        y = conv_norm("project", y)
    return x + y if y.shape == x.shape and block.strides == 1 else y


@pytest.mark.parametrize(
    ("block", "padding", "gate", "names"),
    [
        (
            Block(3, 24, 8, 2, 2, "swish"),
            "same",
            "sigmoid",
            {"expand", "depthwise", "squeeze_excitation", "project"},
        ),
        (
            Block(5, 12, 4, 1, 3, "hard_swish"),
            "half",
            "hard_sigmoid",
            {"expand", "depthwise", "squeeze_excitation", "project"},
        ),
        (Block(5, 12, 4, 2, 0, "relu6"), "same", "sigmoid", {"expand", "depthwise", "project"}),
        (Block(5, 12, 4, 2, 0, "relu"), "half", "sigmoid", {"expand", "depthwise", "project"}),
        (Block(3, 4, 4, 1, 0, "relu6"), "same", "sigmoid", {"depthwise", "project"}),
        (Block(3, 16, 6, 2, 0, "swish", True), "same", "sigmoid", {"expand", "project"}),
        (Block(3, 4, 4, 1, 0, "swish", True), "half", "sigmoid", {"expand"}),
    ],
)
def test_a_block_against_numpy(fill, block, padding, gate, names):
    # One even and one odd side, where "same" pads differently.
    x = _images(2, 8, 7, 4)
    layer = _layer(block, padding, gate)
    variables = fill(layer, x, train=False)
    assert set(variables["params"]) == names
    out = jax.jit(functools.partial(layer.apply, train=False))(variables, x)
    exact = jax.tree.map(np.float64, variables)
    expected = _reference(block, exact, np.float64(x), padding, gate)
    assert out.shape == expected.shape
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


def test_a_dropped_branch_leaves_the_shortcut(fill):
    x = _images(16, 4, 4, 4)
    layer = _layer(Block(3, 8, 4, 1, 0, "relu6"), drop_rate=0.5)
    variables = fill(layer, x, train=False)
    train = functools.partial(layer.apply, train=True, mutable=["batch_stats"])
    out, _ = jax.jit(lambda: train(variables, x, rngs={"dropout": jax.random.key(2)}))()
    unchanged = np.all(np.asarray(out == x), axis=(1, 2, 3))
    assert 0 < unchanged.sum() < 16


def test_gates_can_be_asked_for_and_are_what_the_channels_were_multiplied_by(fill):
    x = _images(3, 4, 4, 6)
    layer = SqueezeExcitation(2, activation="swish", gate="sigmoid", dtype=jnp.float32)
    variables = fill(layer, x)
    out, sown = jax.jit(functools.partial(layer.apply, mutable=["intermediates"]))(variables, x)
    (gate,) = sown["intermediates"]["gate"]
    assert gate.shape == (3, 6)
    assert 0 < gate.min() < gate.max() < 1
    np.testing.assert_allclose(out, x * gate[:, None, None], rtol=1e-5)


def test_channels_are_rounded_to_eights_but_never_by_more_than_a_tenth_down():
    # Values of the tables of scaled networks: B1's, B2's and MobileNetV2 x 0.75.
    scaled = {16 * 1.1: 16, 24 * 1.1: 24, 40 * 1.2: 48, 80 * 1.4: 112, 320 * 1.1: 352}
    scaled |= {24 * 0.75: 24, 32 * 0.75: 24, 1.0: 8, 11.0: 16, 320 * 2.0: 640}
    for channels, expected in scaled.items():
        assert round_channels(channels) == expected, channels
    for channels in range(8, 2000):
        rounded = round_channels(float(channels))
        assert rounded % 8 == 0
        assert 0.9 * channels <= rounded < channels + 8
