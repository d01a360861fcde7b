"""Attention for convolutional networks: which channels matter for this image, and where.

Squeeze-and-excitation, Hu et al. 2017, https://arxiv.org/abs/1709.01507, weighs channels;
CBAM, Woo et al. 2018, "Convolutional Block Attention Module",
https://arxiv.org/abs/1807.06521, weighs channels and then positions. Both act on the output
of a residual branch, before it is added to the shortcut, and are off unless asked for.
"""

from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imgrec.models.convolution import batch_norm, conv, he_normal_fan_out

Attention = Literal["none", "se", "cbam"]
"""An option of the residual networks: "none" leaves their parameters as they were."""


def attend(
    x: Float[Array, "batch height width channels"],
    attention: Attention,
    *,
    train: bool,
    dtype: DTypeLike,
) -> Float[Array, "batch height width channels"]:
    """The maps as they are, or weighed by a submodule "attention" of the calling module.

    Intermediates, each between 0 and 1: "attention/channels" [batch, channels], and of CBAM
    also "attention/positions" [batch, height, width].
    """
    if attention == "se":
        return SqueezeExcitation(dtype=dtype, name="attention")(x)
    if attention == "cbam":
        return CBAM(dtype=dtype, name="attention")(x, train=train)
    return x


class SqueezeExcitation(nn.Module):
    """Equations 2 and 3: channels scaled by what a small MLP makes of all channels' means."""

    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """The maps, each channel times its weight."""
        hidden, out = _bottleneck(x.shape[-1], self.dtype)
        weights = nn.sigmoid(out(nn.relu(hidden(jnp.mean(x, axis=(1, 2))))))
        self.sow("intermediates", "channels", weights)
        return x * weights[:, None, None, :]


class CBAM(nn.Module):
    """Channels weighed first (equation 2), positions then (equation 3).

    The channels' weights come from one MLP for both means and maxima. Those of the positions
    come from a 7x7 convolution of the mean and the maximum over the channels; the batch norm
    after it is in the authors' code and not in the equation.
    """

    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch height width channels"]:
        """The maps, times the weights of channel and position."""
        hidden, out = _bottleneck(x.shape[-1], self.dtype)
        pooled = (jnp.mean(x, axis=(1, 2)), jnp.max(x, axis=(1, 2)))
        channels = nn.sigmoid(sum(out(nn.relu(hidden(values))) for values in pooled))
        self.sow("intermediates", "channels", channels)
        x = x * channels[:, None, None, :]

        y = jnp.stack([jnp.mean(x, axis=-1), jnp.max(x, axis=-1)], axis=-1)
        y = conv(1, 7, dtype=self.dtype, name="conv")(y)
        positions = nn.sigmoid(batch_norm(train=train, dtype=self.dtype, name="norm")(y))
        self.sow("intermediates", "positions", positions[..., 0])
        return x * positions


def _bottleneck(channels: int, dtype: DTypeLike) -> tuple[nn.Dense, nn.Dense]:
    """The two layers of the MLP, narrower inside by the papers' reduction ratio of 16.

    A CIFAR network's first maps have 16 channels, and one rectifier that may die is no
    attention, so there are at least 4.
    """
    narrow = max(4, channels // 16)
    hidden = nn.Dense(narrow, kernel_init=he_normal_fan_out, dtype=dtype, name="hidden")
    out = nn.Dense(channels, kernel_init=he_normal_fan_out, dtype=dtype, name="out")
    return hidden, out
