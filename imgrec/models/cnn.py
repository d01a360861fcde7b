"""A small convolutional network of today's habits, for digits, clothes and a first try.

Batch normalisation and rectifiers (Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167)
in a LeNet's outline: a few convolutions, 2x2 pooling between them, and global average pooling
(Lin et al. 2013, "Network in Network", https://arxiv.org/abs/1312.4400) for the head. It is
made for a CPU: on 28x28 images it trains at about half the speed of LeNet-5.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from imgrec.errors import UserError
from imgrec.models.convolution import ConvNorm
from imgrec.models.registry import Count, Family, ImageShape, Rate, register


class SmallCNN(nn.Module):
    """A strided stem, then four convolutions at a half, a quarter and an eighth of the resolution.

    Attributes:
      num_classes: number of logits.
      width: channels of the stem; the stages have 2x, 4x and 8x as many.
      dropout: rate before the head.
      dtype: of the arithmetic.

    Intermediates: "stage1", "stage2", "stage3" (feature maps), "pre_logits" [batch, 8 width].
    """

    num_classes: int
    width: Count = 16
    dropout: Rate = 0.1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float32[Array, "batch classes"]:
        """Logits; training uses batch statistics, and dropout with the rng "dropout"."""
        # Nothing but the stem sees the full resolution, where nearly all the time would go.
        x = ConvNorm(self.width, 5, strides=2, dtype=self.dtype, name="stem")(images, train=train)
        x = nn.relu(x)
        for stage, convolutions in enumerate((1, 2, 1)):
            if stage > 0:
                # Max pooling's gradient is slow on a CPU; it took a quarter of the whole speed.
                x = nn.avg_pool(x, (2, 2), (2, 2))
            features = self.width * 2 ** (stage + 1)
            for layer in range(convolutions):
                name = f"stage{stage + 1}_conv{layer}"
                x = nn.relu(ConvNorm(features, dtype=self.dtype, name=name)(x, train=train))
            self.sow("intermediates", f"stage{stage + 1}", x)
        x = jnp.mean(x, axis=(1, 2))
        self.sow("intermediates", "pre_logits", x)
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x)
        return logits.astype(jnp.float32)


def _check(module: SmallCNN, image_shape: ImageShape) -> None:
    height, width, _ = image_shape
    if min(height, width) < 8:
        raise UserError(
            f"Images of {height}x{width} pixels are too small for small_cnn, which halves them "
            "three times; it takes 8x8 and more. Set config.data.image_size=28."
        )


register(
    Family(
        name="small_cnn",
        summary="small network with batch normalisation, for 28x28 images on a CPU",
        paper="Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167",
        pattern="small_cnn",
        module=SmallCNN,
        variants={"small_cnn": ""},
        image_shape=(28, 28, 1),
        num_classes=10,
        dense_convolutions=True,
        check=_check,
    )
)
