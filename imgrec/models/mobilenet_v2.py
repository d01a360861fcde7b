"""MobileNetV2: inverted residuals with linear ends, for phones.

Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2,
https://arxiv.org/abs/1801.04381.

Padding by half the kernel and epsilon 1e-5 are those of weights trained in PyTorch
(torchvision, timm). Weights from TensorFlow need padding="same" and norm_epsilon=1e-3.
"""

from typing import Annotated

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from imgrec.errors import UserError
from imgrec.models.convolution import Padding
from imgrec.models.inverted_residual import (
    Block,
    Conventions,
    InvertedResidual,
    conv_norm,
    round_channels,
)
from imgrec.models.registry import Family, ImageShape, Interval, Rate, Scale, register
from imgrec.models.stochastic_depth import linear_decay

# Expansion, channels, repeats and first strides of each stage.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

WidthFactor = Annotated[float, Interval(0.05, 10.0)]
"""What all channels are multiplied by (sections 5 and 6.1: 0.35 to 1.4)."""


class MobileNetV2(nn.Module):
    """A stem, seven stages of inverted residuals, a 1x1 convolution and the mean over the image.

    Attributes:
      num_classes: number of logits.
      stages: rows of table 2, unscaled.
      width_factor: on all channels; those of the last convolution it never makes fewer.
      squeeze_excitation: adds one to each block, with a bottleneck of a quarter of the channels
        that come into the block (MnasNet's and EfficientNet's change).
      dropout: rate before the head.
      stochastic_depth: drop rate of the last block; earlier ones rise to it linearly.
      padding: of the convolutions; see above which weights need which.
      norm_epsilon: of the batch normalisation.
      dtype: of the arithmetic.

    Intermediates: "stage1", ... "stage7" (feature maps), "pre_logits" [batch, 1280].
    """

    num_classes: int
    stages: tuple[tuple[int, int, int, int], ...]
    width_factor: WidthFactor = 1.0
    squeeze_excitation: bool = False
    dropout: Rate = 0.2
    stochastic_depth: Rate = 0.0
    padding: Padding = "half"
    norm_epsilon: Scale = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float32[Array, "batch classes"]:
        """Logits; training uses batch statistics, and the rng "dropout" where a rate asks."""
        conventions = Conventions(self.padding, 0.9, self.norm_epsilon, self.dtype)
        stem = round_channels(32 * self.width_factor)
        x = conv_norm(stem, 3, conventions, strides=2, name="stem")(images, train=train)
        x = nn.relu6(x)
        position, num_blocks = 0, sum(repeats for _, _, repeats, _ in self.stages)
        for number, (expansion, features, repeats, strides) in enumerate(self.stages, start=1):
            for index in range(repeats):
                channels = x.shape[-1]
                x = InvertedResidual(
                    Block(
                        kernel_size=3,
                        expanded=channels * expansion,
                        features=round_channels(features * self.width_factor),
                        strides=strides if index == 0 else 1,
                        squeezed=max(1, channels // 4) if self.squeeze_excitation else 0,
                        activation="relu6",
                    ),
                    gate="sigmoid",
                    drop_rate=linear_decay(self.stochastic_depth, position, num_blocks),
                    conventions=conventions,
                    name=f"stage{number}_block{index}",
                )(x, train=train)
                position += 1
            self.sow("intermediates", f"stage{number}", x)
        final = round_channels(1280 * max(1.0, self.width_factor))
        x = nn.relu6(conv_norm(final, 1, conventions, name="final")(x, train=train))
        x = jnp.mean(x, axis=(1, 2))
        self.sow("intermediates", "pre_logits", x)
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        logits = nn.Dense(
            self.num_classes,
            kernel_init=nn.initializers.normal(0.01),
            dtype=self.dtype,
            name="head",
        )(x)
        return logits.astype(jnp.float32)


def check_halvings(module: nn.Module, image_shape: ImageShape) -> None:
    """Refuses images that five halvings would bring below one pixel."""
    height, width, _ = image_shape
    if min(height, width) < 32:
        raise UserError(
            f"Images of {height}x{width} pixels are too small for a MobileNet, which halves "
            "them five times; it takes 32x32 and more. Set config.data.image_size=64."
        )


register(
    Family(
        name="mobilenet_v2",
        summary="inverted residuals with linear ends, for phones",
        paper="Sandler et al. 2018, https://arxiv.org/abs/1801.04381",
        pattern="mobilenet_v2",
        module=MobileNetV2,
        fields=lambda: {"stages": _STAGES},
        # The paper prints 3.4M; torchvision and timm count so.
        variants={"mobilenet_v2": "3,504,872"},
        image_shape=(224, 224, 3),
        num_classes=1000,
        dense_convolutions=False,
        check=check_halvings,
    )
)
