"""The convolution of the C++ kernels, with its gradients, as a function of JAX.

Custom calls cannot be cut over devices, differentiated twice or exported, so they are used where
that does not happen: in training steps and passes over splits on one CPU device.
"""

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imgrec.native import build

Pads = tuple[tuple[int, int], tuple[int, int]]

TARGET = "imgrec_convolution_"

_USED: ContextVar[bool] = ContextVar("native convolutions are used", default=False)


@contextlib.contextmanager
def used(wanted: bool = True) -> Iterator[None]:
    """While entered, what this thread traces has its convolutions from the kernels, if `wanted`.

    Raises:
      build.UnavailableError: there are none.
    """
    if wanted:
        build.load()
    before = _USED.set(wanted)
    try:
        yield
    finally:
        _USED.reset(before)


def fits(dtype: DTypeLike) -> bool:
    """Whether a convolution of this type, without groups or dilation, is to be computed here."""
    return _USED.get() and dtype in (jnp.float32, jnp.bfloat16)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(
    maps: Float[Array, "batch height width channels"],
    kernel: Float[Array, "rows columns channels features"],
    strides: tuple[int, int],
    pads: Pads,
) -> Float[Array, "batch height_out width_out features"]:
    """What `jax.lax.conv_general_dilated` computes, summed in float32 whatever the type.

    Args:
      maps: of float32 or bfloat16.
      kernel: of the same type.
      strides: of rows and columns.
      pads: zeros before and after, of rows and of columns.
    """
    size = [
        (length + sum(pad) - window) // stride + 1
        for length, pad, window, stride in zip(
            maps.shape[1:3], pads, kernel.shape, strides, strict=False
        )
    ]
    shape = (maps.shape[0], *size, kernel.shape[3])
    return _call("forward", shape, maps, kernel, strides, pads)


def _forward(
    maps: Any, kernel: Any, strides: tuple[int, int], pads: Pads
) -> tuple[Array, tuple[Array, Array, tuple[()] | None]]:
    # Images need no gradient; what they are convolved with would have the most expensive one.
    wanted = () if maps.perturbed else None
    return convolve(maps.value, kernel.value, strides, pads), (maps.value, kernel.value, wanted)


def _backward(
    strides: tuple[int, int],
    pads: Pads,
    kept: tuple[Array, Array, tuple[()] | None],
    gradient: Any,
) -> tuple[Array | None, Array]:
    maps, kernel, wanted = kept
    if isinstance(gradient, SymbolicZero):
        gradient = jnp.zeros(gradient.shape, gradient.dtype)
    of_maps = None
    if wanted is not None:
        of_maps = _call("input_gradient", maps.shape, gradient, kernel, strides, pads)
    return of_maps, _call("kernel_gradient", kernel.shape, maps, gradient, strides, pads)


convolve.defvjp(_forward, _backward, symbolic_zeros=True)


def multiplies(target: str, first: Sequence[int], second: Sequence[int], out: Sequence[int]) -> int:
    """Multiply-adds of one of the custom calls, by the shapes of what goes in and comes out.

    Those are (maps, kernel, result), (result, kernel, maps) or (maps, result, kernel).
    """
    result, kernel = {
        "forward": (out, second),
        "input_gradient": (first, second),
        "kernel_gradient": (second, out),
    }[target.removeprefix(TARGET).removesuffix(build.BFLOAT16)]
    return math.prod(result) * math.prod(kernel[:3])


def _call(
    name: str,
    shape: Sequence[int],
    first: Array,
    second: Array,
    strides: tuple[int, int],
    pads: Pads,
) -> Array:
    dtype = jnp.dtype(jnp.float32)
    if first.dtype == second.dtype == jnp.bfloat16 and build.multiplies_bfloat16():
        dtype, name = first.dtype, name + build.BFLOAT16
    call = jax.ffi.ffi_call(TARGET + name, jax.ShapeDtypeStruct(tuple(shape), dtype))
    numbers = {
        "stride_y": strides[0],
        "stride_x": strides[1],
        "top": pads[0][0],
        "left": pads[1][0],
    }
    attributes = {key: np.int64(value) for key, value in numbers.items()}
    found: Array = call(first.astype(dtype), second.astype(dtype), **attributes)
    return found.astype(first.dtype)
