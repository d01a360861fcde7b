"""The residual networks for CIFAR, and the plain networks they were compared with.

He et al. 2015, "Deep Residual Learning for Image Recognition", section 4.2 and table 6,
https://arxiv.org/abs/1512.03385. `resnet20` has 20 weighted layers; any depth 6n+2 is a name.
`resnet50` and `resnet152` are the ImageNet networks of `imagenet_resnet`, so the networks of
these depths for CIFAR are `resnet50_cifar` and `resnet152_cifar`.
"""

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from imgrec.errors import UserError
from imgrec.models.attention_blocks import Attention, attend
from imgrec.models.convolution import ConvNorm, batch_norm, conv
from imgrec.models.registry import Family, ImageShape, Rate, register
from imgrec.models.stochastic_depth import StochasticDepth, linear_decay

_STAGE_FEATURES = (16, 32, 64)


class CifarResNet(nn.Module):
    """Three stages of n = (depth - 2) / 6 blocks at full, half and quarter resolution.

    Attributes:
      num_classes: number of logits.
      depth: weighted layers, 6n+2.
      shortcut: "A" subsamples and pads channels with zeros where a block changes shape, and so
        has no parameters (the paper's choice for CIFAR); "B" projects there with a 1x1
        convolution; "none" is the plain network.
      stochastic_depth: drop rate of the last block; earlier ones rise to it linearly.
      zero_init_residual: starts the last batch norm of each branch at 0, so that every block
        is at first the identity (Goyal et al. 2017, section 5.1).
      attention: after each branch: squeeze-excitation, CBAM or none.
      dtype: of the arithmetic.

    Intermediates: "stage1", "stage2", "stage3" (feature maps), "pre_logits" [batch, 64].
    """

    num_classes: int
    depth: int
    shortcut: Literal["A", "B", "none"] = "A"
    stochastic_depth: Rate = 0.0
    zero_init_residual: bool = False
    attention: Attention = "none"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float32[Array, "batch classes"]:
        """Logits; training uses batch statistics, and the rng "dropout" to drop branches."""
        blocks_per_stage = (self.depth - 2) // 6
        x = ConvNorm(_STAGE_FEATURES[0], dtype=self.dtype, name="stem")(images, train=train)
        x = nn.relu(x)
        for stage, features in enumerate(_STAGE_FEATURES):
            for block in range(blocks_per_stage):
                position = stage * blocks_per_stage + block
                x = BasicBlock(
                    features,
                    strides=2 if stage > 0 and block == 0 else 1,
                    shortcut=self.shortcut,
                    drop_rate=linear_decay(self.stochastic_depth, position, 3 * blocks_per_stage),
                    zero_init_residual=self.zero_init_residual,
                    dtype=self.dtype,
                    attention=self.attention,
                    name=f"stage{stage + 1}_block{block}",
                )(x, train=train)
            self.sow("intermediates", f"stage{stage + 1}", x)
        x = jnp.mean(x, axis=(1, 2))
        self.sow("intermediates", "pre_logits", x)
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="head")(x)
        return logits.astype(jnp.float32)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, rectified after the addition (figure 2)."""

    features: int
    strides: int
    shortcut: str
    drop_rate: float
    zero_init_residual: bool
    dtype: DTypeLike
    attention: Attention = "none"

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch height_out width_out features"]:
        """The block's output, at a resolution `strides` times lower."""
        y = conv(self.features, 3, strides=self.strides, dtype=self.dtype, name="conv1")(x)
        y = nn.relu(batch_norm(train=train, dtype=self.dtype, name="norm1")(y))
        y = conv(self.features, 3, dtype=self.dtype, name="conv2")(y)
        y = batch_norm(
            train=train, dtype=self.dtype, name="norm2", zero_scale=self.zero_init_residual
        )(y)
        y = attend(y, self.attention, train=train, dtype=self.dtype)
        if self.shortcut == "none":
            return nn.relu(y)
        y = StochasticDepth(self.drop_rate, name="stochastic_depth")(y, train=train)
        if y.shape != x.shape:
            if self.shortcut == "A":
                x = shortcut_a(x, self.features, self.strides)
            else:
                x = ConvNorm(
                    self.features, 1, strides=self.strides, dtype=self.dtype, name="projection"
                )(x, train=train)
        return nn.relu(x + y)


