"""The inverted residual block that MobileNets and EfficientNets are made of.

Sandler et al. 2018, "MobileNetV2", section 3.3, https://arxiv.org/abs/1801.04381: expand to
many channels by a 1x1 convolution, filter each alone, project to few; the shortcut joins the
narrow ends. Squeeze-excitation within is that of Hu et al. 2017, "Squeeze-and-Excitation
Networks", https://arxiv.org/abs/1709.01507.
"""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imgrec.models.convolution import ConvNorm, Padding, he_normal_fan_out
from imgrec.models.stochastic_depth import StochasticDepth

Activation = Literal["relu", "relu6", "swish", "hard_swish"]

_ACTIVATIONS = {
    "relu": nn.relu,
    "relu6": nn.relu6,
    "swish": nn.swish,
    "hard_swish": nn.hard_swish,
}


@dataclass(frozen=True)
class Block:
    """One row of a network's table, in channels."""

    kernel_size: int
    expanded: int  # channels inside; as many as come in: nothing is expanded
    features: int  # channels that go out
    strides: int
    squeezed: int  # channels of the squeeze-excitation's bottleneck; 0: there is none
    activation: Activation
    fused: bool = False  # expands by the kernel_size convolution itself, with no depthwise one


@dataclass(frozen=True)
class Conventions:
    """What the convolutions of one network have in common; published weights depend on it."""

    padding: Padding
    momentum: float  # of the moving statistics
    epsilon: float  # of the normalisation
    dtype: DTypeLike


def conv_norm(
    features: int,
    kernel_size: int,
    conventions: Conventions,
    *,
    strides: int = 1,
    groups: int = 1,
    name: str,
) -> ConvNorm:
    """A convolution and its batch norm by a network's conventions."""
    return ConvNorm(
        features,
        kernel_size,
        strides=strides,
        groups=groups,
        padding=conventions.padding,
        momentum=conventions.momentum,
        epsilon=conventions.epsilon,
        dtype=conventions.dtype,
        name=name,
    )


def activate(
    x: Float[Array, "batch height width channels"], activation: Activation
) -> Float[Array, "batch height width channels"]:
    """The activation by its name."""
    return _ACTIVATIONS[activation](x)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, weigh the channels, project, and add the input where it fits.

    With `fused`, one full convolution expands and filters (Gupta and Tan 2019, "EfficientNet-
    EdgeTPU"; EfficientNetV2, figure 2), and where nothing is expanded it is the whole block.

    Attributes:
      block: the row of the table.
      gate: of the squeeze-excitation: "sigmoid" after a bottleneck with the block's activation
        (EfficientNet), or "hard_sigmoid" after one with ReLU (MobileNetV3).
      drop_rate: of the branch, in a block with a shortcut.
      conventions: of the network.
    """

    block: Block
    gate: Literal["sigmoid", "hard_sigmoid"]
    drop_rate: float
    conventions: Conventions

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch height_out width_out features"]:
        """The block's output, at a resolution `strides` times lower."""
        block = self.block
        y = self._fused(x, train) if block.fused else self._filtered(x, train)
        # The narrow end is linear: an activation there would lose what so few channels hold.
        if not block.fused or block.expanded != x.shape[-1]:
            y = conv_norm(block.features, 1, self.conventions, name="project")(y, train=train)
        if block.strides == 1 and block.features == x.shape[-1]:
            y = x + StochasticDepth(self.drop_rate, name="stochastic_depth")(y, train=train)
        return y

    def _filtered(self, x: Array, train: bool) -> Array:
        """Many channels, each filtered by itself and then weighed."""
        block = self.block
        if block.expanded != x.shape[-1]:
            x = conv_norm(block.expanded, 1, self.conventions, name="expand")(x, train=train)
            x = activate(x, block.activation)
        x = conv_norm(
            block.expanded,
            block.kernel_size,
            self.conventions,
            strides=block.strides,
            groups=block.expanded,
            name="depthwise",
        )(x, train=train)
        x = activate(x, block.activation)
        if block.squeezed:
            x = SqueezeExcitation(
                block.squeezed,
                activation="relu" if self.gate == "hard_sigmoid" else block.activation,
                gate=self.gate,
                dtype=self.conventions.dtype,
                name="squeeze_excitation",
            )(x)
        return x

    def _fused(self, x: Array, train: bool) -> Array:
        """Many channels at once; where nothing is expanded, those that go out."""
        block = self.block
        x = conv_norm(
            block.features if block.expanded == x.shape[-1] else block.expanded,
            block.kernel_size,
            self.conventions,
            strides=block.strides,
            name="expand",
        )(x, train=train)
        return activate(x, block.activation)


class SqueezeExcitation(nn.Module):
    """Weighs each channel by a number in [0, 1] computed from the means of all of them.

    Attributes:
      squeezed: channels of the bottleneck.
      activation: in the bottleneck.
      gate: of the weights.
      dtype: of the arithmetic.

    Intermediates: "gate" [batch, channels].
    """

    squeezed: int
    activation: Activation
    gate: Literal["sigmoid", "hard_sigmoid"]
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """The weighed channels."""
        # A 1x1 convolution of one pixel is a dense layer.
        y = jnp.mean(x, axis=(1, 2))
        y = self._layer(self.squeezed, "reduce")(y)
        y = self._layer(x.shape[-1], "expand")(_ACTIVATIONS[self.activation](y))
        gate = nn.sigmoid(y) if self.gate == "sigmoid" else nn.hard_sigmoid(y)
        self.sow("intermediates", "gate", gate)
        return x * gate[:, None, None, :]

    def _layer(self, features: int, name: str) -> nn.Dense:
        return nn.Dense(features, kernel_init=he_normal_fan_out, dtype=self.dtype, name=name)


def round_channels(channels: float) -> int:
    """The nearest multiple of 8 that is not below 90 % of a scaled number of channels."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
