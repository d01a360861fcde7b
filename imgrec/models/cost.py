"""What a model costs: its parameters, and the arithmetic of one forward pass.

Both are exact counts that need no compilation and no memory, so that a table of big models
costs nothing to print.
"""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.extend.core import ClosedJaxpr, Jaxpr

from imgrec.models.registry import ImageShape
from imgrec.native import convolution as native


def count_parameters(variables: Mapping[str, Any]) -> int:
    """Number of trainable numbers: the collection "params", without moving statistics.

    Args:
      variables: what `module.init` returns, or the same of `jax.eval_shape`.
    """
    return sum(prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


class Cost(NamedTuple):
    """What one model costs."""

    parameters: int
    flops: float  # of the forward pass of one image


def cost_of(module: nn.Module, image_shape: ImageShape, *, computes: bool = False) -> Cost:
    """`count_parameters` and `flops` of a model, in a third of the time.

    The initialisation runs the network once, so its program holds both counts; applying
    parameters would have Flax trace every initialiser again, to check their shapes.

    Args:
      module: from `create`.
      image_shape: height, width, channels.
      computes: whether the initialisation has products of its own (`Family.init_images`), and
        the slower way has to be gone.
    """
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    program, (_, variables) = jax.make_jaxpr(
        lambda images: module.init_with_output(jax.random.key(0), images, train=False),
        return_shape=True,
    )(image)
    total = flops(module, image_shape) if computes else operations(program.jaxpr)
    return Cost(count_parameters(variables), total)


def flops(module: nn.Module, image_shape: ImageShape) -> float:
    """Floating point operations of the forward pass of one image.

    A multiply-add is two operations. Counted are the matrix products and convolutions, at
    padded positions and with zero weights too, as the papers do; normalisations, activations
    and additions are not.

    Args:
      module: from `create`.
      image_shape: height, width, channels.
    """
    images = jnp.zeros((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    forward = jax.make_jaxpr(lambda v: module.apply(v, images, train=False))(variables)
    return operations(forward.jaxpr)


def operations(jaxpr: Jaxpr) -> float:
    """Twice the multiply-adds of a traced program.

    A scan counts as often as it runs, which the compiler's own count does not see; a branch as
    its most expensive side; a program of each device (`shard_map`) for all of them.
    """
    return float(_operations(jaxpr))


def _operations(jaxpr: Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        inner = [_operations(sub) for sub in _subprograms(equation.params)]
        name = equation.primitive.name
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = _shape(equation.invars[0])
            depth = prod(left[axis] for axis in contracted)
            total += 2 * prod(_shape(equation.outvars[0])) * depth
        elif name == "conv_general_dilated":
            kernel = _shape(equation.invars[1])
            out_features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            # The kernel's input axis is already divided by the number of groups.
            per_output = prod(kernel) // out_features
            # The gradient of a strided convolution reads a map with zeros put between its
            # pixels, which no kernel multiplies.
            zeros_between = prod(equation.params["lhs_dilation"])
            total += 2 * prod(_shape(equation.outvars[0])) * per_output // zeros_between
        elif name == "ffi_call" and equation.params["target_name"].startswith(native.TARGET):
            total += 2 * native.multiplies(
                equation.params["target_name"],
                *map(_shape, equation.invars),
                *map(_shape, equation.outvars),
            )
        elif name == "scan":
            total += equation.params["length"] * sum(inner)
        elif name == "shard_map":
            total += equation.params["mesh"].size * sum(inner)
        elif name == "cond":
            total += max(inner)
        else:
            total += sum(inner)
    return total


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _subprograms(params: Mapping[str, Any]) -> Iterator[Jaxpr]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item
