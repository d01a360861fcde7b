"""EfficientNet: one small network, scaled in depth, width and resolution together.

Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
https://arxiv.org/abs/1905.11946, table 1 for B0, and for B1 to B7 the factors of the authors'
release. EfficientNet-Lite (Liu 2020, in the same release) is the same without
squeeze-excitation, with ReLU6 for swish, and with stem, head, first and last stage not scaled.

The release, and all weights that come from it, pad as TensorFlow does and normalise with
epsilon 1e-3: the defaults here. Weights that were trained in PyTorch (torchvision's, timm's
without "tf_") need padding="half", and up to B4 norm_epsilon=1e-5.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from imgrec.errors import UserError
from imgrec.models.convolution import Padding
from imgrec.models.inverted_residual import (
    Activation,
    Block,
    Conventions,
    InvertedResidual,
    activate,
    conv_norm,
    round_channels,
)
from imgrec.models.registry import Family, ImageShape, Rate, Scale, register
from imgrec.models.stochastic_depth import linear_decay


@dataclass(frozen=True)
class Stage:
    """A row of table 1: blocks alike but for the first one's strides."""

    kernel_size: int
    expansion: int
    features: int
    repeats: int
    strides: int
    fused: bool = False  # EfficientNetV2's, which have no squeeze-excitation


_STAGES = (
    Stage(3, 1, 16, 1, 1),
    Stage(3, 6, 24, 2, 2),
    Stage(5, 6, 40, 2, 2),
    Stage(3, 6, 80, 3, 2),
    Stage(5, 6, 112, 3, 1),
    Stage(5, 6, 192, 4, 2),
    Stage(3, 6, 320, 1, 1),
)


