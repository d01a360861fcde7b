"""Swin transformer: attention within windows, which every second block shifts.

Liu et al. 2021, "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
section 3, https://arxiv.org/abs/2103.14030. `swin_t` is Swin-T.

Maps that windows do not tile are padded with zeros at the bottom and on the right, after the
normalisation, and the padding is attended to like any place, as torchvision and the authors'
detector do; a window that holds the whole map is not shifted.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int

from imgrec.errors import UserError
from imgrec.models.registry import Count, Family, ImageShape, Rate, register
from imgrec.models.stochastic_depth import StochasticDepth, linear_decay
from imgrec.models.transformer import KERNELS, MLP, Gelu, SelfAttention, patches

# Section 3.3: blocks of each stage and channels of the first; appendix A2: stochastic depth.
_SIZES: dict[str, tuple[tuple[int, ...], int, float]] = {
    "t": ((2, 2, 6, 2), 96, 0.2),
    "s": ((2, 2, 18, 2), 96, 0.3),
}
_HEAD_WIDTH = 32


class SwinTransformer(nn.Module):
    """Patches of four by four pixels, stages of blocks with mergings between, and their mean.

    Attributes:
      num_classes: number of logits.
      depths: blocks of each stage.
      width: channels of the first stage; each next has twice as many, in heads of 32.
      window_size: side of a window in tokens.
      patch_size: side of the first stage's tokens in pixels; smaller ones suit small images.
      shift: False leaves the windows where they are, so that they never exchange anything
        within a stage (the paper's ablation, table 4).
      self_attention: False leaves its branch out, so that tokens meet only where they merge.
      gelu: of the MLPs, exact as published, or its approximation.
      dropout: rate after the embedding, after attention and twice in the MLP.
      stochastic_depth: drop rate of the last block's branches; earlier ones rise to it linearly.
      dtype: of the arithmetic; the softmax is always in float32.

    Intermediates: "stage1", ... (feature maps), for each block "stage1_block0/attention"
    [batch, windows, heads, queries, keys], "pre_logits" [batch, 8 width].
    """

    num_classes: int
    depths: tuple[int, ...]
    width: int
    window_size: Count = 7
    patch_size: Count = 4
    shift: bool = True
    self_attention: bool = True
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
        x = _layer_norm(self.dtype, "embedding_norm")(x)
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        position = 0
        for stage, depth in enumerate(self.depths):
            if stage > 0:
                x = PatchMerging(dtype=self.dtype, name=f"stage{stage + 1}_merging")(x)
            for block in range(depth):
                x = SwinBlock(
                    self.window_size,
                    shifted=self.shift and block % 2 == 1,
                    self_attention=self.self_attention,
                    gelu=self.gelu,
                    dropout=self.dropout,
                    drop_rate=linear_decay(self.stochastic_depth, position, sum(self.depths)),
                    dtype=self.dtype,
                    name=f"stage{stage + 1}_block{block}",
                )(x, train=train)
                position += 1
            self.sow("intermediates", f"stage{stage + 1}", x)
        x = jnp.mean(_layer_norm(self.dtype, "norm")(x), axis=(1, 2))
        self.sow("intermediates", "pre_logits", x)
        logits = nn.Dense(
            self.num_classes, kernel_init=KERNELS["normal"], dtype=self.dtype, name="head"
        )(x)
        return logits.astype(jnp.float32)


class SwinBlock(nn.Module):
    """Equation 3: attention within windows, then an MLP, each normalised first and added."""

    window_size: int
    shifted: bool
    self_attention: bool
    gelu: Gelu
    dropout: float
    drop_rate: float
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch height width channels"]:
        """The map after both branches."""
        if self.self_attention:
            y = _layer_norm(self.dtype, "norm1")(x)
            y, attention = WindowAttention(
                self.window_size, self.shifted, dtype=self.dtype, name="window_attention"
            )(y)
            self.sow("intermediates", "attention", attention)
            y = nn.Dropout(self.dropout, deterministic=not train, name="dropout1")(y)
            x = x + StochasticDepth(self.drop_rate, name="stochastic_depth1")(y, train=train)
        y = _layer_norm(self.dtype, "norm2")(x)
        y = MLP(
            4 * x.shape[-1],
            dropout=self.dropout,
            gelu=self.gelu,
            initialisation="normal",
            dtype=self.dtype,
            name="mlp",
        )(y, train=train)
        y = nn.Dropout(self.dropout, deterministic=not train, name="dropout2")(y)
        return x + StochasticDepth(self.drop_rate, name="stochastic_depth2")(y, train=train)


class WindowAttention(nn.Module):
    """Self-attention among the tokens of each window, with a learned bias for each offset.

    Where the windows are shifted by half their side, the map is rolled instead, and those at
    its ends hold parts of opposite sides, which do not attend to one another (figure 4).
    """

    window_size: int
    shifted: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> tuple[
        Float[Array, "batch height width channels"],
        Float32[Array, "batch windows heads tokens tokens"],
    ]:
        """The new map, and for each window and query the weights of the keys."""
        batch, height, width, channels = x.shape
        side = self.window_size
        x = jnp.pad(x, ((0, 0), (0, -height % side), (0, -width % side), (0, 0)))
        size = (x.shape[1], x.shape[2])
        # Along an axis that one window covers there is nobody to meet by a shift.
        shifts = [side // 2 if self.shifted and side < length else 0 for length in size]
        x = jnp.roll(x, [-shift for shift in shifts], axis=(1, 2))
        windows = _windows(x, side)
        y, attention = SelfAttention(
            channels // _HEAD_WIDTH, initialisation="normal", dtype=self.dtype, name="attend"
        )(
            windows.reshape(-1, side * side, channels),
            self._bias(channels // _HEAD_WIDTH, shifts, size),
        )
        assert attention is not None  # kept unless somebody says not to
        y = _joined(y.reshape(windows.shape), size, side)
        y = jnp.roll(y, shifts, axis=(1, 2))
        return y[:, :height, :width], attention.reshape(batch, -1, *attention.shape[1:])

    def _bias(
        self, num_heads: int, shifts: list[int], size: tuple[int, int]
    ) -> Float32[Array, "windows heads tokens tokens"]:
        """What is added to the scores: the offsets' bias, and a wall between parts."""
        side = self.window_size
        positions = self.param("positions", KERNELS["normal"], ((2 * side - 1) ** 2, num_heads))
        bias = positions[offsets(side)].transpose(2, 0, 1)
        walls = np.where(same_part(size, side, shifts), np.float32(0), np.float32(-100))
        return bias[None] + walls[:, None]


class PatchMerging(nn.Module):
    """Half the resolution: the four tokens of a 2x2 square become one of twice the channels."""

    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height_out width_out features"]:
        """The merged map; an odd last row or column is merged with zeros."""
        _, height, width, channels = x.shape
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        # Down each column of the square, then the next, as in the published weights.
        x = jnp.concatenate([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], axis=-1)
        shape = (*x.shape[:3], 2 * channels)
        x = _layer_norm(self.dtype, "norm")(x).reshape(-1, 4 * channels)
        return nn.Dense(
            2 * channels,
            use_bias=False,
            kernel_init=KERNELS["normal"],
            dtype=self.dtype,
            name="reduction",
        )(x).reshape(shape)


def offsets(side: int) -> Int[np.ndarray, "tokens tokens"]:
    """For each query and key of a window the number of the offset between their places.

    Offsets (rows, columns) from (1 - side, 1 - side) up are counted row by row.
    """
    places = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1)
    places = places.reshape(-1, 2)
    between = places[:, None] - places[None] + side - 1
    return between[..., 0] * (2 * side - 1) + between[..., 1]


