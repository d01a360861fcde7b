"""The small networks of airbench, which learn CIFAR-10 in seconds on one GPU.

Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", section 3 and appendix A,
https://arxiv.org/abs/2404.00498. Each is named for the accuracy (%) that its recipe reaches;
`airbench96` is the author's revision of June 2024, whose last rectifier follows the addition, and
`airbench90`, for CPUs, is this project's: `airbench94` at half its width
(`configs/cifar10_fast.py`).

Of the recipe, this is the network with its initialisation. What belongs to training is an
experiment's to set: the biases of the norms learn 64 times as fast, the bias of the whitening
convolution only for the first three epochs, and the labels are smoothed by 0.2.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from imgrec.errors import UserError
from imgrec.models.convolution import conv
from imgrec.models.pooling import max_pool_2x2
from imgrec.models.registry import Family, ImageShape, register

_SIZES: dict[str, dict[str, Any]] = {
    "90": {"widths": (32, 128, 128), "convolutions": 2, "momentum": 0.9},
    "94": {"widths": (64, 256, 256), "convolutions": 2, "momentum": 0.6},
    "95": {"widths": (128, 384, 384), "convolutions": 2, "momentum": 0.6},
    "96": {"widths": (128, 512, 512), "convolutions": 3, "momentum": 0.9},
}
_INIT_IMAGES = 5000  # of the training split, to whiten by (section 3.2)


class Airbench(nn.Module):
    """A frozen convolution that whitens 2x2 patches, three groups of convolutions, a linear head.

    Attributes:
      num_classes: number of logits.
      widths: channels of the three groups.
      convolutions: in each group; with 3, the last two are a residual branch.
      momentum: share that a batch norm's moving statistics keep at each step.
      mirror: outside of training, logits are the mean of an image's and its mirror image's
        (the recipe's multi-crop evaluation without its shifts), at twice the cost.
      dtype: of the arithmetic.

    The whitening kernel is no parameter: it is computed from the images that `init` is given,
    kept in the collection "whitening", and never trained. `Family.init_images` tells the
    trainer to give real ones.

    Intermediates: "stage1", "stage2", "stage3" (feature maps), "pre_logits" [batch, features].
    """

    num_classes: int
    widths: tuple[int, int, int]
    convolutions: int
    momentum: float
    mirror: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float32[Array, "batch classes"]:
        """Logits; training uses batch statistics."""
        whiten = Whitening(dtype=self.dtype, name="whiten")
        groups = {
            f"stage{stage}": ConvGroup(
                features,
                convolutions=self.convolutions,
                momentum=self.momentum,
                dtype=self.dtype,
                name=f"stage{stage}_group",
            )
            for stage, features in enumerate(self.widths, start=1)
        }

        def features(x: Array, *, sown: bool = True) -> Array:
            x = _gelu(whiten(x))
            for stage, group in groups.items():
                x = group(x, train=train)
                if sown:
                    self.sow("intermediates", stage, x)
            # 3x3 pixels of a 32x32 image; the original pools exactly these.
            return jnp.max(x, axis=(1, 2))

        x = features(images)
        if self.mirror and not train:
            # The head is linear, so this is the mean of the logits too.
            x = (x + features(images[:, :, ::-1], sown=False)) / 2
        self.sow("intermediates", "pre_logits", x)
        uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        logits = nn.Dense(
            self.num_classes, use_bias=False, kernel_init=uniform, dtype=self.dtype, name="head"
        )(x)
        return logits.astype(jnp.float32) / 9


class Whitening(nn.Module):
    """An unpadded 2x2 convolution with the fixed kernel of `whitening_kernel`, and a bias."""

    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height-1 width-1 8*channels"]:
        """Patches whose responses are about independent and of variance 1, and their negatives."""
        kernel = self.variable("whitening", "kernel", lambda: whitening_kernel(images))
        bias = self.param("bias", nn.initializers.zeros, (8 * images.shape[-1],))
        x = jax.lax.conv_general_dilated(
            images.astype(self.dtype),
            kernel.value.astype(self.dtype),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return x + bias.astype(self.dtype)


class ConvGroup(nn.Module):
    """Convolution, 2x2 max pooling, norm and GELU, then the others at the lower resolution."""

    features: int
    convolutions: int
    momentum: float
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch height//2 width//2 features"]:
        """The maps at half the resolution; a last odd row or column is left out."""
        x = max_pool_2x2(self._conv(1)(x))
        x = _gelu(self._norm(1, train)(x))
        y = self._norm(2, train)(self._conv(2)(x))
        if self.convolutions == 3:
            y = x + self._norm(3, train)(self._conv(3)(_gelu(y)))
        return _gelu(y)

    def _conv(self, number: int) -> nn.Conv:
        name = f"conv{number}"
        return conv(self.features, 3, kernel_init=partial_identity, dtype=self.dtype, name=name)

    def _norm(self, number: int, train: bool) -> nn.BatchNorm:
        """A batch norm with a bias and no scale."""
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=self.momentum,
            epsilon=1e-12,
            use_scale=False,
            dtype=self.dtype,
            name=f"norm{number}",
        )


def whitening_kernel(
    images: Float[Array, "batch height width channels"],
) -> Float32[Array, "2 2 channels 8*channels"]:
    """Filters that whiten the images' 2x2 patches, then the same filters negated.

    Each is an eigenvector of the patches' second moments, over the root of its eigenvalue
    (section 3.2), those of the largest eigenvalues first. A filter's sign would depend on the
    linear algebra at hand; here its largest weight is positive. Images that are zero
    everywhere, which whiten nothing, give unscaled filters.
    """
    x = images.astype(jnp.float32)
    height, width = x.shape[1] - 1, x.shape[2] - 1
    corners = [x[:, i : i + height, j : j + width] for i in (0, 1) for j in (0, 1)]
    patches = jnp.concatenate(corners, axis=-1).reshape(-1, 4 * x.shape[-1])
    moments = jnp.matmul(patches.T, patches, precision="highest") / patches.shape[0]
    values, vectors = jnp.linalg.eigh(moments)
    values, vectors = values[::-1], vectors[:, ::-1]
    largest = jnp.take_along_axis(vectors, jnp.abs(vectors).argmax(0)[None], axis=0)
    scale = jnp.where(values[0] > 0, 1 / jnp.sqrt(jnp.maximum(values, 0) + 5e-4), 1.0)
    filters = vectors * jnp.sign(largest) * scale
    kernel = jnp.concatenate([filters, -filters], axis=1)
    return kernel.reshape(2, 2, x.shape[-1], -1)


def partial_identity(
    key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> Float[Array, "height width channels features"]:
    """A kernel whose first filters pass the input channels on; the rest are uniform (section 3.3).

    Uniform in +-1 / sqrt(fan_in), PyTorch's way, on which the recipe was tuned.
    """
    height, width, channels, features = shape
    uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    kernel: Array = uniform(key, shape, dtype)
    passed = min(channels, features)
    identity = jnp.zeros((height, width, channels, passed), dtype)
    identity = identity.at[height // 2, width // 2].set(jnp.eye(channels, passed, dtype=dtype))
    return kernel.at[..., :passed].set(identity)


def _gelu(x: Array) -> Array:
    """The exact one, as in the recipe, and not its tanh approximation."""
    return nn.gelu(x, approximate=False)


def _fields(accuracy: str) -> dict[str, Any]:
    return dict(_SIZES[accuracy])


def _check(module: Airbench, image_shape: ImageShape) -> None:
    height, width, _ = image_shape
    if min(height, width) < 9:
        raise UserError(
            f"Images of {height}x{width} pixels are too small for airbench's networks, which "
            "take a pixel off and halve the rest three times; they take 9x9 and more. Set "
            "config.data.image_size=32."
        )


register(
    Family(
        name="airbench",
        summary="small network that learns CIFAR-10 in seconds",
        paper="Jordan 2024, https://arxiv.org/abs/2404.00498",
        pattern="airbench(?P<accuracy>90|94|95|96)",
        module=Airbench,
        fields=_fields,
        # Section 3.1 prints the second; the frozen kernel's 288 numbers do not show in it.
        variants={"airbench90": "", "airbench94": "1.97M", "airbench95": "", "airbench96": ""},
        image_shape=(32, 32, 3),
        num_classes=10,
        dense_convolutions=True,
        init_images=_INIT_IMAGES,
        check=_check,
    )
)
