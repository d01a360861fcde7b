"""The convolution and the batch normalisation that the convolutional families share.

They carry the project's conventions: parameters and statistics in float32 whatever the
arithmetic, and padding that depends on the kernel alone.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

# Normal with variance 2 / fan_out keeps the variance of gradients from layer to layer
# (He et al. 2015, "Delving Deep into Rectifiers", section 2.2, the backward case).
he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ConvNorm(nn.Module):
    """A convolution and its batch norm."""

    features: int
    kernel_size: int = 3
    strides: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch height_out width_out features"]:
        """The normalised maps, at a resolution `strides` times lower."""
        x = conv(
            self.features, self.kernel_size, strides=self.strides, dtype=self.dtype, name="conv"
        )(x)
        return batch_norm(train=train, dtype=self.dtype, name="norm")(x)


def conv(
    features: int, kernel_size: int, *, strides: int = 1, dtype: DTypeLike, name: str
) -> nn.Conv:
    """A square convolution without bias, padded by half its kernel on every side.

    A map of n pixels becomes one of ceil(n / strides). TensorFlow's "SAME" pads strided
    maps of even size on one side only, which is not what the papers' networks did.
    """
    margin = (kernel_size - 1) // 2
    return nn.Conv(
        features,
        (kernel_size, kernel_size),
        strides=strides,
        padding=((margin, margin), (margin, margin)),
        use_bias=False,
        kernel_init=he_normal_fan_out,
        dtype=dtype,
        name=name,
    )


def batch_norm(
    *, train: bool, dtype: DTypeLike, name: str, zero_scale: bool = False
) -> nn.BatchNorm:
    """Batch normalisation with moving statistics in "batch_stats" (decay 0.9, epsilon 1e-5).

    Statistics are computed and kept in float32; `zero_scale` makes the layer return 0 at
    initialisation.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        scale_init=nn.initializers.zeros if zero_scale else nn.initializers.ones,
        dtype=dtype,
        name=name,
    )
