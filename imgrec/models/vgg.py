"""VGG: 3x3 convolutions and nothing else, with the batch norm that came a year later.

Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", table 1 (configurations A, B, D, E), https://arxiv.org/abs/1409.1556; a batch
norm follows each convolution, as in all versions that are still used.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from imgrec.errors import UserError
from imgrec.models.convolution import batch_norm, conv
from imgrec.models.pooling import adaptive_mean, max_pool_2x2
from imgrec.models.registry import Count, Family, ImageShape, Rate, register

# Convolutions in each of five stages.
_LAYERS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
POOLED = 7  # side of the last maps, which a 224x224 image has by itself


class VGG(nn.Module):
    """Five stages of convolutions, each ending in 2x2 max pooling, and three dense layers.

    Attributes:
      num_classes: number of logits.
      layers: convolutions in each stage.
      width: channels of the first stage; later ones double up to 8x.
      hidden: units of the first two dense layers, where most parameters are.
      dropout: rate after each of these two.
      dtype: of the arithmetic.

    Images of other sizes than 224x224 have their last maps averaged or repeated to 7x7,
    each output pixel from its share. Convolutions have biases, as in the original, though the
    batch norm takes them away again. Dense weights start normal with standard deviation 0.01
    (section 3.1).

    Intermediates: "stage1" to "stage5" (feature maps after pooling), "pre_logits"
    [batch, hidden].
    """

    num_classes: int
    layers: tuple[int, ...]
    width: Count = 64
    hidden: Count = 4096
    dropout: Rate = 0.5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float32[Array, "batch classes"]:
        """Logits; training uses batch statistics, and dropout with the rng "dropout"."""
        x = images
        for stage, count in enumerate(self.layers, start=1):
            features = self.width * 2 ** min(stage - 1, 3)
            for layer in range(count):
                name = f"stage{stage}_layer{layer}"
                x = VGGLayer(features, dtype=self.dtype, name=name)(x, train=train)
            x = max_pool_2x2(x)
            self.sow("intermediates", f"stage{stage}", x)
        x = adaptive_mean(x, POOLED)
        x = x.reshape(x.shape[0], -1)
        for number in (1, 2):
            x = nn.relu(self._dense(self.hidden, f"fc{number}")(x))
            name = f"dropout{number}"
            # The last hidden layer is sown as evaluation sees it, so before its dropout.
            if number == 2:
                self.sow("intermediates", "pre_logits", x)
            x = nn.Dropout(self.dropout, deterministic=not train, name=name)(x)
        return self._dense(self.num_classes, "head")(x).astype(jnp.float32)

    def _dense(self, features: int, name: str) -> nn.Dense:
        init = nn.initializers.normal(0.01)
        return nn.Dense(features, kernel_init=init, dtype=self.dtype, name=name)


class VGGLayer(nn.Module):
    """A 3x3 convolution with its bias, a batch norm and a rectifier."""

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch height width features"]:
        """Maps of the same resolution."""
        x = conv(self.features, 3, use_bias=True, dtype=self.dtype, name="conv")(x)
        return nn.relu(batch_norm(train=train, dtype=self.dtype, name="norm")(x))


def _fields(depth: str) -> dict[str, Any]:
    return {"layers": _LAYERS[int(depth)]}


def _check(module: VGG, image_shape: ImageShape) -> None:
    height, width, _ = image_shape
    if min(height, width) < 32:
        raise UserError(
            f"Images of {height}x{width} pixels are too small for VGG, which halves them five "
            "times; it takes 32x32 and more. Set config.data.image_size=32."
        )


register(
    Family(
        name="vgg",
        summary="plain network of 3x3 convolutions with batch normalisation",
        paper="Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556",
        pattern="vgg(?P<depth>11|13|16|19)_bn",
        module=VGG,
        fields=_fields,
        variants={
            "vgg11_bn": "132,868,840",
            "vgg13_bn": "133,053,736",
            "vgg16_bn": "138,365,992",
            "vgg19_bn": "143,678,248",
        },
        image_shape=(224, 224, 3),
        num_classes=1000,
        dense_convolutions=True,
        check=_check,
    )
)
