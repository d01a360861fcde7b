"""A network's layers from its input to its head, for what depends on how deep a parameter lies.

Fine-tuning moves the layers near the head more than those near the input, which are more
general (Yosinski et al. 2014). Every family here applies its parts ("stem", "stage1_block0",
"norm", "head") one after the other, so the order of the layers is read off the network itself.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgrec.models import stacking
from imgrec.models.registry import ImageShape

Layers = tuple[tuple[str, ...], ...]
"""From the input to the head: the first parts of the names of each layer's parameters."""


def layers(module: nn.Module, image_shape: ImageShape) -> Layers:
    """The layers of a model, each as the names of its parts.

    A part with parameters is a layer, in the order in which the model applies them. Two kinds
    belong to another's: parameters of the model itself (a class token, positions) to the first
    layer, and a part of vectors alone (a normalisation) to the part before it, or to the head if
    that comes next. ViT's are then those of BEiT (Bao et al. 2021) and timm: the embedding, each
    block, and the head with its norm. Blocks that a loop goes over are layers of their own.

    Args:
      module: from `create`.
      image_shape: that it is given.
    """
    module = stacking.portable(module)
    applied: list[str] = []

    def note(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        path = context.module.path
        if path and path[0] not in applied:
            applied.append(path[0])
        return call(*args, **kwargs)

    images = jnp.zeros((1, *image_shape), jnp.float32)
    with nn.intercept_methods(note):
        variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    params = variables["params"]
    ordered = [name for name in applied if name in params]
    found: list[list[str]] = []
    waiting: list[str] = []  # for the head
    for name in ordered:
        vectors = all(leaf.ndim < 2 for leaf in jax.tree.leaves(params[name]))
        if vectors and ordered[-1] == "head" and name == ordered[-2]:
            waiting = [name]
        elif vectors and found:
            found[-1].append(name)
        else:
            found.append([*waiting, name])
    own = sorted(params.keys() - set(ordered))
    first, *others = found
    return (tuple(own + first), *(tuple(layer) for layer in others))


def index_of(layers: Layers, name: str) -> int:
    """The number of a parameter's layer, 0 at the input; `name` as in "stem/conv/kernel"."""
    part = name.partition("/")[0]
    return next(i for i, parts in enumerate(layers) if part in parts)


def indices_of(layers: Layers, name: str) -> tuple[int, ...]:
    """The numbers of a parameter's layers: one, or of a loop's parameter that of each block."""
    if not name.startswith(f"{stacking.STACKED}/"):
        return (index_of(layers, name),)
    numbers = ((stacking.block_number(part), i) for i, parts in enumerate(layers) for part in parts)
    return tuple(i for number, i in sorted((n, i) for n, i in numbers if n is not None))
