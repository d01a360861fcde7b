"""What the transformers share: encoder blocks, self-attention and the MLP.

Vaswani et al. 2017, "Attention Is All You Need", https://arxiv.org/abs/1706.03762, with the
normalisation before each branch, as the vision transformer has it.

Every matrix product but attention's own is written over all tokens of the batch as one matrix
[batch * tokens, width]. The mathematics is the same, but on a CPU the weights' gradient is
then one plain product: an MLP's forward and backward pass took 42 ms instead of 88.
"""

import functools
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from imgrec.models.attention import Attention, attend
from imgrec.models.stochastic_depth import StochasticDepth, linear_decay

Gelu = Literal["tanh", "erf"]
"""The approximation that JAX-trained weights were made with, or the exact function, PyTorch's."""

Initialisation = Literal["xavier", "normal", "lecun"]
"""Of kernels: ViT's and its authors' code; DeiT's, Swin's and ConvNeXt's; MLP-Mixer's."""

KERNELS = {
    "xavier": nn.initializers.xavier_uniform(),
    # Published as truncated, at a hundred standard deviations.
    "normal": nn.initializers.normal(0.02),
    "lecun": nn.initializers.lecun_normal(),
}


def patches(
    features: int,
    size: int,
    *,
    initialisation: Initialisation = "lecun",
    dtype: DTypeLike,
    name: str,
) -> nn.Conv:
    """A linear map of square patches that do not overlap; what is left over is dropped."""
    return nn.Conv(
        features,
        (size, size),
        strides=(size, size),
        padding="VALID",
        kernel_init=KERNELS[initialisation],
        dtype=dtype,
        name=name,
    )


def dense(
    features: int,
    *,
    kernel_init: nn.initializers.Initializer,
    bias_init: nn.initializers.Initializer = nn.initializers.zeros,
    dtype: DTypeLike,
    name: str,
) -> nn.Dense:
    """A layer over the last axis; every product of the transformers with weights is made here."""
    return nn.Dense(features, kernel_init=kernel_init, bias_init=bias_init, dtype=dtype, name=name)


def scan(
    block: nn.Module, x: Array, *, depth: int, drop_rate: float, train: bool
) -> Float[Array, "batch tokens width"]:
    """`depth` equal blocks one after the other, as a loop that is compiled once.

    Their parameters lie in one array each, with the blocks along the first axis, and what they
    sow likewise; `imgrec.models.stacking` turns them into those of single blocks and back. Each
    block is initialised, and drops, by a key of its own.

    Args:
      block: called as `block(x, train=..., drop_rate=...)`; its name is that of the parameters.
      x: tokens.
      depth: number of blocks.
      drop_rate: of the last block's branches; earlier ones rise to it linearly.
      train: as the block takes it.
    """
    rates = jnp.asarray([linear_decay(drop_rate, i, depth) for i in range(depth)], jnp.float32)

    def step(block: nn.Module, x: Array, rate: Array) -> tuple[Array, None]:
        return block(x, train=train, drop_rate=rate if drop_rate else 0.0), None

    looped = nn.scan(
        step,
        variable_axes={"params": 0, "intermediates": 0},
        split_rngs={"params": True, "dropout": True},
        length=depth,
    )
    x, _ = looped(block, x, rates)
    return x


class EncoderBlock(nn.Module):
    """Attention, then an MLP, each on normalised tokens and added to them (ViT, equations 2 and 3).

    Attributes:
      num_heads: of the attention.
      dropout: rate after attention and twice in the MLP.
      drop_rate: of either branch as a whole.
      gelu: of the MLP.
      initialisation: of the kernels.
      self_attention: False leaves its branch out, so that tokens stop seeing each other.
      qk_norm: normalises queries and keys (see `SelfAttention`).
      layer_scale: a learned factor for each feature at the end of either branch starts there
        (Touvron et al. 2021, "Going deeper with Image Transformers", equation 4); 0: none.
      attention: by which program (see `imgrec.models.attention`).
      dtype: of the arithmetic.

    Intermediates: "attention" [batch, heads, queries, keys] and "output" [batch, tokens, width].
    """

    num_heads: int
    dropout: float
    drop_rate: float
    gelu: Gelu = "tanh"
    initialisation: Initialisation = "xavier"
    self_attention: bool = True
    qk_norm: bool = False
    layer_scale: float = 0.0
    attention: Attention = "auto"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch tokens width"],
        *,
        train: bool,
        drop_rate: float | Float[Array, ""] | None = None,
    ) -> Float[Array, "batch tokens width"]:
        """The tokens after both branches.

        Args:
          x: the tokens before.
          train: whether anything is dropped.
          drop_rate: instead of the block's own, where a loop gives each turn another.
        """
        drop_rate = self.drop_rate if drop_rate is None else drop_rate
        if self.self_attention:
            y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm1")(x)
            y, attention = SelfAttention(
                self.num_heads,
                initialisation=self.initialisation,
                qk_norm=self.qk_norm,
                attention=self.attention,
                dtype=self.dtype,
                name="self_attention",
            )(y, keep_weights=self.is_mutable_collection("intermediates"))
            self.sow("intermediates", "attention", attention)
            y = nn.Dropout(self.dropout, deterministic=not train, name="dropout1")(y)
            y = self._scale(y, "gamma1")
            x = x + StochasticDepth(drop_rate, name="stochastic_depth1")(y, train=train)

        y = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm2")(x)
        y = MLP(
            4 * x.shape[-1],
            dropout=self.dropout,
            gelu=self.gelu,
            initialisation=self.initialisation,
            dtype=self.dtype,
            name="mlp",
        )(y, train=train)
        y = nn.Dropout(self.dropout, deterministic=not train, name="dropout2")(y)
        y = self._scale(y, "gamma2")
        x = x + StochasticDepth(drop_rate, name="stochastic_depth2")(y, train=train)
        self.sow("intermediates", "output", x)
        return x

    def _scale(self, y: Array, name: str) -> Array:
        if not self.layer_scale:
            return y
        start = nn.initializers.constant(self.layer_scale)
        return y * self.param(name, start, (y.shape[-1],)).astype(y.dtype)


