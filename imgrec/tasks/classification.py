"""Classification: softmax cross-entropy over augmented images, logits as predictions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, UInt8

from imgrec import augment, models, randomness
from imgrec.models.rematerialisation import rematerialised
from imgrec.tasks import Batch, Variables


@dataclass(frozen=True)
class Classification:
    """The task of naming the one class that an image shows.

    Attributes:
      module: images, train -> logits.
      augment: (uint8 images, labels, key) -> (normalised images, target probabilities).
      image_shape: height, width, channels.
      mean, std: of the normalisation, per channel on the scale [0, 1].
      label_smoothing: share of the target spread evenly over all classes (Szegedy et al. 2016,
        section 7).
      remat: what of the network is computed again in the backward pass; see
        `imgrec.models.rematerialisation`.
    """

    module: nn.Module
    augment: Callable[..., tuple[Array, Array]]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    label_smoothing: float = 0.0
    remat: str = "none"

    def init(
        self,
        key: Key[Array, ""],
        images: UInt8[Array | np.ndarray, "batch height width channels"] | None = None,
    ) -> tuple[Any, Any]:
        """Initial (params, model_state); model_state holds the batch statistics.

        Args:
          key: of the random numbers.
          images: raw training images, for a model whose initialisation is computed from some.
        """
        if images is None:
            images = jnp.zeros((1, *self.image_shape), jnp.float32)
        else:
            images = augment.normalise(images, self.mean, self.std)
        variables = dict(self.module.init({"params": key}, images, train=False))
        params = variables.pop("params")
        variables.pop("intermediates", None)
        return params, variables

    def prepare(self, batch: Batch, key: Key[Array, ""]) -> Batch:
        """Augments on the device: {"image": float32[B,H,W,C], "target": float32[B,K]}."""
        images, targets = self.augment(batch["image"], batch["label"], key)
        return {"image": images, "target": targets}

    def loss(
        self, params: Any, model_state: Any, batch: Batch, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], tuple[Any, dict[str, Array]]]:
        """Mean cross-entropy against the smoothed targets; accuracy is against their argmax."""
        logits, new_state = self.forward(params, model_state, batch, key)
        loss, metrics = self.scores(logits, batch)
        return loss, (new_state, metrics)

    def forward(
        self, params: Any, model_state: Any, batch: Batch, key: Key[Array, ""]
    ) -> tuple[Float[Array, "batch classes"], Any]:
        """(logits, new model_state) of a prepared batch, in training mode."""
        with rematerialised(self.remat):
            logits, new_state = self.module.apply(
                {"params": params, **model_state},
                batch["image"],
                train=True,
                mutable=list(model_state),
                rngs={"dropout": randomness.named(key, "dropout")},
            )
        return logits, dict(new_state)

    def scores(
        self, logits: Float[Array, "batch classes"], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """(loss, metrics) of a prepared batch's logits."""
        targets = optax.smooth_labels(batch["target"], self.label_smoothing)
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        hits = logits.argmax(-1) == batch["target"].argmax(-1)
        return loss, {"loss": loss, "accuracy": hits.mean()}

    def predict(
        self, variables: Variables, images: UInt8[Array, "batch height width channels"]
    ) -> Float[Array, "batch classes"]:
        """Logits of raw images, with the statistics that training gathered."""
        images = augment.normalise(images, self.mean, self.std)
        logits: Array = self.module.apply(variables, images, train=False)  # type: ignore[assignment]
        return logits

    def features(
        self, variables: Variables, images: UInt8[Array, "batch height width channels"]
    ) -> Float[Array, "batch features"]:
        """What the model hands to its head for raw images, in evaluation mode, as float32."""
        images = augment.normalise(images, self.mean, self.std)
        found = models.intermediates(self.module, variables, images)["pre_logits"]
        return found.astype(jnp.float32)
