"""The vision transformer: an image as a sequence of patches, with attention and no convolution.

Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words", https://arxiv.org/abs/2010.11929,
with the fixed positions and the mean over tokens of Beyer et al. 2022, "Better plain ViT
baselines for ImageNet-1k", https://arxiv.org/abs/2205.01580, as options. `vit_s16` is ViT-S/16.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from imgrec.errors import UserError
from imgrec.models.registry import Family, ImageShape, Rate, register
from imgrec.models.stochastic_depth import StochasticDepth, linear_decay

# Width, depth and heads. B and L are table 1 of the paper; Ti and S come from Touvron et
# al. 2020, "Training data-efficient image transformers", table 1. The MLP is 4 wide each time.
_SIZES = {
    "ti": {"width": 192, "depth": 12, "num_heads": 3},
    "s": {"width": 384, "depth": 12, "num_heads": 6},
    "b": {"width": 768, "depth": 12, "num_heads": 12},
    "l": {"width": 1024, "depth": 24, "num_heads": 16},
}


class VisionTransformer(nn.Module):
    """Patches, positions, pre-normalised encoder blocks, and one vector for the head.

    Attributes:
      num_classes: number of logits.
      patch_size: side of a patch in pixels; it divides the images' height and width.
      width: features of a token.
      depth: encoder blocks.
      num_heads: of the attention; they share the width.
      pool: "cls" reads a learned extra token, "mean" averages the patches' tokens.
      positions: "learned", or "sincos", which is fixed and has no parameters.
      dropout: rate after the positions are added, after attention and twice in the MLP.
      stochastic_depth: drop rate of the last block's branches; earlier ones rise to it linearly.
      dtype: of the arithmetic; the softmax is always in float32.

    Intermediates: for each block "block0/attention" [batch, heads, queries, keys] and
    "block0/output" [batch, tokens, width]; "encoded", the normalised tokens; "pre_logits"
    [batch, width]. With pool="cls" the extra token is the first.
    """

    num_classes: int
    patch_size: int
    width: int
    depth: int
    num_heads: int
    pool: Literal["cls", "mean"] = "cls"
    positions: Literal["learned", "sincos"] = "learned"
    dropout: Rate = 0.0
    stochastic_depth: Rate = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float32[Array, "batch classes"]:
        """Logits; training uses the rng "dropout" where a rate asks for it."""
        x = nn.Conv(
            self.width,
            (self.patch_size, self.patch_size),
            strides=(self.patch_size, self.patch_size),
            padding="VALID",
            dtype=self.dtype,
            name="embedding",
        )(images)
        batch, rows, columns, _ = x.shape
        x = x.reshape(batch, rows * columns, self.width)
        if self.pool == "cls":
            cls = self.param("cls", nn.initializers.zeros, (1, 1, self.width)).astype(x.dtype)
            x = jnp.concatenate([jnp.broadcast_to(cls, (batch, 1, self.width)), x], axis=1)
        x = x + self._positions(rows, columns).astype(x.dtype)
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)

        for block in range(self.depth):
            x = EncoderBlock(
                num_heads=self.num_heads,
                dropout=self.dropout,
                drop_rate=linear_decay(self.stochastic_depth, block, self.depth),
                dtype=self.dtype,
                name=f"block{block}",
            )(x, train=train)

        x = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(x)
        self.sow("intermediates", "encoded", x)
        x = x[:, 0] if self.pool == "cls" else jnp.mean(x, axis=1)
        self.sow("intermediates", "pre_logits", x)
        logits = nn.Dense(
            self.num_classes, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="head"
        )(x)
        return logits.astype(jnp.float32)

    def _positions(self, rows: int, columns: int) -> Array:
        """The embedding of each token's position, [1, tokens, width]."""
        extra = 1 if self.pool == "cls" else 0
        if self.positions == "learned":
            return self.param(
                "positions",
                nn.initializers.normal(0.02),
                (1, extra + rows * columns, self.width),
            )
        # The class token is nowhere in the image; what it needs to be told apart, it learns.
        fixed = sincos_positions(rows, columns, self.width)
        return jnp.pad(fixed, ((extra, 0), (0, 0)))[None]


class EncoderBlock(nn.Module):
    """Equations 2 and 3: attention, then an MLP, each on normalised tokens and added to them.

    Every matrix product but attention's own is written over all tokens of the batch as one
    matrix [batch * tokens, width]. The mathematics is the same, but on a CPU the weights'
    gradient is then one plain product: an MLP's forward and backward pass took 42 ms
    instead of 88.
    """

    num_heads: int
    dropout: float
    drop_rate: float
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch tokens width"], *, train: bool
    ) -> Float[Array, "batch tokens width"]:
        """The tokens after both branches."""
        y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm1")(x)
        y, attention = SelfAttention(self.num_heads, dtype=self.dtype, name="self_attention")(y)
        self.sow("intermediates", "attention", attention)
        y = nn.Dropout(self.dropout, deterministic=not train, name="dropout1")(y)
        x = x + StochasticDepth(self.drop_rate, name="stochastic_depth1")(y, train=train)

        y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm2")(x)
        y = MLP(self.dropout, dtype=self.dtype, name="mlp")(y, train=train)
        y = nn.Dropout(self.dropout, deterministic=not train, name="dropout2")(y)
        x = x + StochasticDepth(self.drop_rate, name="stochastic_depth2")(y, train=train)
        self.sow("intermediates", "output", x)
        return x


