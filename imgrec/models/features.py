"""What a model computes on the way to its logits: feature maps, attention maps, embeddings.

Modules sow these into Flax's collection "intermediates", which costs nothing unless a
caller asks for it, as `intermediates` does. Probes, transfer and explanations start here.
"""

from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float

from imgrec.models import stacking


def intermediates(
    module: nn.Module,
    variables: Mapping[str, Any],
    images: Float[Array, "batch height width channels"],
) -> dict[str, jax.Array]:
    """Everything that a model sows for these images, in evaluation mode, by flat names.

    Every model has "pre_logits" [batch, features], the input of its head. Convolutional
    ones have their feature maps "stage1", "stage2", ... [batch, height, width, features];
    ViT has "block0/attention" [batch, heads, queries, keys], "block0/output"
    [batch, tokens, features], and so on for each block. Residual networks with the option
    `attention` have "stage1_block0/attention/channels" [batch, features] and, for CBAM,
    ".../positions" [batch, height, width], the weights that multiply the maps. ViT's attention
    is the softmax's output in float32; the rest has the module's dtype.

    Args:
      module: from `create`.
      variables: its parameters and moving statistics.
      images: normalised images.
    """
    _, collections = module.apply(variables, images, train=False, mutable=["intermediates"])
    sown = flatten_dict(collections["intermediates"], sep="/")
    # Flax appends what is sown to a tuple, one entry for each call of the layer.
    found = {name: values[-1] for name, values in sown.items()}
    if stacking.STACKED not in collections["intermediates"]:
        return found
    # A loop stacks what its blocks sow; here they have their names again.
    prefix = f"{stacking.STACKED}/"
    rest = {name: value for name, value in found.items() if not name.startswith(prefix)}
    looped = {name: value for name, value in found.items() if name.startswith(prefix)}
    single = stacking.singles({name.removeprefix(prefix): v for name, v in looped.items()})
    return rest | flatten_dict(single, sep="/")
