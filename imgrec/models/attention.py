"""Dot-product attention, by whichever program the platform is fast at.

Vaswani et al. 2017, "Attention Is All You Need", equation 1. Written out, it keeps the weights
[batch, heads, queries, keys] for the backward pass: two of the largest arrays of a transformer.
cuDNN computes it block by block and keeps one number for each query instead (Dao et al. 2022,
"FlashAttention", https://arxiv.org/abs/2205.14135).
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from imgrec.errors import UserError

Attention = Literal["auto", "materialised", "xla", "cudnn"]
"""Written out here; `jax.nn.dot_product_attention` as XLA compiles it; cuDNN's; or, with "auto",
cuDNN's where it works and written out elsewhere."""

_CUDNN_WIDTHS = range(8, 129, 8)  # of a head; what every generation of GPUs takes
_CUDNN_TYPES = (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))


def attend(
    query: Float[Array, "batch queries heads width"],
    key: Float[Array, "batch keys heads width"],
    value: Float[Array, "batch keys heads width"],
    *,
    how: Attention,
    bias: Float32[Array, "groups heads queries keys"] | None = None,
    keep_weights: bool = True,
) -> tuple[
    Float[Array, "batch queries heads width"], Float32[Array, "batch heads queries keys"] | None
]:
    """What each query reads, and the weights that it read with.

    The softmax is in float32, whoever computes it.

    Args:
      query: of every head, as the others are.
      key: what queries are compared with.
      value: what is read.
      how: "xla" and "cudnn" have no weights to show, so it says nothing where they are kept.
      bias: added to the scores, which are then written out. The batch is so many groups laid one
        after the other again and again.
      keep_weights: whether somebody asks for them.
    """
    if bias is None and not keep_weights:
        chosen = choose(how, query.shape[-1], query.dtype)
        if chosen == "cudnn":
            return _cudnn(query, key, value), None
        if chosen == "xla":
            return jax.nn.dot_product_attention(query, key, value, implementation="xla"), None
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    scores = scores / np.sqrt(query.shape[-1], dtype=np.float32)
    if bias is not None:
        scores = (scores.reshape(-1, *bias.shape) + bias).reshape(scores.shape)
    weights = jax.nn.softmax(scores, axis=-1)
    out = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)
    return out, weights if keep_weights else None


def choose(how: Attention, width: int, dtype: DTypeLike) -> Attention:
    """What "auto" stands for here and now: on this backend, for heads of this width and type."""
    if how != "auto":
        return how
    # Decided while tracing: a branch for each platform would keep what all of them need.
    fits = width in _CUDNN_WIDTHS and jnp.dtype(dtype) in _CUDNN_TYPES
    return "cudnn" if fits and jax.default_backend() == "gpu" else "materialised"


def check(module: nn.Module) -> None:
    """Refuses a module that asks for cuDNN where it cannot work.

    Raises:
      UserError: no GPU, float32, or heads of a width that its kernels do not have.
    """
    if getattr(module, "attention", None) != "cudnn":
        return
    network: Any = module
    width, dtype = network.width // network.num_heads, network.dtype
    asked = "config.model.options.attention='cudnn'"
    instead = "or attention=auto, which takes cuDNN's where it can."
    if jnp.dtype(dtype) not in _CUDNN_TYPES:
        raise UserError(
            f"{asked} computes in 16 bits, and config.train.compute_dtype is "
            f"{jnp.dtype(dtype).name!r}; set --config.train.compute_dtype=bfloat16, {instead}"
        )
    if width not in _CUDNN_WIDTHS:
        raise UserError(
            f"{asked} takes heads of a multiple of 8 features, at most 128, and this model's have "
            f"{width}; set attention=materialised, {instead}"
        )
    if jax.default_backend() != "gpu":
        raise UserError(
            f"{asked} needs an NVIDIA GPU, and the devices here are of kind "
            f"{jax.default_backend()!r}; set attention=materialised, {instead}"
        )


def _cudnn(query: Array, key: Array, value: Array) -> Array:
    """By cuDNN, whose backward pass in jax takes an even number of tokens only.

    ViT has 197 at 224 pixels: one more, which the lengths say not to look at, makes it even.
    """
    odd = query.shape[1] % 2 or key.shape[1] % 2
    if not odd:
        return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")

    def even(tokens: Array) -> Array:
        return jnp.pad(tokens, ((0, 0), (0, tokens.shape[1] % 2), (0, 0), (0, 0)))

    def lengths(tokens: Array) -> Array:
        return jnp.full(tokens.shape[0], tokens.shape[1], jnp.int32)

    out = jax.nn.dot_product_attention(
        even(query),
        even(key),
        even(value),
        query_seq_lengths=lengths(query),
        key_value_seq_lengths=lengths(key),
        implementation="cudnn",
    )
    return out[:, : query.shape[1]]