class EfficientNet(nn.Module):
    """A stem, stages of inverted residuals, a 1x1 convolution and the mean over the image.

    Attributes:
      num_classes: number of logits.
      stem: channels of the stem.
      stages: after scaling.
      final: channels of the last convolution.
      activation: everywhere but in the gates.
      norm_momentum: what moving statistics keep of themselves in a step.
      squeeze_excitation: in every block that is not fused, with a bottleneck of a quarter of
        the channels that come into the block.
      dropout: rate before the head.
      stochastic_depth: drop rate of the last block; earlier ones rise to it linearly.
      padding: of the convolutions; see above which weights need which.
      norm_epsilon: of the batch normalisation.
      dtype: of the arithmetic.

    Intermediates: "stage1", ... (feature maps), for each block with squeeze-excitation
    "stage1_block0/squeeze_excitation/gate" [batch, channels], "pre_logits" [batch, final].
    """

    num_classes: int
    stem: int
    stages: tuple[Stage, ...]
    final: int
    activation: Activation
    norm_momentum: float
    squeeze_excitation: bool = True
    dropout: Rate = 0.2
    stochastic_depth: Rate = 0.2
    padding: Padding = "same"
    norm_epsilon: Scale = 1e-3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float32[Array, "batch classes"]:
        """Logits; training uses batch statistics, and the rng "dropout" where a rate asks."""
        conventions = Conventions(self.padding, self.norm_momentum, self.norm_epsilon, self.dtype)
        x = conv_norm(self.stem, 3, conventions, strides=2, name="stem")(images, train=train)
        x = activate(x, self.activation)
        position, num_blocks = 0, sum(stage.repeats for stage in self.stages)
        for number, stage in enumerate(self.stages, start=1):
            for index in range(stage.repeats):
                x = InvertedResidual(
                    self._block(stage, index, x.shape[-1]),
                    gate="sigmoid",
                    drop_rate=linear_decay(self.stochastic_depth, position, num_blocks),
                    conventions=conventions,
                    name=f"stage{number}_block{index}",
                )(x, train=train)
                position += 1
            self.sow("intermediates", f"stage{number}", x)
        x = conv_norm(self.final, 1, conventions, name="final")(x, train=train)
        x = jnp.mean(activate(x, self.activation), axis=(1, 2))
        self.sow("intermediates", "pre_logits", x)
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        # As the release starts it: uniform below 1 / sqrt(classes).
        uniform = nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")
        logits = nn.Dense(self.num_classes, kernel_init=uniform, dtype=self.dtype, name="head")(x)
        return logits.astype(jnp.float32)

    def _block(self, stage: Stage, index: int, channels: int) -> Block:
        squeezes = self.squeeze_excitation and not stage.fused
        return Block(
            kernel_size=stage.kernel_size,
            expanded=channels * stage.expansion,
            features=stage.features,
            strides=stage.strides if index == 0 else 1,
            squeezed=max(1, channels // 4) if squeezes else 0,
            activation=self.activation,
            fused=stage.fused,
        )


def scaled(width: float, depth: float, *, lite: bool = False) -> dict[str, Any]:
    """Stem, stages and last convolution of B0 with factors on channels and repeats."""
    ends = (0, len(_STAGES) - 1)
    stages = tuple(
        dataclasses.replace(
            stage,
            features=round_channels(stage.features * width),
            repeats=stage.repeats if lite and i in ends else math.ceil(stage.repeats * depth),
        )
        for i, stage in enumerate(_STAGES)
    )
    stem, final = (n if lite else round_channels(n * width) for n in (32, 1280))
    return {"stem": stem, "stages": stages, "final": final}


# Factors on width and depth, side of the images, dropout.
_B = {
    "0": (1.0, 1.0, 224, 0.2),
    "1": (1.0, 1.1, 240, 0.2),
    "2": (1.1, 1.2, 260, 0.3),
    "3": (1.2, 1.4, 300, 0.3),
    "4": (1.4, 1.8, 380, 0.4),
    "5": (1.6, 2.2, 456, 0.4),
    "6": (1.8, 2.6, 528, 0.5),
    "7": (2.0, 3.1, 600, 0.5),
}
_LITE = {
    "0": (1.0, 1.0, 224, 0.2),
    "1": (1.0, 1.1, 240, 0.2),
    "2": (1.1, 1.2, 260, 0.3),
    "3": (1.2, 1.4, 280, 0.3),
    "4": (1.4, 1.8, 300, 0.3),
}


def _b_fields(size: str | None, width: str | None, depth: str | None) -> dict[str, Any]:
    factors = _B[size][:2] if size else _factors(width or "", depth or "")
    return {"activation": "swish", "norm_momentum": 0.99, **scaled(*factors)}


def _factors(width: str, depth: str) -> tuple[float, float]:
    """Of a name such as efficientnet_w1.2_d1.4, which the authors gave no letter."""
    if not float(width) or not float(depth):
        raise UserError(
            f"efficientnet_w{width}_d{depth}: factors on channels and repeats are above 0; "
            "efficientnet_w1_d1 is B0."
        )
    return float(width), float(depth)


def _b_defaults(size: str | None, **_: str | None) -> dict[str, Any]:
    return {"dropout": _B[size or "0"][3]}


def _lite_fields(size: str) -> dict[str, Any]:
    width, depth, _, _ = _LITE[size]
    return {"activation": "relu6", "norm_momentum": 0.99, **scaled(width, depth, lite=True)}


def check(module: EfficientNet, image_shape: ImageShape) -> None:
    """Refuses images that the strides would bring below one pixel."""
    height, width, _ = image_shape
    reduction = 2 * math.prod(stage.strides for stage in module.stages)
    if min(height, width) < reduction:
        raise UserError(
            f"Images of {height}x{width} pixels are too small for an EfficientNet, which divides "
            f"them by {reduction}; it takes {reduction}x{reduction} and more. "
            f"Set config.data.image_size={max(64, reduction)}."
        )


register(
    Family(
        name="efficientnet",
        summary="network of inverted residuals, scaled in depth, width and resolution together",
        paper="Tan and Le 2019, https://arxiv.org/abs/1905.11946",
        # B0 to B7, or any factors: efficientnet_w2_d1 is twice as wide as B0 (table 7's).
        pattern=r"efficientnet_(b(?P<size>[0-7])"
        r"|w(?P<width>\d+(\.\d+)?)_d(?P<depth>\d+(\.\d+)?))",
        module=EfficientNet,
        fields=_b_fields,
        defaults=_b_defaults,
        # The paper prints 5.3M to 66M; these are the exact counts of the released models.
        variants={
            "efficientnet_b0": "5,288,548",
            "efficientnet_b1": "7,794,184",
            "efficientnet_b2": "9,109,994",
            "efficientnet_b3": "12,233,232",
            "efficientnet_b4": "19,341,616",
            "efficientnet_b5": "30,389,784",
            "efficientnet_b6": "43,040,704",
            "efficientnet_b7": "66,347,960",
        },
        image_shape=(224, 224, 3),
        image_shapes={f"efficientnet_b{n}": (side, side, 3) for n, (_, _, side, _) in _B.items()},
        num_classes=1000,
        dense_convolutions=False,
        check=check,
    )
)
register(
    Family(
        name="efficientnet_lite",
        summary="EfficientNet for phones: ReLU6 and no squeeze-excitation",
        paper="Tan and Le 2019, https://arxiv.org/abs/1905.11946; Liu 2020, https://github.com/"
        "tensorflow/tpu/tree/master/models/official/efficientnet/lite",
        pattern="efficientnet_lite(?P<size>[0-4])",
        module=EfficientNet,
        fields=_lite_fields,
        defaults=lambda size: {"squeeze_excitation": False, "dropout": _LITE[size][3]},
        # Counted in the released weights.
        variants={
            "efficientnet_lite0": "4,652,008",
            "efficientnet_lite1": "5,416,680",
            "efficientnet_lite2": "6,092,072",
            "efficientnet_lite3": "8,197,096",
            "efficientnet_lite4": "13,006,568",
        },
        image_shape=(224, 224, 3),
        image_shapes={
            f"efficientnet_lite{n}": (side, side, 3) for n, (_, _, side, _) in _LITE.items()
        },
        num_classes=1000,
        dense_convolutions=False,
        check=check,
    )
)
