"""Which axes of a transformer's parameters the devices along `tensor` share, and who may.

Shoeybi et al. 2019, "Megatron-LM", section 3, https://arxiv.org/abs/1909.08053: the layer into
a branch is cut by columns, so that a device computes its own heads or hidden units from all
features, and the layer out of it by rows, so that each device adds its part of every feature.
Between the two nothing is sent: a block needs one sum over the devices after its attention and
one after its MLP, and as many on the way back. XLA finds that program from these placements
alone; a test counts the sums.

The names are those of `imgrec.models.transformer`, which ViT, DeiT, Swin, MLP-Mixer and ConvNeXt
share. Other layers have no such pairs, and every device along `tensor` computes them whole.
"""

import math
import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgrec.errors import UserError
from imgrec.models.transformer import SelfAttention

_MLPS = "mlp|token_mixing|channel_mixing"
_ATTENTIONS = "self_attention|attend"
# By the end of a name, the axis that is cut, counted from the last.
_CUT = (
    (rf"({_ATTENTIONS})/(query|key|value)/(kernel|bias)", 1),
    (rf"({_MLPS})/hidden/(kernel|bias)", 1),
    (rf"({_ATTENTIONS}|{_MLPS})/out/kernel", 2),
    ("window_attention/positions", 1),  # a bias for each offset and head
)


def axes(name: str, shape: tuple[int, ...], size: int) -> tuple[str | None, ...]:
    """For each axis of a parameter "tensor" or None, with `size` devices along `tensor`.

    An axis that they do not divide stays whole; of attention, `check` refuses that.
    """
    found: list[str | None] = [None] * len(shape)
    for regex, from_the_end in _CUT:
        if size > 1 and re.fullmatch(f"(.*/)?{regex}", name):
            if shape[-from_the_end] % size == 0:
                found[-from_the_end] = "tensor"
            break
    return tuple(found)


def check(
    module: nn.Module,
    image_shape: tuple[int, int, int],
    placements: Mapping[str, str],
    shardings: Mapping[str, jax.sharding.NamedSharding],
    size: int,
) -> None:
    """Refuses a `tensor` axis that attention's heads do not fit, or that would cut nothing.

    Args:
      module: of the model.
      image_shape: that it is given.
      placements: the word that decided for each parameter, by its name.
      shardings: of each parameter, by its name.
      size: devices along `tensor`.

    Raises:
      UserError: naming the attention and its heads, or what to do with the devices instead.
    """
    if size == 1:
        return
    automatic = {
        path: heads
        for path, heads in num_heads(module, image_shape).items()
        if placements.get(f"{path}/query/kernel") == "auto"
    }
    for path, heads in automatic.items():
        if heads % size == 0:
            continue
        common = math.gcd(*automatic.values())
        fitting = [n for n in range(1, common + 1) if common % n == 0]
        raise UserError(
            f"config.mesh.tensor={size} devices cannot share the {heads} heads of {path!r} evenly. "
            f"Sizes of mesh.tensor that fit all attention here: {', '.join(map(str, fitting))}. "
            "Or keep attention whole on every device by a rule before the others: "
            "--config.mesh.rules=\"(('.*attention/.*', 'replicate'), ('.*', 'auto'))\"."
        )
    if not any("tensor" in sharding.spec for sharding in shardings.values()):
        raise UserError(
            f"config.mesh.tensor={size} cuts no parameter of this model: the {size} devices would "
            "all compute the same. What is cut by itself are attention and the MLPs of "
            "transformers. Give the devices to the batch, --config.mesh.tensor=1 with "
            "--config.mesh.data=-1; or write a rule, as (('head/kernel', '-,tensor'), "
            "('.*', 'auto')) for config.mesh.rules."
        )


def num_heads(module: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """The heads of each self-attention of a model, by the name of its part."""
    found: dict[str, int] = {}

    def note(call, args, kwargs, context):  # type: ignore[no-untyped-def]
        if isinstance(context.module, SelfAttention):
            found["/".join(context.module.path)] = context.module.num_heads
        return call(*args, **kwargs)

    images = jnp.zeros((1, *image_shape), jnp.float32)
    with nn.intercept_methods(note):
        jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    return found
