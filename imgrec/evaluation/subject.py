"""The model under evaluation: a trained network as pure functions of (variables, images).

Whoever trained it, evaluation sees only this: pixels in, logits, features or intermediates out,
and exact passes over splits, on whatever devices there are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float, Num

from imgrec import augment, models
from imgrec.data import Split, pipeline
from imgrec.evaluation import exact
from imgrec.native import convolution as native

Variables = Mapping[str, Any]
Batch = Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with its variables and the normalisation that belongs to it.

    Attributes:
      module: normalised images -> logits.
      variables: as they were chosen; every function takes variables as an argument, so that a
        compiled program does not hold a copy of them.
      mean, std: of the normalisation, per channel on the scale [0, 1].
      image_shape: height, width, channels of the images it takes.
      class_names: one for each logit.
      batch_size: global, of a pass over a split; divides evenly over the devices.
      put: places the arrays of a host batch on the devices.
      native_convolutions: passes have them from the C++ kernels, on one CPU device.
    """

    module: nn.Module
    variables: Variables
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    batch_size: int
    put: Callable[[Mapping[str, np.ndarray]], Mapping[str, Array]]
    native_convolutions: bool = False

    def logits(
        self, variables: Variables, images: Num[Array, "batch height width channels"]
    ) -> Float[Array, "batch classes"]:
        """Logits of images: uint8, or floats on the scale [0, 1], in which it is differentiable."""
        logits: Array = self.module.apply(variables, self._seen(images), train=False)  # type: ignore[assignment]
        return logits

    def outputs(
        self, variables: Variables, images: Num[Array, "batch height width channels"]
    ) -> dict[str, Array]:
        """{"logits": [batch, classes], "features": float32[batch, features]} in one pass.

        Features are what the network hands to its head.
        """
        logits, collections = self.module.apply(
            variables, self._seen(images), train=False, mutable=["intermediates"]
        )
        sown = flatten_dict(collections["intermediates"], sep="/")
        return {"logits": logits, "features": sown["pre_logits"][-1].astype(jnp.float32)}

    def intermediates(
        self, variables: Variables, images: Num[Array, "batch height width channels"]
    ) -> dict[str, Array]:
        """`models.intermediates` of images as `logits` takes them."""
        return models.intermediates(self.module, variables, self._seen(images))

    def _seen(
        self, images: Num[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        return augment.normalise(images, self.mean, self.std)

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that asks the model, as it is to be called: jitted.

        Of a subject that computes on the host it is the function itself.
        """
        return jax.jit(function)

    def over(
        self, split: Split, compute: Callable[[Variables, Batch], Mapping[str, Array]]
    ) -> dict[str, np.ndarray]:
        """What a function says of every example of a split, once each, in the split's order.

        Args:
          split: of images of `image_shape`.
          compute: (variables, batch) -> arrays whose first axis is the batch's. The batch has
            image uint8, label and index int32 and mask, on the devices. It should be jitted.

        Returns:
          These arrays on the host, with "index" and "label" beside them.
        """
        batches = pipeline.eval_batches(
            split,
            batch_size=self.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        with native.used(self.native_convolutions):
            return exact.over_split(
                compute, self.variables, batches, n=len(split), to_device=self.put
            )
