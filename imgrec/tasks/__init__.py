"""Tasks: what a batch means. A task is a handful of pure functions over a model.

The training loop knows only this protocol; detection, segmentation, contrastive learning
and captioning are to fit behind it.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float, Key

Batch = Mapping[str, Any]
Variables = Mapping[str, Any]


@runtime_checkable  # so that the tests can check annotations that name it
class Task(Protocol):
    """Pure functions that turn batches into losses and predictions."""

    def init(self, key: Key[Array, ""], images: Any = None) -> tuple[Any, Any]:
        """Initial (params, model_state), computed from training images where the model asks."""
        ...

    def prepare(self, batch: Batch, key: Key[Array, ""]) -> Batch:
        """The training batch as the loss takes it: augmented, normalised, with targets.

        Sees the whole global batch, so that mixing reaches across accumulated parts.
        """
        ...

    def loss(
        self, params: Any, model_state: Any, batch: Batch, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], tuple[Any, dict[str, Array]]]:
        """(loss, (new model_state, metrics)) of a prepared batch, averaged over its examples."""
        ...

    def predict(self, variables: Variables, images: Any) -> Any:
        """Predictions for raw uint8 images, in evaluation mode."""
        ...
