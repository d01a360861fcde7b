"""The residual networks for ImageNet, and ResNeXt, which splits their convolutions into groups.

He et al. 2015, "Deep Residual Learning for Image Recognition", table 1,
https://arxiv.org/abs/1512.03385, in the version that everyone compares with (v1.5: a
bottleneck halves the resolution in its 3x3 convolution and not in its first); Xie et al. 2016,
"Aggregated Residual Transformations", https://arxiv.org/abs/1611.05431. The refinements that
came later are options. `resnext50_32x4d` has 32 groups of 4 channels in its first stage.
"""

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from imgrec.errors import UserError
from imgrec.models.attention_blocks import Attention, attend
from imgrec.models.convolution import ConvNorm, batch_norm, conv, he_normal_fan_out
from imgrec.models.pooling import blur_pool, halving_mean, max_pool_3x3
from imgrec.models.registry import Count, Family, ImageShape, Rate, register
from imgrec.models.stochastic_depth import StochasticDepth, linear_decay

# Blocks of each stage (table 1).
_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class ResNet(nn.Module):
    """A stem, and four stages of blocks at 1/4, 1/8, 1/16 and 1/32 of the resolution.

    Attributes:
      num_classes: number of logits.
      blocks: in each stage.
      bottleneck: 1x1, 3x3, 1x1 convolutions with 4x as many channels outside (ResNet-50 and
        deeper), or two of 3x3.
      groups: of a bottleneck's 3x3 convolution.
      group_width: channels of each group in the first stage, at the usual width of 64; 64 in
        one group make a ResNet.
      width: channels of the stem and of the first stage's blocks; later ones double.
      attention: after each residual branch: squeeze-excitation, CBAM or none.
      stem: "standard" is 7x7 with strides and 3x3 max pooling; "deep" has three 3x3
        convolutions for the 7x7 (He et al. 2018, "Bag of Tricks", figure 2c,
        https://arxiv.org/abs/1812.01187); "small_images" is one 3x3 convolution that keeps the
        resolution, so that 32x32 pixels end as 4x4.
      shortcut: where a block halves the resolution, the 1x1 projection sees "every_other"
        pixel, or the "mean" of 2x2. With the deep stem, "mean" is ResNet-D (figure 2d there).
      anti_aliased: smooths before subsampling, in branches, shortcuts and the stem's pooling
        (Zhang 2019, https://arxiv.org/abs/1904.11486); the stem's convolution keeps its strides,
        and means in the shortcut need no more smoothing.
      stochastic_depth: drop rate of the last block; earlier ones rise to it linearly.
      zero_init_residual: starts the last batch norm of each branch at 0, so that every block
        is at first the identity (Goyal et al. 2017, section 5.1).
      dtype: of the arithmetic.

    The head starts normal with standard deviation 0.01 (the same section).

    Intermediates: "stage1" to "stage4" (feature maps), "pre_logits" [batch, features].
    """

    num_classes: int
    blocks: tuple[int, ...]
    bottleneck: bool
    groups: int
    group_width: int
    width: Count = 64
    attention: Attention = "none"
    stem: Literal["standard", "deep", "small_images"] = "standard"
    shortcut: Literal["every_other", "mean"] = "every_other"
    anti_aliased: bool = False
    stochastic_depth: Rate = 0.0
    zero_init_residual: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float32[Array, "batch classes"]:
        """Logits; training uses batch statistics, and the rng "dropout" to drop branches."""
        x = self._stem(images, train)
        position = 0
        for stage, count in enumerate(self.blocks):
            for block in range(count):
                x = ResidualBlock(
                    self.width * 2**stage,
                    strides=2 if stage > 0 and block == 0 else 1,
                    bottleneck=self.bottleneck,
                    groups=self.groups,
                    group_width=self.group_width,
                    attention=self.attention,
                    shortcut=self.shortcut,
                    anti_aliased=self.anti_aliased,
                    drop_rate=linear_decay(self.stochastic_depth, position, sum(self.blocks)),
                    zero_init_residual=self.zero_init_residual,
                    dtype=self.dtype,
                    name=f"stage{stage + 1}_block{block}",
                )(x, train=train)
                position += 1
            self.sow("intermediates", f"stage{stage + 1}", x)
        x = jnp.mean(x, axis=(1, 2))
        self.sow("intermediates", "pre_logits", x)
        logits = nn.Dense(
            self.num_classes,
            kernel_init=nn.initializers.normal(0.01),
            dtype=self.dtype,
            name="head",
        )(x)
        return logits.astype(jnp.float32)

    def _stem(self, x: Array, train: bool) -> Array:
        """The images at a quarter of their resolution, or at all of it for small ones."""
        if self.stem == "small_images":
            x = ConvNorm(self.width, 3, dtype=self.dtype, name="stem")(x, train=train)
            return nn.relu(x)
        if self.stem == "deep":
            narrow = max(1, self.width // 2)
            for layer, features in enumerate((narrow, narrow, self.width), start=1):
                strides = 2 if layer == 1 else 1
                name = f"stem{layer}"
                x = ConvNorm(features, 3, strides, dtype=self.dtype, name=name)(x, train=train)
                x = nn.relu(x)
        else:
            x = ConvNorm(self.width, 7, strides=2, dtype=self.dtype, name="stem")(x, train=train)
            x = nn.relu(x)
        if self.anti_aliased:
            return blur_pool(max_pool_3x3(x, strides=1))
        return max_pool_3x3(x, strides=2)


class ResidualBlock(nn.Module):
    """Convolutions around a shortcut, rectified after the addition (figure 5).

    Attributes:
      features: channels of the stage: 64, 128, 256, 512 at the usual width. A bottleneck has
        4x as many outside.
    The others are those of `ResNet`.
    """

    features: int
    strides: int
    bottleneck: bool
    groups: int
    group_width: int
    attention: Attention
    shortcut: str
    anti_aliased: bool
    drop_rate: float
    zero_init_residual: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch height_out width_out features_out"]:
        """The block's output, at a resolution `strides` times lower."""
        y = self._bottleneck(x, train) if self.bottleneck else self._basic(x, train)
        y = attend(y, self.attention, train=train, dtype=self.dtype)
        y = StochasticDepth(self.drop_rate, name="stochastic_depth")(y, train=train)
        if y.shape != x.shape:
            x = self._projection(x, y.shape[-1], train)
        return nn.relu(x + y)

    def _basic(self, x: Array, train: bool) -> Array:
        blurred = self.anti_aliased and self.strides == 2
        strides = 1 if blurred else self.strides
        y = conv(self.features, 3, strides=strides, dtype=self.dtype, name="conv1")(x)
        y = nn.relu(self._norm("norm1", train)(y))
        y = blur_pool(y) if blurred else y
        y = conv(self.features, 3, dtype=self.dtype, name="conv2")(y)
        return self._norm("norm2", train, last=True)(y)

    def _bottleneck(self, x: Array, train: bool) -> Array:
        blurred = self.anti_aliased and self.strides == 2
        strides = 1 if blurred else self.strides
        inner = self.groups * max(1, self.group_width * self.features // 64)
        y = conv(inner, 1, dtype=self.dtype, name="conv1")(x)
        y = nn.relu(self._norm("norm1", train)(y))
        # The paper's code counts the outputs of all groups in the fan-out.
        y = conv(
            inner,
            3,
            strides=strides,
            groups=self.groups,
            kernel_init=he_normal_fan_out,
            dtype=self.dtype,
            name="conv2",
        )(y)
        y = nn.relu(self._norm("norm2", train)(y))
        y = blur_pool(y) if blurred else y
        y = conv(4 * self.features, 1, dtype=self.dtype, name="conv3")(y)
        return self._norm("norm3", train, last=True)(y)

    def _projection(self, x: Array, features: int, train: bool) -> Array:
        strides = self.strides
        if strides == 2 and (self.shortcut == "mean" or self.anti_aliased):
            x = halving_mean(x) if self.shortcut == "mean" else blur_pool(x)
            strides = 1
        return ConvNorm(features, 1, strides, dtype=self.dtype, name="projection")(x, train=train)

    def _norm(self, name: str, train: bool, last: bool = False) -> nn.BatchNorm:
        zero_scale = last and self.zero_init_residual
        return batch_norm(train=train, dtype=self.dtype, name=name, zero_scale=zero_scale)


def _resnet_fields(depth: str) -> dict[str, Any]:
    return {
        "blocks": _BLOCKS[int(depth)],
        "bottleneck": int(depth) >= 50,
        "groups": 1,
        "group_width": 64,
    }


def _resnext_fields(depth: str, groups: str, group_width: str) -> dict[str, Any]:
    if int(groups) < 1 or int(group_width) < 1:
        raise UserError(
            f"resnext{depth}_{groups}x{group_width}d: a ResNeXt has at least 1 group of at "
            "least 1 channel, as in resnext50_32x4d (32 groups of 4)."
        )
    fields = {"groups": int(groups), "group_width": int(group_width)}
    return {**_resnet_fields(depth), **fields}


def _check(module: ResNet, image_shape: ImageShape) -> None:
    height, width, _ = image_shape
    smallest = 8 if module.stem == "small_images" else 32
    if min(height, width) < smallest:
        hint = "Set config.data.image_size=32."
        if smallest == 32:
            hint = 'Set config.data.image_size=32, or config.model.options.stem="small_images".'
        raise UserError(
            f"Images of {height}x{width} pixels are too small for a ResNet of four stages with "
            f'the stem "{module.stem}"; it takes {smallest}x{smallest} and more. {hint}'
        )


register(
    Family(
        name="imagenet_resnet",
        summary="residual network for ImageNet (v1.5)",
        paper="He et al. 2015, table 1, https://arxiv.org/abs/1512.03385",
        pattern="resnet(?P<depth>18|34|50|101|152)",
        module=ResNet,
        fields=_resnet_fields,
        variants={
            "resnet18": "11,689,512",
            "resnet34": "21,797,672",
            "resnet50": "25,557,032",
            "resnet101": "44,549,160",
            "resnet152": "60,192,808",
        },
        image_shape=(224, 224, 3),
        num_classes=1000,
        dense_convolutions=True,
        check=_check,
    )
)
register(
    Family(
        name="resnext",
        summary="residual network with grouped convolutions",
        paper="Xie et al. 2016, https://arxiv.org/abs/1611.05431",
        pattern=r"resnext(?P<depth>50|101|152)_(?P<groups>\d+)x(?P<group_width>\d+)d",
        module=ResNet,
        fields=_resnext_fields,
        variants={
            "resnext50_32x4d": "25,028,904",
            "resnext101_32x8d": "88,791,336",
            "resnext101_64x4d": "83,455,272",
        },
        image_shape=(224, 224, 3),
        num_classes=1000,
        dense_convolutions=True,
        check=_check,
    )
)
