"""The first layer's filters, which are small pictures that it looks for."""

from dataclasses import dataclass

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float32

from imgrec import models
from imgrec.evaluation.explanations.taps import UnsupportedError
from imgrec.evaluation.subject import Subject


@dataclass(frozen=True, eq=False)
class Filters:
    """A kernel, filter by filter.

    Attributes:
      name: of the parameter, "stem/conv/kernel".
      kernel: over the normalised channels of the images.
    """

    name: str
    kernel: Float32[np.ndarray, "rows columns channels filters"]


def first_filters(subject: Subject) -> Filters:
    """The kernel of the first convolution or of the patch embedding, the strongest filter first.

    Raises:
      UnsupportedError: no kernel is over the image's channels.
    """
    channels = subject.image_shape[-1]
    flat = flatten_dict(
        {name: tree for name, tree in subject.variables.items() if name != "batch_stats"}, sep="/"
    )
    # A frozen convolution (airbench's whitening) is in a collection of its own and comes first.
    kernels = {
        name.partition("/")[2]: (name.startswith("params/"), leaf)
        for name, leaf in flat.items()
        if np.ndim(leaf) == 4 and leaf.shape[2] == channels
    }
    # What tells the order traces the network, and most have one such kernel.
    depths = models.layers(subject.module, subject.image_shape) if len(kernels) > 1 else ()
    order = {part: depth for depth, parts in enumerate(depths) for part in parts}

    def place(name: str) -> tuple[bool, int, str]:
        return kernels[name][0], order.get(name.partition("/")[0], -1), name

    if not kernels:
        raise UnsupportedError(f"it has no kernel over the {channels} channels of an image")
    name = min(kernels, key=place)
    kernel = np.asarray(jax.device_get(kernels[name][1]), np.float32)
    strength = np.square(kernel.astype(np.float64)).sum(axis=(0, 1, 2))
    return Filters(name, kernel[..., np.argsort(-strength, kind="stable")])