def same_part(size: tuple[int, int], side: int, shifts: list[int]) -> np.ndarray:
    """Whether a query and a key of a window lie together in the map before it was rolled.

    Returns:
      bool [windows, tokens, tokens], windows row by row.
    """
    parts: np.ndarray = np.zeros((1, *size, 1), np.int32)
    for axis, shift in enumerate(shifts, start=1):
        length = size[axis - 1]
        # What lies before the last window, in it, and what was rolled into it from the front.
        part = np.zeros(length, np.int32)
        if shift:
            part[length - side :] = 1
            part[length - shift :] = 2
        parts = 3 * parts + part.reshape([-1 if a == axis else 1 for a in range(4)])
    parts = np.asarray(_windows(parts, side)).reshape(-1, side * side)
    return parts[:, :, None] == parts[:, None, :]


def _windows(x: Any, side: int) -> Any:
    """[batch, height, width, channels] as [batch, rows, columns, side, side, channels]."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // side, side, width // side, side, channels)
    return x.swapaxes(2, 3)


def _joined(windows: Any, size: tuple[int, int], side: int) -> Any:
    """The inverse of `_windows`."""
    batch, channels = windows.shape[0], windows.shape[-1]
    return windows.swapaxes(2, 3).reshape(batch, *size, channels)


def _layer_norm(dtype: DTypeLike, name: str) -> nn.LayerNorm:
    """Over each token's channels, with the epsilon of the release."""
    return nn.LayerNorm(epsilon=1e-5, dtype=dtype, name=name)


def _fields(size: str) -> dict[str, Any]:
    depths, width, _ = _SIZES[size]
    return {"depths": depths, "width": width}


def _check(module: SwinTransformer, image_shape: ImageShape) -> None:
    height, width, _ = image_shape
    if min(height, width) < module.patch_size:
        raise UserError(
            f"Images of {height}x{width} pixels are smaller than the patches of "
            f"{module.patch_size} pixels; set config.model.options.patch_size="
            f"{min(height, width)} or less, or config.data.image_size={module.patch_size}."
        )


register(
    Family(
        name="swin",
        summary="transformer that attends within shifted windows",
        paper="Liu et al. 2021, https://arxiv.org/abs/2103.14030",
        pattern="swin_(?P<size>t|s)",
        module=SwinTransformer,
        fields=_fields,
        defaults=lambda size: {"stochastic_depth": _SIZES[size][2]},
        # The paper prints 29M and 50M; torchvision and timm count so.
        variants={"swin_t": "28,288,354", "swin_s": "49,606,258"},
        image_shape=(224, 224, 3),
        num_classes=1000,
        dense_convolutions=False,
        check=_check,
    )
)
