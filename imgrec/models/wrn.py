"""Wide residual networks: fewer, wider, pre-activated blocks.

Zagoruyko and Komodakis 2016, "Wide Residual Networks", table 1 and section 2,
https://arxiv.org/abs/1605.07146. `wrn28_10` is WRN-28-10: depth 28 = 6n+4, widening factor 10.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from imgrec.errors import UserError
from imgrec.models.attention_blocks import Attention, attend
from imgrec.models.convolution import batch_norm, conv
from imgrec.models.registry import Family, ImageShape, Rate, register
from imgrec.models.stochastic_depth import StochasticDepth, linear_decay

_STAGE_FEATURES = (16, 32, 64)


class WideResNet(nn.Module):
    """Three stages of n = (depth - 4) / 6 blocks of 16k, 32k and 64k channels.

    Attributes:
      num_classes: number of logits.
      depth: convolutions as the paper counts them, 6n+4.
      widen_factor: k.
      dropout: rate between the two convolutions of a block (section 2.4; the paper uses 0.3
        where it uses any).
      stochastic_depth: drop rate of the last block; earlier ones rise to it linearly.
      attention: after each residual branch: squeeze-excitation, CBAM or none.
      dtype: of the arithmetic.

    Intermediates: "stage1", "stage2", "stage3" (feature maps), "pre_logits" [batch, 64 k].
    """

    num_classes: int
    depth: int
    widen_factor: int
    dropout: Rate = 0.0
    stochastic_depth: Rate = 0.0
    attention: Attention = "none"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float32[Array, "batch classes"]:
        """Logits; training uses batch statistics, and the rng "dropout" where a rate asks."""
        blocks_per_stage = (self.depth - 4) // 6
        x = conv(_STAGE_FEATURES[0], 3, dtype=self.dtype, name="stem")(images)
        for stage, features in enumerate(_STAGE_FEATURES):
            for block in range(blocks_per_stage):
                position = stage * blocks_per_stage + block
                x = PreActivationBlock(
                    features * self.widen_factor,
                    strides=2 if stage > 0 and block == 0 else 1,
                    dropout=self.dropout,
                    drop_rate=linear_decay(self.stochastic_depth, position, 3 * blocks_per_stage),
                    dtype=self.dtype,
                    attention=self.attention,
                    name=f"stage{stage + 1}_block{block}",
                )(x, train=train)
            self.sow("intermediates", f"stage{stage + 1}", x)
        x = nn.relu(batch_norm(train=train, dtype=self.dtype, name="norm")(x))
        x = jnp.mean(x, axis=(1, 2))
        self.sow("intermediates", "pre_logits", x)
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x)
        return logits.astype(jnp.float32)


class PreActivationBlock(nn.Module):
    """Norm, ReLU, convolution, twice, added to the input (figure 1d).

    Where the shape changes, the shortcut is a 1x1 convolution of the first activation, as
    in He et al. 2016, "Identity Mappings in Deep Residual Networks".
    """

    features: int
    strides: int
    dropout: float
    drop_rate: float
    dtype: DTypeLike
    attention: Attention = "none"

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch height_out width_out features"]:
        """The block's output, at a resolution `strides` times lower."""
        activated = nn.relu(batch_norm(train=train, dtype=self.dtype, name="norm1")(x))
        if x.shape[-1] != self.features or self.strides != 1:
            x = conv(self.features, 1, strides=self.strides, dtype=self.dtype, name="projection")(
                activated
            )
        y = conv(self.features, 3, strides=self.strides, dtype=self.dtype, name="conv1")(activated)
        y = nn.relu(batch_norm(train=train, dtype=self.dtype, name="norm2")(y))
        y = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(y)
        y = conv(self.features, 3, dtype=self.dtype, name="conv2")(y)
        y = attend(y, self.attention, train=train, dtype=self.dtype)
        return x + StochasticDepth(self.drop_rate, name="stochastic_depth")(y, train=train)


def _fields(depth: str, widen_factor: str) -> dict[str, Any]:
    blocks = max(1, round((int(depth) - 4) / 6))
    if int(depth) != 6 * blocks + 4 or int(widen_factor) < 1:
        raise UserError(
            f"wrn{depth}_{widen_factor}: these networks have 6n+4 layers (n blocks of two in each "
            "of three stages, a stem and three projections) and a widening factor of at least "
            f"1; the nearest is wrn{6 * blocks + 4}_{max(1, int(widen_factor))}."
        )
    return {"depth": int(depth), "widen_factor": int(widen_factor)}


def _check(module: WideResNet, image_shape: ImageShape) -> None:
    height, width, _ = image_shape
    if min(height, width) < 4:
        raise UserError(
            f"Images of {height}x{width} pixels are too small for "
            f"wrn{module.depth}_{module.widen_factor}, which halves them twice; "
            "it takes 4x4 and more. Set config.data.image_size=32."
        )


register(
    Family(
        name="wrn",
        summary="wide residual network for small images",
        paper="Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1605.07146",
        pattern=r"wrn(?P<depth>\d+)_(?P<widen_factor>\d+)",
        module=WideResNet,
        fields=_fields,
        # Table 4.
        variants={
            "wrn16_4": "2.7M",
            "wrn16_8": "11.0M",
            "wrn28_10": "36.5M",
            "wrn40_2": "2.2M",
            "wrn40_4": "8.9M",
        },
        image_shape=(32, 32, 3),
        num_classes=10,
        dense_convolutions=True,
        check=_check,
    )
)
