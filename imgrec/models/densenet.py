"""Densely connected networks: each layer sees the maps of all layers before it in its stage.

Huang et al. 2016, "Densely Connected Convolutional Networks", section 3 and table 1
(DenseNet-BC: bottlenecks, and transitions that halve the channels),
https://arxiv.org/abs/1608.06993.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from imgrec.errors import UserError
from imgrec.models.convolution import ConvNorm, batch_norm, conv
from imgrec.models.pooling import max_pool_3x3
from imgrec.models.registry import Family, ImageShape, Rate, register

# Layers of each stage (table 1), the growth rate, and the channels of the stem.
_SIZES = {
    121: {"layers": (6, 12, 24, 16), "growth_rate": 32, "stem_features": 64},
    161: {"layers": (6, 12, 36, 24), "growth_rate": 48, "stem_features": 96},
    169: {"layers": (6, 12, 32, 32), "growth_rate": 32, "stem_features": 64},
    201: {"layers": (6, 12, 48, 32), "growth_rate": 32, "stem_features": 64},
}


class DenseNet(nn.Module):
    """A stem, and four stages of layers at 1/4, 1/8, 1/16 and 1/32 of the resolution.

    Attributes:
      num_classes: number of logits.
      layers: in each stage.
      growth_rate: k, the channels that each layer adds.
      stem_features: channels of the stem.
      dropout: rate after each 3x3 convolution (section 3; 0.2 for small data sets without
        augmentation, 0 for ImageNet).
      dtype: of the arithmetic.

    Intermediates: "stage1" to "stage4" (feature maps: a stem's or transition's, and those
    that the layers added), "pre_logits" [batch, features].
    """

    num_classes: int
    layers: tuple[int, ...]
    growth_rate: int
    stem_features: int
    dropout: Rate = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float32[Array, "batch classes"]:
        """Logits; training uses batch statistics, and dropout with the rng "dropout"."""
        x = ConvNorm(self.stem_features, 7, 2, dtype=self.dtype, name="stem")(images, train=train)
        x = max_pool_3x3(nn.relu(x), strides=2)
        for stage, count in enumerate(self.layers, start=1):
            if stage > 1:
                name = f"transition{stage - 1}"
                x = Transition(x.shape[-1] // 2, dtype=self.dtype, name=name)(x, train=train)
            for layer in range(count):
                new = DenseLayer(
                    self.growth_rate,
                    dropout=self.dropout,
                    dtype=self.dtype,
                    name=f"stage{stage}_layer{layer}",
                )(x, train=train)
                x = jnp.concatenate([x, new], axis=-1)
            self.sow("intermediates", f"stage{stage}", x)
        x = nn.relu(batch_norm(train=train, dtype=self.dtype, name="norm")(x))
        x = jnp.mean(x, axis=(1, 2))
        self.sow("intermediates", "pre_logits", x)
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x)
        return logits.astype(jnp.float32)


class DenseLayer(nn.Module):
    """Norm, rectifier, 1x1 convolution to 4k maps, and again with 3x3 to k."""

    growth_rate: int
    dropout: float
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch height width growth_rate"]:
        """The new maps alone."""
        y = nn.relu(batch_norm(train=train, dtype=self.dtype, name="norm1")(x))
        y = conv(4 * self.growth_rate, 1, dtype=self.dtype, name="conv1")(y)
        y = nn.relu(batch_norm(train=train, dtype=self.dtype, name="norm2")(y))
        y = conv(self.growth_rate, 3, dtype=self.dtype, name="conv2")(y)
        return nn.Dropout(self.dropout, deterministic=not train, name="dropout")(y)


class Transition(nn.Module):
    """Norm, rectifier, 1x1 convolution, and 2x2 averages."""

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch height//2 width//2 features"]:
        """Maps at half the resolution; a last odd row or column is left out."""
        x = nn.relu(batch_norm(train=train, dtype=self.dtype, name="norm")(x))
        x = conv(self.features, 1, dtype=self.dtype, name="conv")(x)
        return nn.avg_pool(x, (2, 2), (2, 2))


def _fields(depth: str) -> dict[str, Any]:
    return dict(_SIZES[int(depth)])


def _check(module: DenseNet, image_shape: ImageShape) -> None:
    height, width, _ = image_shape
    if min(height, width) < 32:
        raise UserError(
            f"Images of {height}x{width} pixels are too small for DenseNet, which halves them "
            "five times; it takes 32x32 and more. Set config.data.image_size=32."
        )


register(
    Family(
        name="densenet",
        summary="densely connected network for ImageNet (DenseNet-BC)",
        paper="Huang et al. 2016, https://arxiv.org/abs/1608.06993",
        pattern="densenet(?P<depth>121|161|169|201)",
        module=DenseNet,
        fields=_fields,
        variants={
            "densenet121": "7,978,856",
            "densenet161": "28,681,000",
            "densenet169": "14,149,480",
            "densenet201": "20,013,928",
        },
        image_shape=(224, 224, 3),
        num_classes=1000,
        dense_convolutions=True,
        check=_check,
    )
)