class SelfAttention(nn.Module):
    """Multi-head self-attention (appendix A), and the weights that it attended with."""

    num_heads: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch tokens width"]
    ) -> tuple[Float[Array, "batch tokens width"], Float32[Array, "batch heads tokens tokens"]]:
        """New tokens, and for each query the weights of the keys."""
        batch, tokens, width = x.shape
        heads = (batch, tokens, self.num_heads, width // self.num_heads)
        flat = x.reshape(batch * tokens, width)
        query = self._project(width, "query")(flat).reshape(heads)
        key = self._project(width, "key")(flat).reshape(heads)
        value = self._project(width, "value")(flat).reshape(heads)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
        attention = jax.nn.softmax(scores / np.sqrt(heads[-1], dtype=np.float32), axis=-1)
        y = jnp.einsum("bhqk,bkhd->bqhd", attention.astype(value.dtype), value)
        y = self._project(width, "out")(y.reshape(batch * tokens, width))
        return y.reshape(batch, tokens, width), attention

    def _project(self, width: int, name: str) -> nn.Dense:
        xavier = nn.initializers.xavier_uniform()
        return nn.Dense(width, kernel_init=xavier, dtype=self.dtype, name=name)


class MLP(nn.Module):
    """Two layers and a GELU (its tanh approximation), four times as wide inside as outside."""

    dropout: float
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch tokens width"], *, train: bool
    ) -> Float[Array, "batch tokens width"]:
        """New tokens, each from itself alone."""
        batch, tokens, width = x.shape
        y = x.reshape(batch * tokens, width)
        y = nn.gelu(self._layer(4 * width, "hidden")(y))
        y = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(y)
        return self._layer(width, "out")(y).reshape(batch, tokens, width)

    def _layer(self, features: int, name: str) -> nn.Dense:
        return nn.Dense(
            features,
            kernel_init=nn.initializers.xavier_uniform(),
            bias_init=nn.initializers.normal(1e-6),
            dtype=self.dtype,
            name=name,
        )


def sincos_positions(rows: int, columns: int, width: int) -> Float32[Array, "tokens width"]:
    """Fixed embeddings of a grid of positions, tokens row by row (Beyer et al. 2022).

    A quarter of the features each are sin(x w), cos(x w), sin(y w) and cos(y w), for column x,
    row y and frequencies w from 1 down to 1/10000 in geometric progression.
    """
    y, x = np.mgrid[:rows, :columns].reshape(2, -1, 1)
    frequencies = 10_000.0 ** -np.linspace(0, 1, width // 4)
    parts = [np.sin(x * frequencies), np.cos(x * frequencies)]
    parts += [np.sin(y * frequencies), np.cos(y * frequencies)]
    return jnp.asarray(np.concatenate(parts, axis=1), jnp.float32)


def _fields(size: str, patch_size: str) -> dict[str, Any]:
    if int(patch_size) < 1:
        raise UserError(f"vit_{size}{patch_size}: a patch has at least 1 pixel, as in vit_{size}4.")
    return {"patch_size": int(patch_size), **_SIZES[size]}


def _check(module: VisionTransformer, image_shape: ImageShape) -> None:
    height, width, _ = image_shape
    patch = module.patch_size
    if height % patch or width % patch:
        fitting = [n for n in range(1, min(height, width) + 1) if height % n == width % n == 0]
        below = max(patch, min(height, width) // patch * patch)
        raise UserError(
            f"Patches of {patch}x{patch} pixels do not tile images of {height}x{width}. "
            f"Patch sizes that do: {', '.join(map(str, fitting))}; or resize the images by "
            f"config.data.image_size={below} or {below + patch}."
        )


register(
    Family(
        name="vit",
        summary="vision transformer",
        paper="Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929",
        pattern=r"vit_(?P<size>ti|s|b|l)(?P<patch_size>\d\d+)",
        module=VisionTransformer,
        fields=_fields,
        # The paper prints 86M and 307M; these are the exact counts of the released models.
        variants={
            "vit_ti16": "5,717,416",
            "vit_s16": "22,050,664",
            "vit_b16": "86,567,656",
            "vit_l16": "304,326,632",
        },
        image_shape=(224, 224, 3),
        num_classes=1000,
        convolutional=False,
        check=_check,
    )
)
register(
    Family(
        name="vit_small_images",
        summary="vision transformer with patches for small images",
        paper="Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929",
        pattern=r"vit_(?P<size>ti|s|b|l)(?P<patch_size>\d)",
        module=VisionTransformer,
        fields=_fields,
        variants={"vit_ti4": "", "vit_ti8": "", "vit_s4": "", "vit_s8": ""},
        image_shape=(32, 32, 3),
        num_classes=10,
        convolutional=False,
        check=_check,
    )
)
