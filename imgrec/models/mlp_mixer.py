"""MLP-Mixer: patches that exchange what they know by an MLP across them.

Tolstikhin et al. 2021, "MLP-Mixer: An all-MLP Architecture for Vision", section 2 and table 1,
https://arxiv.org/abs/2105.01601. `mixer_b16` is Mixer-B/16. An MLP across patches has a size
for each number of patches, so parameters belong to one image size.

The GELU is exact, as weights in PyTorch (timm) need it; gelu="tanh" is what the authors' code
computes.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from imgrec.errors import UserError
from imgrec.models.registry import Family, ImageShape, Rate, register
from imgrec.models.stochastic_depth import StochasticDepth, linear_decay
from imgrec.models.transformer import MLP, Gelu, patches
from imgrec.models.vit import check_patches

# Table 1: blocks, width C, and the hidden sizes D_S across patches and D_C across channels.
_SIZES = {
    "s": {"depth": 8, "width": 512, "token_hidden": 256, "channel_hidden": 2048},
    "b": {"depth": 12, "width": 768, "token_hidden": 384, "channel_hidden": 3072},
    "l": {"depth": 24, "width": 1024, "token_hidden": 512, "channel_hidden": 4096},
}


class MLPMixer(nn.Module):
    """Patches, blocks that mix across patches and then across channels, and their mean.

    Attributes:
      num_classes: number of logits.
      patch_size: side of a patch in pixels; it divides the images' height and width.
      width: features of a token.
      depth: blocks.
      token_hidden: hidden units of the MLP across tokens.
      channel_hidden: hidden units of the MLP across channels.
      gelu: of both MLPs.
      dropout: rate in both MLPs.
      stochastic_depth: drop rate of the last block's branches; earlier ones rise to it linearly.
      dtype: of the arithmetic.

    Intermediates: "block0/output" [batch, tokens, width] for each block; "encoded", the
    normalised tokens; "pre_logits" [batch, width].
    """

    num_classes: int
    patch_size: int
    width: int
    depth: int
    token_hidden: int
    channel_hidden: int
    gelu: Gelu = "erf"
    dropout: Rate = 0.0
    stochastic_depth: Rate = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float32[Array, "batch classes"]:
        """Logits; training uses the rng "dropout" where a rate asks for it."""
        x = patches(self.width, self.patch_size, dtype=self.dtype, name="embedding")(images)
        x = x.reshape(x.shape[0], -1, self.width)
        for block in range(self.depth):
            x = MixerBlock(
                self.token_hidden,
                self.channel_hidden,
                gelu=self.gelu,
                dropout=self.dropout,
                drop_rate=linear_decay(self.stochastic_depth, block, self.depth),
                dtype=self.dtype,
                name=f"block{block}",
            )(x, train=train)
        x = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(x)
        self.sow("intermediates", "encoded", x)
        x = jnp.mean(x, axis=1)
        self.sow("intermediates", "pre_logits", x)
        logits = nn.Dense(
            self.num_classes, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="head"
        )(x)
        return logits.astype(jnp.float32)


class MixerBlock(nn.Module):
    """Equation 1: an MLP down each channel, then one along each token, added to their inputs."""

    token_hidden: int
    channel_hidden: int
    gelu: Gelu
    dropout: float
    drop_rate: float
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch tokens width"], *, train: bool
    ) -> Float[Array, "batch tokens width"]:
        """The tokens after both branches."""
        y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm1")(x).swapaxes(1, 2)
        y = self._mlp(self.token_hidden, "token_mixing")(y, train=train).swapaxes(1, 2)
        x = x + StochasticDepth(self.drop_rate, name="stochastic_depth1")(y, train=train)
        y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm2")(x)
        y = self._mlp(self.channel_hidden, "channel_mixing")(y, train=train)
        x = x + StochasticDepth(self.drop_rate, name="stochastic_depth2")(y, train=train)
        self.sow("intermediates", "output", x)
        return x

    def _mlp(self, hidden: int, name: str) -> MLP:
        return MLP(
            hidden,
            dropout=self.dropout,
            gelu=self.gelu,
            initialisation="lecun",
            dtype=self.dtype,
            name=name,
        )


def _fields(size: str, patch_size: str) -> dict[str, Any]:
    if int(patch_size) < 1:
        raise UserError(f"mixer_{size}{patch_size}: a patch has at least 1 pixel, as in mixer_s16.")
    return {"patch_size": int(patch_size), **_SIZES[size]}


def _check(module: MLPMixer, image_shape: ImageShape) -> None:
    check_patches(module.patch_size, image_shape)


register(
    Family(
        name="mlp_mixer",
        summary="patches mixed by MLPs across places and across channels",
        paper="Tolstikhin et al. 2021, https://arxiv.org/abs/2105.01601",
        pattern=r"mixer_(?P<size>s|b|l)(?P<patch_size>\d+)",
        module=MLPMixer,
        fields=_fields,
        # The paper prints 19M, 18M, 60M and 59M; timm counts so.
        variants={
            "mixer_s32": "19,104,624",
            "mixer_s16": "18,528,264",
            "mixer_b32": "60,293,428",
            "mixer_b16": "59,880,472",
        },
        image_shape=(224, 224, 3),
        num_classes=1000,
        dense_convolutions=False,
        matrix_products=True,
        check=_check,
    )
)
