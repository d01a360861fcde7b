"""The convolution and the batch normalisation that the convolutional families share.

They carry the project's conventions: parameters and statistics in float32 whatever the
arithmetic, and padding that depends on the kernel alone unless a family's published weights
were made with another.
"""

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imgrec.models import lowering
from imgrec.native import batch_norm as native_norm
from imgrec.native import convolution as native

# Normal with variance 2 / fan_out keeps the variance of gradients from layer to layer
# (He et al. 2015, "Delving Deep into Rectifiers", section 2.2, the backward case).
he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


Padding = Literal["half", "same"]
"""Half the kernel on every side; or TensorFlow's "SAME", which depends on the map's size and,
where the total is odd, pads one more at the bottom and on the right."""


class ConvNorm(nn.Module):
    """A convolution and its batch norm; `conv` and `batch_norm` say what the fields mean."""

    features: int
    kernel_size: int = 3
    strides: int = 1
    groups: int = 1
    padding: Padding = "half"
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch height_out width_out features"]:
        """The normalised maps, at a resolution `strides` times lower."""
        x = conv(
            self.features,
            self.kernel_size,
            strides=self.strides,
            groups=self.groups,
            padding=self.padding,
            dtype=self.dtype,
            name="conv",
        )(x)
        return batch_norm(
            train=train,
            momentum=self.momentum,
            epsilon=self.epsilon,
            dtype=self.dtype,
            name="norm",
        )(x)


def conv(
    features: int,
    kernel_size: int,
    *,
    strides: int = 1,
    groups: int = 1,
    use_bias: bool = False,
    kernel_init: Callable[..., Array] | None = None,
    padding: Padding = "half",
    dtype: DTypeLike,
    name: str,
) -> nn.Conv:
    """A square convolution, padded by half its kernel on every side; by default without bias.

    A map of n pixels becomes one of ceil(n / strides), with either padding. TensorFlow's
    "SAME" pads strided maps of even size on one side only, which is not what the networks of
    most papers did; those from TensorFlow ask for it.

    With `groups`, each group of output channels sees its own group of input channels; as many
    groups as channels make it depthwise.

    Kernels start from `kernel_init`, by default normal with variance 2 / fan_out, the fan-out
    being what one input pixel reaches: its own group's outputs alone.
    """
    margin = (kernel_size - 1) // 2
    if kernel_init is None:
        kernel_init = nn.initializers.variance_scaling(2.0 * groups, "fan_out", "normal")
    return nn.Conv(
        features,
        (kernel_size, kernel_size),
        strides=strides,
        padding="SAME" if padding == "same" else ((margin, margin), (margin, margin)),
        feature_group_count=groups,
        use_bias=use_bias,
        kernel_init=kernel_init,
        conv_general_dilated=lowering.conv_general_dilated,
        dtype=dtype,
        name=name,
    )


class BatchNorm(nn.BatchNorm):
    """Flax's, with the same variables; in training on one CPU by the kernels of `imgrec.native`."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array | np.ndarray, "*rows channels"],
        use_running_average: bool | None = None,
        *,
        mask: Array | None = None,
    ) -> Float[Array, "*rows channels"]:
        """The normalised maps."""
        moving = nn.merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        plain = self.use_scale and self.use_bias and self.axis_name is None and mask is None
        if moving or not plain or self.dtype != x.dtype or not native.fits(x.dtype):
            return super().__call__(x, use_running_average, mask=mask)
        shape = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        variance = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", self.scale_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, shape, self.param_dtype)
        x, *found = native_norm.batch_norm(x, scale, bias, self.epsilon)
        if not self.is_initializing():
            for kept, new in zip((mean, variance), found, strict=True):
                kept.value = self.momentum * kept.value + (1 - self.momentum) * new
        return x


def batch_norm(
    *,
    train: bool,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
    dtype: DTypeLike,
    name: str,
    zero_scale: bool = False,
) -> nn.BatchNorm:
    """Batch normalisation with moving statistics in "batch_stats".

    Statistics are computed and kept in float32; `momentum` is what a step keeps of the old
    ones (PyTorch gives the complement that name). `zero_scale` makes the layer return 0 at
    initialisation.
    """
    return BatchNorm(
        use_running_average=not train,
        momentum=momentum,
        epsilon=epsilon,
        scale_init=nn.initializers.zeros if zero_scale else nn.initializers.ones,
        dtype=dtype,
        name=name,
    )
