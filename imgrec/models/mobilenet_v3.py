"""MobileNetV3: inverted residuals found by search, with squeeze-excitation and hard swish.

Howard et al. 2019, "Searching for MobileNetV3", tables 1 and 2,
https://arxiv.org/abs/1905.02244.

Padding by half the kernel is that of weights trained in PyTorch (torchvision, timm), and
their epsilon is TensorFlow's 1e-3. Weights from TensorFlow need padding="same".
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from imgrec.models.convolution import Padding
from imgrec.models.inverted_residual import (
    Activation,
    Block,
    Conventions,
    InvertedResidual,
    conv_norm,
    round_channels,
)
from imgrec.models.mobilenet_v2 import WidthFactor, check_halvings
from imgrec.models.registry import Family, Rate, Scale, register
from imgrec.models.stochastic_depth import linear_decay

# Kernel size, expanded channels, channels, squeeze-excitation, activation and strides of each
# block; a stage is the blocks with the same number of channels.
Row = tuple[int, int, int, bool, Activation, int]
_LARGE: tuple[tuple[Row, ...], ...] = (
    ((3, 16, 16, False, "relu", 1),),
    ((3, 64, 24, False, "relu", 2), (3, 72, 24, False, "relu", 1)),
    (
        (5, 72, 40, True, "relu", 2),
        (5, 120, 40, True, "relu", 1),
        (5, 120, 40, True, "relu", 1),
    ),
    (
        (3, 240, 80, False, "hard_swish", 2),
        (3, 200, 80, False, "hard_swish", 1),
        (3, 184, 80, False, "hard_swish", 1),
        (3, 184, 80, False, "hard_swish", 1),
    ),
    ((3, 480, 112, True, "hard_swish", 1), (3, 672, 112, True, "hard_swish", 1)),
    (
        (5, 672, 160, True, "hard_swish", 2),
        (5, 960, 160, True, "hard_swish", 1),
        (5, 960, 160, True, "hard_swish", 1),
    ),
)
_SMALL: tuple[tuple[Row, ...], ...] = (
    ((3, 16, 16, True, "relu", 2),),
    ((3, 72, 24, False, "relu", 2), (3, 88, 24, False, "relu", 1)),
    (
        (5, 96, 40, True, "hard_swish", 2),
        (5, 240, 40, True, "hard_swish", 1),
        (5, 240, 40, True, "hard_swish", 1),
    ),
    ((5, 120, 48, True, "hard_swish", 1), (5, 144, 48, True, "hard_swish", 1)),
    (
        (5, 288, 96, True, "hard_swish", 2),
        (5, 576, 96, True, "hard_swish", 1),
        (5, 576, 96, True, "hard_swish", 1),
    ),
)


class MobileNetV3(nn.Module):
    """A stem, stages of inverted residuals, and a last stage that pools before it widens.

    Attributes:
      num_classes: number of logits.
      stages: rows of table 1 or 2, unscaled.
      hidden: channels of the layer between the mean over the image and the head, unscaled.
      width_factor: on all channels.
      squeeze_excitation: in the blocks where the tables have it, with a bottleneck of a quarter
        of the expanded channels.
      dropout: rate before the head.
      stochastic_depth: drop rate of the last block; earlier ones rise to it linearly.
      padding: of the convolutions; see above which weights need which.
      norm_epsilon: of the batch normalisation.
      dtype: of the arithmetic.

    Intermediates: "stage1", ... (feature maps), for each block with squeeze-excitation
    "stage3_block0/squeeze_excitation/gate" [batch, channels], "pre_logits" [batch, hidden].
    """

    num_classes: int
    stages: tuple[tuple[Row, ...], ...]
    hidden: int
    width_factor: WidthFactor = 1.0
    squeeze_excitation: bool = True
    dropout: Rate = 0.2
    stochastic_depth: Rate = 0.0
    padding: Padding = "half"
    norm_epsilon: Scale = 1e-3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float32[Array, "batch classes"]:
        """Logits; training uses batch statistics, and the rng "dropout" where a rate asks."""
        conventions = Conventions(self.padding, 0.99, self.norm_epsilon, self.dtype)
        stem = round_channels(16 * self.width_factor)
        x = conv_norm(stem, 3, conventions, strides=2, name="stem")(images, train=train)
        x = nn.hard_swish(x)
        position, num_blocks = 0, sum(map(len, self.stages))
        for number, stage in enumerate(self.stages, start=1):
            for index, row in enumerate(stage):
                x = InvertedResidual(
                    self._block(row),
                    gate="hard_sigmoid",
                    drop_rate=linear_decay(self.stochastic_depth, position, num_blocks),
                    conventions=conventions,
                    name=f"stage{number}_block{index}",
                )(x, train=train)
                position += 1
            self.sow("intermediates", f"stage{number}", x)
        x = conv_norm(6 * x.shape[-1], 1, conventions, name="final")(x, train=train)
        x = jnp.mean(nn.hard_swish(x), axis=(1, 2))
        x = nn.hard_swish(self._dense(round_channels(self.hidden * self.width_factor), "hidden")(x))
        self.sow("intermediates", "pre_logits", x)
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        return self._dense(self.num_classes, "head")(x).astype(jnp.float32)

    def _block(self, row: Row) -> Block:
        kernel_size, expanded, features, squeezes, activation, strides = row
        expanded = round_channels(expanded * self.width_factor)
        return Block(
            kernel_size=kernel_size,
            expanded=expanded,
            features=round_channels(features * self.width_factor),
            strides=strides,
            squeezed=round_channels(expanded / 4) if squeezes and self.squeeze_excitation else 0,
            activation=activation,
        )

    def _dense(self, features: int, name: str) -> nn.Dense:
        return nn.Dense(
            features, kernel_init=nn.initializers.normal(0.01), dtype=self.dtype, name=name
        )


def _fields(size: str) -> dict[str, Any]:
    if size == "large":
        return {"stages": _LARGE, "hidden": 1280}
    return {"stages": _SMALL, "hidden": 1024}


register(
    Family(
        name="mobilenet_v3",
        summary="searched inverted residuals with squeeze-excitation and hard swish",
        paper="Howard et al. 2019, https://arxiv.org/abs/1905.02244",
        pattern="mobilenet_v3_(?P<size>small|large)",
        module=MobileNetV3,
        fields=_fields,
        # The paper prints 5.4M and 2.5M; torchvision counts so.
        variants={"mobilenet_v3_small": "2,542,856", "mobilenet_v3_large": "5,483,032"},
        image_shape=(224, 224, 3),
        num_classes=1000,
        dense_convolutions=False,
        check=check_halvings,
    )
)
