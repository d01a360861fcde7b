"""ConvNeXt: a convolutional network with a transformer's proportions.

Liu et al. 2022, "A ConvNet for the 2020s", section 3 and table 9,
https://arxiv.org/abs/2201.03545. The sizes below Tiny are those of Woo et al. 2023,
"ConvNeXt V2", appendix A, https://arxiv.org/abs/2301.00808, without what is new in V2.
"""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from imgrec.errors import UserError
from imgrec.models import lowering
from imgrec.models.registry import Count, Family, ImageShape, Rate, Scale, register
from imgrec.models.stochastic_depth import StochasticDepth, linear_decay
from imgrec.models.transformer import KERNELS, MLP, Gelu, patches

# Blocks of each stage, channels of the first (each next has twice as many), and the drop rate
# of stochastic depth (table 5; the small ones are not in it).
_SIZES: dict[str, tuple[tuple[int, ...], int, float]] = {
    "atto": ((2, 2, 6, 2), 40, 0.0),
    "femto": ((2, 2, 6, 2), 48, 0.0),
    "pico": ((2, 2, 6, 2), 64, 0.0),
    "nano": ((2, 2, 8, 2), 80, 0.0),
    "tiny": ((3, 3, 9, 3), 96, 0.1),
    "small": ((3, 3, 27, 3), 96, 0.4),
    "base": ((3, 3, 27, 3), 128, 0.5),
}


class ConvNeXt(nn.Module):
    """Patches of four by four pixels, stages of blocks with halvings between, and their mean.

    Attributes:
      num_classes: number of logits.
      depths: blocks of each stage.
      width: channels of the first stage; each next has twice as many.
      patch_size: side of the stem's patches in pixels; smaller ones suit small images.
      layer_scale: where the factor of each channel at a branch's end starts; 0: there is none.
      gelu: exact as published, or its approximation.
      stochastic_depth: drop rate of the last block; earlier ones rise to it linearly.
      dropout: rate before the head.
      dtype: of the arithmetic.

    Intermediates: "stage1", ... (feature maps), "pre_logits" [batch, 8 width].
    """

    num_classes: int
    depths: tuple[int, ...]
    width: int
    patch_size: Count = 4
    layer_scale: Scale = 1e-6
    gelu: Gelu = "erf"
    stochastic_depth: Rate = 0.0
    dropout: Rate = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float32[Array, "batch classes"]:
        """Logits; training uses the rng "dropout" where a rate asks for it."""
        x = patches(
            self.width, self.patch_size, initialisation="normal", dtype=self.dtype, name="embedding"
        )(images)
        x = layer_norm(self.dtype, "embedding_norm")(x)
        position = 0
        for stage, depth in enumerate(self.depths):
            if stage > 0:
                x = Downsample(
                    2 * x.shape[-1], dtype=self.dtype, name=f"stage{stage + 1}_downsample"
                )(x)
            for block in range(depth):
                x = ConvNeXtBlock(
                    layer_scale=self.layer_scale,
                    gelu=self.gelu,
                    drop_rate=linear_decay(self.stochastic_depth, position, sum(self.depths)),
                    dtype=self.dtype,
                    name=f"stage{stage + 1}_block{block}",
                )(x, train=train)
                position += 1
            self.sow("intermediates", f"stage{stage + 1}", x)
        x = layer_norm(self.dtype, "norm")(jnp.mean(x, axis=(1, 2)))
        self.sow("intermediates", "pre_logits", x)
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        logits = nn.Dense(
            self.num_classes, kernel_init=KERNELS["normal"], dtype=self.dtype, name="head"
        )(x)
        return logits.astype(jnp.float32)


class ConvNeXtBlock(nn.Module):
    """A depthwise 7x7 convolution, then an MLP along each pixel's channels (figure 4)."""

    layer_scale: float
    gelu: Gelu
    drop_rate: float
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch height width channels"]:
        """The block's output, of its input's shape."""
        channels = x.shape[-1]
        y = nn.Conv(
            channels,
            (7, 7),
            padding=((3, 3), (3, 3)),
            feature_group_count=channels,
            kernel_init=KERNELS["normal"],
            conv_general_dilated=lowering.conv_general_dilated,
            dtype=self.dtype,
            name="depthwise",
        )(x)
        y = layer_norm(self.dtype, "norm")(y)
        y = MLP(
            4 * channels, gelu=self.gelu, initialisation="normal", dtype=self.dtype, name="mlp"
        )(y, train=train)
        if self.layer_scale:
            start = nn.initializers.constant(self.layer_scale)
            y = y * self.param("gamma", start, (channels,)).astype(y.dtype)
        return x + StochasticDepth(self.drop_rate, name="stochastic_depth")(y, train=train)


class Downsample(nn.Module):
    """Half the resolution: normalised, then a 2x2 convolution with strides of 2 (section 2.6)."""

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height_out width_out features"]:
        """The halved map; a last odd row or column is left out."""
        y = layer_norm(self.dtype, "norm")(x)
        return patches(self.features, 2, initialisation="normal", dtype=self.dtype, name="conv")(y)


def layer_norm(dtype: DTypeLike, name: str) -> nn.LayerNorm:
    """Over each pixel's channels, with the epsilon of the release."""
    return nn.LayerNorm(epsilon=1e-6, dtype=dtype, name=name)


def _fields(size: str) -> dict[str, Any]:
    depths, width, _ = _SIZES[size]
    return {"depths": depths, "width": width}


def _check(module: ConvNeXt, image_shape: ImageShape) -> None:
    height, width, _ = image_shape
    reduction = module.patch_size * 2 ** (len(module.depths) - 1)
    if min(height, width) < reduction:
        raise UserError(
            f"Images of {height}x{width} pixels are too small for a ConvNeXt with patches of "
            f"{module.patch_size}, which divides them by {reduction}. Set "
            f"config.data.image_size={reduction} or more, or config.model.options.patch_size="
            f"{max(1, math.floor(min(height, width) * module.patch_size / reduction))}."
        )


register(
    Family(
        name="convnext",
        summary="convolutional network with a transformer's proportions",
        paper="Liu et al. 2022, https://arxiv.org/abs/2201.03545",
        pattern=f"convnext_(?P<size>{'|'.join(_SIZES)})",
        module=ConvNeXt,
        fields=_fields,
        defaults=lambda size: {"stochastic_depth": _SIZES[size][2]},
        # The papers print 3.7M to 89M; timm counts so, and torchvision from tiny on.
        variants={
            "convnext_atto": "3,695,520",
            "convnext_femto": "5,217,784",
            "convnext_pico": "9,045,672",
            "convnext_nano": "15,593,560",
            "convnext_tiny": "28,589,128",
            "convnext_small": "50,223,688",
            "convnext_base": "88,591,464",
        },
        image_shape=(224, 224, 3),
        num_classes=1000,
        dense_convolutions=False,
        check=_check,
    )
)