class SelfAttention(nn.Module):
    """Multi-head self-attention (ViT, appendix A), and the weights that it attended with.

    Attributes:
      num_heads: they share the width.
      initialisation: of the kernels.
      qk_norm: normalises each head's queries and keys before their product, which keeps the
        scores of big models from growing (Dehghani et al. 2023, "Scaling Vision Transformers
        to 22 Billion Parameters", section 2, https://arxiv.org/abs/2302.05442).
      attention: by which program.
      dtype: of the arithmetic; the softmax is always in float32.
    """

    num_heads: int
    initialisation: Initialisation = "xavier"
    qk_norm: bool = False
    attention: Attention = "auto"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch tokens width"],
        bias: Float32[Array, "groups heads tokens tokens"] | None = None,
        *,
        keep_weights: bool = True,
    ) -> tuple[
        Float[Array, "batch tokens width"], Float32[Array, "batch heads tokens tokens"] | None
    ]:
        """New tokens, and for each query the weights of the keys.

        Args:
          x: tokens.
          bias: added to the scores; the batch is so many groups laid one after the other again
            and again (the windows of one image after those of another).
          keep_weights: whether the weights are asked for; some programs never write them.
        """
        batch, tokens, width = x.shape
        heads = (batch, tokens, self.num_heads, width // self.num_heads)
        flat = x.reshape(batch * tokens, width)
        query = self._project(width, "query")(flat).reshape(heads)
        key = self._project(width, "key")(flat).reshape(heads)
        value = self._project(width, "value")(flat).reshape(heads)
        if self.qk_norm:
            query = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm_query")(query)
            key = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm_key")(key)
        # Parameters are the same whatever the program, so none has to be there to make them.
        how = "materialised" if self.is_initializing() else self.attention
        y, weights = attend(query, key, value, how=how, bias=bias, keep_weights=keep_weights)
        y = self._project(width, "out")(y.reshape(batch * tokens, width))
        return y.reshape(batch, tokens, width), weights

    def _project(self, width: int, name: str) -> nn.Dense:
        kernel_init = KERNELS[self.initialisation]
        return dense(width, kernel_init=kernel_init, dtype=self.dtype, name=name)


class MLP(nn.Module):
    """Two layers with a GELU between them, over the last axis.

    Attributes:
      hidden: features between the layers.
      dropout: rate after the GELU.
      gelu: its tanh approximation, or the exact one by the error function.
      initialisation: of the kernels.
      dtype: of the arithmetic.
    """

    hidden: int
    dropout: float = 0.0
    gelu: Gelu = "tanh"
    initialisation: Initialisation = "xavier"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*positions width"], *, train: bool
    ) -> Float[Array, "*positions width"]:
        """New features, at each position from its own alone."""
        y = x.reshape(-1, x.shape[-1])
        gelu = functools.partial(nn.gelu, approximate=self.gelu == "tanh")
        y = gelu(self._layer(self.hidden, "hidden")(y))
        y = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(y)
        return self._layer(x.shape[-1], "out")(y).reshape(x.shape)

    def _layer(self, features: int, name: str) -> nn.Dense:
        vit = self.initialisation == "xavier"
        return dense(
            features,
            kernel_init=KERNELS[self.initialisation],
            bias_init=nn.initializers.normal(1e-6) if vit else nn.initializers.zeros,
            dtype=self.dtype,
            name=name,
        )
