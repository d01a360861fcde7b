"""The vision transformer: an image as a sequence of patches, with attention and no convolution.

Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words", https://arxiv.org/abs/2010.11929,
with the fixed positions and the mean over tokens of Beyer et al. 2022, "Better plain ViT
baselines for ImageNet-1k", https://arxiv.org/abs/2205.01580, as options. `vit_s16` is ViT-S/16.
`deit_s16` is the same network as Touvron et al. 2020, "Training data-efficient image
transformers", https://arxiv.org/abs/2012.12877, start and regularise it, and
`deit_s16_distilled` has their second token, which learns from a teacher.

The authors' weights, and others trained in JAX, need gelu="tanh", the default of `vit_*`;
those trained in PyTorch (timm, torchvision, HuggingFace, and DeiT's) need gelu="erf".
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from imgrec.errors import UserError
from imgrec.models import stacking
from imgrec.models.attention import Attention
from imgrec.models.registry import Extra, Family, ImageShape, Rate, Scale, register
from imgrec.models.stochastic_depth import linear_decay
from imgrec.models.transformer import KERNELS, EncoderBlock, Gelu, patches, scan

# Width, depth and heads. B, L and H are table 1 of the paper; Ti and S come from Touvron et
# al. 2020, table 1. XS is nobody's: made to learn something within minutes on a CPU. The MLP is 4
# wide each time.
_SIZES = {
    "xs": {"width": 96, "depth": 6, "num_heads": 3},
    "ti": {"width": 192, "depth": 12, "num_heads": 3},
    "s": {"width": 384, "depth": 12, "num_heads": 6},
    "b": {"width": 768, "depth": 12, "num_heads": 12},
    "l": {"width": 1024, "depth": 24, "num_heads": 16},
    "h": {"width": 1280, "depth": 32, "num_heads": 16},
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
      positions: "learned", one vector for each place in reading order, or "sincos", which is
        made of row and column, fixed, and has no parameters.
      distillation: a second extra token with a head of its own, for a teacher's answers. The
        logits are the mean of both heads', as the paper predicts (section 4).
      registers: extra tokens without position that nobody reads, as room for what attention
        would otherwise write over patches (Darcet et al. 2023, "Vision Transformers Need
        Registers", https://arxiv.org/abs/2309.16588; they use 4).
      self_attention, qk_norm, layer_scale, gelu: of the blocks; see `EncoderBlock`.
      initialisation: "xavier" with zeros in the head (ViT), or "normal" everywhere (DeiT).
      dropout: rate after the positions are added, after attention and twice in the MLP.
      stochastic_depth: drop rate of the last block's branches; earlier ones rise to it linearly.
      attention: by which program it is computed (see `imgrec.models.attention`).
      scan_layers: the blocks are one loop, which compiles in a fraction of the time; parameters
        and intermediates then lie stacked under "blocks" (see `imgrec.models.stacking`).
      dtype: of the arithmetic; the softmax is always in float32.

    Intermediates: for each block "block0/attention" [batch, heads, queries, keys] and
    "block0/output" [batch, tokens, width]; "encoded", the normalised tokens; "pre_logits"
    [batch, width]. Extra tokens go before the patches': class, distillation, registers. With
    distillation also "distillation_pre_logits", and each head's float32 logits in
    "class_logits" and "distillation_logits".
    """

    num_classes: int
    patch_size: int
    width: int
    depth: int
    num_heads: int
    pool: Literal["cls", "mean"] = "cls"
    positions: Literal["learned", "sincos"] = "learned"
    distillation: bool = False
    registers: Extra = 0
    self_attention: bool = True
    qk_norm: bool = False
    layer_scale: Scale = 0.0
    gelu: Gelu = "tanh"
    initialisation: Literal["xavier", "normal"] = "xavier"
    dropout: Rate = 0.0
    stochastic_depth: Rate = 0.0
    attention: Attention = "auto"
    scan_layers: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float32[Array, "batch classes"]:
        """Logits; training uses the rng "dropout" where a rate asks for it."""
        x = self._tokens(images)
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        x = self._blocks(x, train)

        x = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(x)
        self.sow("intermediates", "encoded", x)
        extra = len(self._extra_tokens) + self.registers
        pooled = x[:, 0] if self.pool == "cls" else jnp.mean(x[:, extra:], axis=1)
        self.sow("intermediates", "pre_logits", pooled)
        logits = self._head("head")(pooled).astype(jnp.float32)
        if self.distillation:
            taught = x[:, self._extra_tokens.index("distillation")]
            self.sow("intermediates", "distillation_pre_logits", taught)
            self.sow("intermediates", "class_logits", logits)
            taught_logits = self._head("distillation_head")(taught).astype(jnp.float32)
            self.sow("intermediates", "distillation_logits", taught_logits)
            logits = (logits + taught_logits) / 2
        return logits

    def _blocks(self, x: Array, train: bool) -> Array:
        block = functools.partial(
            EncoderBlock,
            num_heads=self.num_heads,
            dropout=self.dropout,
            gelu=self.gelu,
            initialisation=self.initialisation,
            self_attention=self.self_attention,
            qk_norm=self.qk_norm,
            layer_scale=self.layer_scale,
            attention=self.attention,
            dtype=self.dtype,
        )
        rate = self.stochastic_depth
        if self.scan_layers and self.depth:
            looped = block(drop_rate=rate, name=stacking.STACKED)
            return scan(looped, x, depth=self.depth, drop_rate=rate, train=train)
        for i in range(self.depth):
            drop_rate = linear_decay(rate, i, self.depth)
            x = block(drop_rate=drop_rate, name=f"block{i}")(x, train=train)
        return x

    @property
    def _extra_tokens(self) -> list[str]:
        """Names of the learned tokens that have a position before the patches'."""
        return ["cls"] * (self.pool == "cls") + ["distillation"] * self.distillation

    def _tokens(self, images: Array) -> Array:
        """The sequence that the blocks read, [batch, tokens, width]."""
        normal = self.initialisation == "normal"
        embedding = patches(
            self.width,
            self.patch_size,
            initialisation="normal" if normal else "lecun",
            dtype=self.dtype,
            name="embedding",
        )
        x = embedding(images)
        batch, rows, columns, _ = x.shape
        x = x.reshape(batch, rows * columns, self.width)
        start = KERNELS["normal"] if normal else nn.initializers.zeros
        for name in reversed(self._extra_tokens):
            x = self._prepend(self.param(name, start, (1, 1, self.width)), x)
        x = x + self._positions(rows, columns).astype(x.dtype)
        if self.registers:
            shape = (1, self.registers, self.width)
            registers = self.param("registers", nn.initializers.normal(0.02), shape)
            extra = len(self._extra_tokens)
            x = jnp.concatenate([x[:, :extra], self._prepend(registers, x[:, extra:])], axis=1)
        return x

    def _prepend(self, tokens: Array, x: Array) -> Array:
        """The same learned tokens before those of every image."""
        tokens = jnp.broadcast_to(tokens.astype(x.dtype), (x.shape[0], *tokens.shape[1:]))
        return jnp.concatenate([tokens, x], axis=1)

    def _positions(self, rows: int, columns: int) -> Array:
        """The embedding of each token's position, [1, tokens, width]."""
        extra = len(self._extra_tokens)
        if self.positions == "learned":
            return self.param(
                "positions",
                nn.initializers.normal(0.02),
                (1, extra + rows * columns, self.width),
            )
        # The class token is nowhere in the image; what it needs to be told apart, it learns.
        fixed = sincos_positions(rows, columns, self.width)
        return jnp.pad(fixed, ((extra, 0), (0, 0)))[None]

    def _head(self, name: str) -> nn.Dense:
        normal = self.initialisation == "normal"
        return nn.Dense(
            self.num_classes,
            kernel_init=KERNELS["normal"] if normal else nn.initializers.zeros,
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


def resample_positions(
    positions: Float[Array, "1 tokens width"],
    grid: tuple[int, int],
    new_grid: tuple[int, int],
) -> Float[Array, "1 new_tokens width"]:
    """Learned positions for images of another size, by bicubic interpolation.

    Where the grid shrinks the interpolation is antialiased. Extra tokens, all that come before
    the grid's, keep theirs.

    Args:
      positions: a model's parameter "positions".
      grid: rows and columns of patches that they were learned on.
      new_grid: rows and columns of patches that they are wanted for.

    Raises:
      UserError: there are fewer positions than places in `grid`.
    """
    _, tokens, width = positions.shape
    extra = tokens - grid[0] * grid[1]
    if extra < 0 or min(*grid, *new_grid) < 1:
        raise UserError(
            f"{tokens} positions cannot be those of a grid of {grid[0]}x{grid[1]} patches, nor "
            f"become those of {new_grid[0]}x{new_grid[1]}; a grid has rows and columns, and at "
            "most as many places as there are positions."
        )
    places = positions[:, extra:].reshape(1, *grid, width)
    resampled = jax.image.resize(places, (1, *new_grid, width), "cubic", antialias=True)
    return jnp.concatenate([positions[:, :extra], resampled.reshape(1, -1, width)], axis=1)


def _fields(size: str, patch_size: str) -> dict[str, Any]:
    if int(patch_size) < 1:
        raise UserError(f"vit_{size}{patch_size}: a patch has at least 1 pixel, as in vit_{size}4.")
    return {"patch_size": int(patch_size), **_SIZES[size]}


def _deit_fields(size: str, patch_size: str, distilled: str | None) -> dict[str, Any]:
    if int(patch_size) < 1:
        raise UserError(f"deit_{size}{patch_size}: a patch has at least 1 pixel, as in deit_s16.")
    return {
        "patch_size": int(patch_size),
        "distillation": distilled is not None,
        "initialisation": "normal",
        **_SIZES[size],
    }


def _check(module: VisionTransformer, image_shape: ImageShape) -> None:
    if module.qk_norm and not module.self_attention:
        raise UserError(
            "config.model.options.qk_norm normalises what attention compares, and "
            "self_attention=False leaves the attention out; remove one of them."
        )
    check_patches(module.patch_size, image_shape)


def check_patches(patch: int, image_shape: ImageShape) -> None:
    """Refuses images that square patches of so many pixels do not tile."""
    height, width, _ = image_shape
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
        pattern=r"vit_(?P<size>xs|ti|s|b|l|h)(?P<patch_size>\d\d+)",
        module=VisionTransformer,
        fields=_fields,
        # The paper prints 86M, 307M and 632M; these are the exact counts of the released models.
        variants={
            "vit_ti16": "5,717,416",
            "vit_s16": "22,050,664",
            "vit_b16": "86,567,656",
            "vit_l16": "304,326,632",
            "vit_h14": "632,045,800",
        },
        image_shape=(224, 224, 3),
        num_classes=1000,
        dense_convolutions=False,
        matrix_products=True,
        check=_check,
    )
)
register(
    Family(
        name="vit_small_images",
        summary="vision transformer with patches for small images",
        paper="Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929",
        pattern=r"vit_(?P<size>xs|ti|s|b|l|h)(?P<patch_size>\d)",
        module=VisionTransformer,
        fields=_fields,
        variants={"vit_ti4": "", "vit_ti8": "", "vit_s4": "", "vit_s8": ""},
        image_shape=(32, 32, 3),
        num_classes=10,
        dense_convolutions=False,
        matrix_products=True,
        check=_check,
    )
)
register(
    Family(
        name="deit",
        summary="vision transformer as trained on ImageNet alone, with or without a teacher",
        paper="Touvron et al. 2020, https://arxiv.org/abs/2012.12877",
        pattern=r"deit_(?P<size>ti|s|b)(?P<patch_size>\d+)(?P<distilled>_distilled)?",
        module=VisionTransformer,
        fields=_deit_fields,
        # Table 9.
        defaults=lambda **_: {"gelu": "erf", "stochastic_depth": 0.1},
        # The paper prints 5M, 22M and 86M; these are the exact counts of the released models.
        variants={
            "deit_ti16": "5,717,416",
            "deit_s16": "22,050,664",
            "deit_b16": "86,567,656",
            "deit_ti16_distilled": "5,910,800",
            "deit_s16_distilled": "22,436,432",
            "deit_b16_distilled": "87,338,192",
        },
        image_shape=(224, 224, 3),
        num_classes=1000,
        dense_convolutions=False,
        matrix_products=True,
        check=_check,
    )
)