def shortcut_a(
    x: Float[Array, "batch height width channels"], features: int, strides: int
) -> Float[Array, "batch height_out width_out features"]:
    """Option A of section 3.3: every `strides`-th pixel, and zeros for the channels gained."""
    x = x[:, ::strides, ::strides, :]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))


_IMAGENET_DEPTHS = (18, 34, 50, 101, 152)


def _resnet_fields(depth: str) -> dict[str, Any]:
    return {"depth": _checked_depth("resnet", int(depth))}


def _plain_fields(depth: str) -> dict[str, Any]:
    return {
        "depth": _checked_depth("plain", int(depth)),
        "shortcut": "none",
        "stochastic_depth": 0.0,
        "zero_init_residual": False,
    }


def _checked_depth(prefix: str, depth: int) -> int:
    blocks = max(1, round((depth - 2) / 6))
    if depth != 6 * blocks + 2:
        nearest, others = f"{prefix}{6 * blocks + 2}", ""
        if prefix == "resnet":
            # Nobody who types resnet50 means the one for CIFAR, though it is of this form.
            nearest += "_cifar" if 6 * blocks + 2 in _IMAGENET_DEPTHS else ""
            names = ", ".join(f"resnet{depth}" for depth in _IMAGENET_DEPTHS)
            others = f" Those for ImageNet are {names}."
        raise UserError(
            f"{prefix}{depth}: these networks have 6n+2 layers (n blocks of two in each of "
            f"three stages, a stem and a head); the nearest is {nearest}.{others}"
        )
    return depth


def _check(module: CifarResNet, image_shape: ImageShape) -> None:
    height, width, _ = image_shape
    if min(height, width) < 4:
        raise UserError(
            f"Images of {height}x{width} pixels are too small for resnet{module.depth}, which "
            "halves them twice; it takes 4x4 and more. Set config.data.image_size=32."
        )
    if module.shortcut == "none" and (module.stochastic_depth or module.zero_init_residual):
        raise UserError(
            'config.model.options.shortcut="none" leaves no path around a branch, so '
            "stochastic_depth and zero_init_residual would cut the network; remove them."
        )


register(
    Family(
        name="cifar_resnet",
        summary="residual network for small images",
        paper="He et al. 2015, section 4.2, https://arxiv.org/abs/1512.03385",
        pattern=r"resnet(?P<depth>\d+)(_cifar)?",
        module=CifarResNet,
        fields=_resnet_fields,
        # Table 6; counted with shortcuts A.
        variants={
            "resnet20": "0.27M",
            "resnet32": "0.46M",
            "resnet44": "0.66M",
            "resnet56": "0.85M",
            "resnet110": "1.7M",
        },
        image_shape=(32, 32, 3),
        num_classes=10,
        dense_convolutions=True,
        check=_check,
    )
)
register(
    Family(
        name="cifar_plain",
        summary="the CIFAR ResNet without its shortcuts, the paper's counterexample",
        paper="He et al. 2015, section 4.2, https://arxiv.org/abs/1512.03385",
        pattern=r"plain(?P<depth>\d+)",
        module=CifarResNet,
        fields=_plain_fields,
        # Shortcuts A have no parameters, so the counts of table 6 are the plain nets' too.
        variants={"plain20": "0.27M", "plain32": "0.46M", "plain44": "0.66M", "plain56": "0.85M"},
        image_shape=(32, 32, 3),
        num_classes=10,
        dense_convolutions=True,
        check=_check,
    )
)
