"""Blocks computed a second time in the backward pass, instead of being remembered until then.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost",
https://arxiv.org/abs/1604.06174. The backward pass of a block needs what the forward pass had
inside it. Kept for all blocks at once, that is most of training's memory; recomputed from the
blocks' inputs, it is there for one block at a time, for up to a third more arithmetic.

What a block is, families tell by a name: "stage1_block0", "block3", DenseNet's "stage2_layer5",
airbench's "stage1_group". Networks of none (LeNet) have nothing to recompute.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgrec.errors import UserError
from imgrec.models.registry import ImageShape
from imgrec.native import convolution as native

Remat = Literal["none", "blocks", "dots"]
"""Recompute nothing; all that is inside of blocks; or that without the products with weights."""

_BLOCK = re.compile(r"(stage\d+_)?(block|layer|group)s?\d*")


def check(module: nn.Module, remat: str, image_shape: ImageShape, name: str) -> None:
    """Refuses to recompute what is not there.

    Args:
      module: from `create`.
      remat: `config.train.remat`.
      image_shape: that the module is given.
      name: of the model.

    Raises:
      UserError: the network has no blocks.
    """
    if remat == "none":
        return
    images = jnp.zeros((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    if not any(_BLOCK.fullmatch(part) for part in variables["params"]):
        raise UserError(
            f"config.train.remat={remat!r} computes blocks a second time, and {name!r} has none. "
            "Set --config.train.remat=none; --config.train.accumulate=2 halves the same memory."
        )


@contextlib.contextmanager
def rematerialised(remat: str) -> Iterator[None]:
    """Within it, blocks that are differentiated remember their inputs alone.

    Values are the same to the bit, random numbers included, and gradients but for the rounding
    of sums that the compiler puts in another order.

    Args:
      remat: a `Remat`.
    """
    if remat == "none":
        yield
        return
    inside: set[tuple[str, ...]] = set()

    def intercept(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        path = context.module.path
        is_block = len(path) == 1 and _BLOCK.fullmatch(path[0]) is not None
        if not is_block or context.method_name != "__call__" or path in inside:
            return call(*args, **kwargs)

        def block(module: Any, *args: Any) -> Any:
            # The lifted module is called anew, and that call comes by here too.
            inside.add(path)
            try:
                return module(*args, **kwargs)
            finally:
                inside.discard(path)

        return nn.remat(block, policy=_POLICIES[remat])(context.module, *args)

    with nn.intercept_methods(intercept):
        yield


def compiler_options(remat: str, *, on_cpu: bool) -> dict[str, str] | None:
    """What the compiler of a program with recomputed blocks has to be told.

    On a CPU, XLA takes the barriers before them away, finds that all was computed already, and
    remembers it after all.
    """
    kept = remat != "none" and on_cpu
    return {"xla_disable_hlo_passes": "cse_barrier_expander"} if kept else None


def _products_with_weights(primitive: Any, *_: Any, **params: Any) -> bool:
    """Whether an operation's output is worth remembering: those that cost most to repeat.

    Attention's products have the batch as batch axes, are large, and cost little.
    """
    if primitive.name == "conv_general_dilated":
        return True
    if primitive.name == "ffi_call":
        target: str = params["target_name"]
        return target.startswith(native.TARGET)
    if primitive.name != "dot_general":
        return False
    _, (batch, _) = params["dimension_numbers"]
    return not batch


_POLICIES = {"blocks": None, "dots": _products_with_weights}
