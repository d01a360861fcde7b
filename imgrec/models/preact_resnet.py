"""Residual networks whose shortcuts nothing interrupts: norm and rectifier come before.

He et al. 2016, "Identity Mappings in Deep Residual Networks", figure 1b and section 4,
https://arxiv.org/abs/1603.05027, for ImageNet. `wrn` has the same for small images.
"""

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from imgrec.errors import UserError
from imgrec.models.attention_blocks import Attention, attend
from imgrec.models.convolution import batch_norm, conv
from imgrec.models.pooling import max_pool_3x3
from imgrec.models.registry import Count, Family, ImageShape, Rate, register
from imgrec.models.stochastic_depth import StochasticDepth, linear_decay

_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}


class PreActivationResNet(nn.Module):
    """The stages of a ResNet, a last norm and rectifier, and the head.

    The stem is a convolution and max pooling alone: its norm and rectifier are those with
    which the first block begins (section 3.2, the last paragraph).

    Attributes:
      num_classes: number of logits.
      blocks: in each of four stages.
      bottleneck: 1x1, 3x3, 1x1 convolutions with 4x as many channels outside (depth 50 and
        more), or two of 3x3.
      width: channels of the stem and of the first stage's blocks; later ones double.
      attention: after each residual branch: squeeze-excitation, CBAM or none.
      stem: "standard" is 7x7 with strides and 3x3 max pooling; "small_images" is one 3x3
        convolution that keeps the resolution.
      stochastic_depth: drop rate of the last block; earlier ones rise to it linearly.
      dtype: of the arithmetic.

    Intermediates: "stage1" to "stage4" (feature maps before any activation), "pre_logits"
    [batch, features].
    """

    num_classes: int
    blocks: tuple[int, ...]
    bottleneck: bool
    width: Count = 64
    attention: Attention = "none"
    stem: Literal["standard", "small_images"] = "standard"
    stochastic_depth: Rate = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float32[Array, "batch classes"]:
        """Logits; training uses batch statistics, and the rng "dropout" to drop branches."""
        if self.stem == "standard":
            x = conv(self.width, 7, strides=2, dtype=self.dtype, name="stem")(images)
            x = max_pool_3x3(x, strides=2)
        else:
            x = conv(self.width, 3, dtype=self.dtype, name="stem")(images)
        position = 0
        for stage, count in enumerate(self.blocks):
            for block in range(count):
                x = PreActivationBlock(
                    self.width * 2**stage,
                    strides=2 if stage > 0 and block == 0 else 1,
                    bottleneck=self.bottleneck,
                    attention=self.attention,
                    drop_rate=linear_decay(self.stochastic_depth, position, sum(self.blocks)),
                    dtype=self.dtype,
                    name=f"stage{stage + 1}_block{block}",
                )(x, train=train)
                position += 1
            self.sow("intermediates", f"stage{stage + 1}", x)
        x = nn.relu(batch_norm(train=train, dtype=self.dtype, name="norm")(x))
        x = jnp.mean(x, axis=(1, 2))
        self.sow("intermediates", "pre_logits", x)
        logits = nn.Dense(
            self.num_classes,
            kernel_init=nn.initializers.normal(0.01),
            dtype=self.dtype,
            name="head",
        )(x)
        return logits.astype(jnp.float32)


class PreActivationBlock(nn.Module):
    """Norm, rectifier, convolution, two or three times, added to the input.

    Where the shape changes, the shortcut is a 1x1 convolution of the first activation.
    """

    features: int
    strides: int
    bottleneck: bool
    attention: Attention
    drop_rate: float
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch height_out width_out features_out"]:
        """The block's output, at a resolution `strides` times lower."""
        features, strides = self.features, self.strides
        layers = [(features, 3, strides), (features, 3, 1)]
        if self.bottleneck:
            layers = [(features, 1, 1), (features, 3, strides), (4 * features, 1, 1)]
        y, out = x, layers[-1][0]
        for number, (channels, kernel_size, step) in enumerate(layers, start=1):
            y = nn.relu(batch_norm(train=train, dtype=self.dtype, name=f"norm{number}")(y))
            if number == 1 and (x.shape[-1] != out or strides != 1):
                x = conv(out, 1, strides=strides, dtype=self.dtype, name="projection")(y)
            name = f"conv{number}"
            y = conv(channels, kernel_size, strides=step, dtype=self.dtype, name=name)(y)
        y = attend(y, self.attention, train=train, dtype=self.dtype)
        return x + StochasticDepth(self.drop_rate, name="stochastic_depth")(y, train=train)


def _fields(depth: str) -> dict[str, Any]:
    return {"blocks": _BLOCKS[int(depth)], "bottleneck": int(depth) >= 50}


def _check(module: PreActivationResNet, image_shape: ImageShape) -> None:
    height, width, _ = image_shape
    smallest = 8 if module.stem == "small_images" else 32
    if min(height, width) < smallest:
        raise UserError(
            f"Images of {height}x{width} pixels are too small for a pre-activation ResNet with "
            f'the stem "{module.stem}"; it takes {smallest}x{smallest} and more. Set '
            "config.data.image_size=32; with config.model.options.stem="
            '"small_images", 8x8 will do.'
        )


register(
    Family(
        name="preact_resnet",
        summary="pre-activation residual network for ImageNet",
        paper="He et al. 2016, https://arxiv.org/abs/1603.05027",
        pattern="preact_resnet(?P<depth>18|34|50|101|152|200)",
        module=PreActivationResNet,
        fields=_fields,
        # The paper prints none; these are of the released ones (timm's resnetv2 without
        # BiT's norms). Norms are fewer channels than a ResNet's, so counts are a little lower.
        variants={
            "preact_resnet18": "11.69M",
            "preact_resnet34": "21.80M",
            "preact_resnet50": "25,549,352",
            "preact_resnet101": "44.54M",
            "preact_resnet152": "60.19M",
            "preact_resnet200": "",
        },
        image_shape=(224, 224, 3),
        num_classes=1000,
        dense_convolutions=True,
        check=_check,
    )
)
