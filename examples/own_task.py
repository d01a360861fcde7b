"""A task of one's own: a yes or no for each class in place of a softmax over them.

    python -m imgrec.main --config=configs/digits_lenet.py --config.name=sigmoid \
        --config.imports="('examples.own_task',)" --config.task=sigmoid

Binary cross-entropy asks of each class alone whether the image shows it (Beyer et al. 2020,
https://arxiv.org/abs/2006.07159, section 5; Wightman et al. 2021, https://arxiv.org/abs/2110.00476),
so that an image may show two classes at once, as mixed ones do.

A task is a few pure functions, `imgrec.tasks.Task`. One that names one class an image need only say
what differs from `Classification`; training, evaluation, prediction and reports go on as before.
"""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from imgrec.tasks import Batch, registry
from imgrec.tasks.classification import Classification


class Sigmoid(Classification):
    """Classification by a binary decision for each class."""

    def scores(
        self, logits: Float[Array, "batch classes"], batch: Batch
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """(loss, metrics): binary cross-entropy, summed over classes, averaged over images."""
        # A class that is there at all counts as there, however little mixup left of it.
        targets = jnp.where(batch["target"] > 0, 1.0, 0.0)
        smoothed = targets * (1 - self.label_smoothing) + 0.5 * self.label_smoothing
        loss = optax.sigmoid_binary_cross_entropy(logits, smoothed).sum(-1).mean()
        hits = logits.argmax(-1) == batch["target"].argmax(-1)
        return loss, {"loss": loss, "accuracy": hits.mean()}


registry.register("sigmoid", Sigmoid)
