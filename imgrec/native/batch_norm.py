"""Batch normalisation in training by the C++ kernels, with its gradient, as a function of JAX."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from imgrec.native import build

TARGET = "imgrec_batch_norm_"

Statistics = Float[Array, "channels"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_norm(
    maps: Float[Array, "*rows channels"],
    scale: Statistics,
    bias: Statistics,
    epsilon: float,
) -> tuple[Float[Array, "*rows channels"], Statistics, Statistics]:
    """(maps - mean) / sqrt(variance + epsilon) * scale + bias, in float32 whatever the type.

    Args:
      maps: of float32 or bfloat16.
      scale: in float32.
      bias: in float32.
      epsilon: is added to the variance.

    Returns:
      The normalised maps in the type of `maps`, and the mean and the (biased) variance of each
      channel in float32.
    """
    statistics = jax.ShapeDtypeStruct(scale.shape, jnp.float32)
    outputs = (jax.ShapeDtypeStruct(maps.shape, maps.dtype), statistics, statistics)
    call = jax.ffi.ffi_call(_target("forward", maps), outputs)
    normalised, mean, variance = call(maps, scale, bias, epsilon=np.float32(epsilon))
    return normalised, mean, variance


def _forward(maps: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Any, Any]:
    found = batch_norm(maps, scale, bias, epsilon)
    _, mean, variance = found
    return found, (maps, scale, mean, variance)


def _backward(epsilon: float, kept: Any, gradients: Any) -> tuple[Array, Array, Array]:
    maps, scale, _, _ = kept
    outputs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (maps, scale, scale)]
    call = jax.ffi.ffi_call(_target("gradient", maps), outputs)
    of_maps, of_scale, of_bias = call(*gradients, *kept, epsilon=np.float32(epsilon))
    return of_maps, of_scale, of_bias


batch_norm.defvjp(_forward, _backward)


def _target(name: str, maps: Array) -> str:
    return TARGET + name + (build.BFLOAT16 if maps.dtype == jnp.bfloat16 else "")
