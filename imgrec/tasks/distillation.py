"""Classification that also follows a teacher: soft labels, softened by a temperature.

Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network". The teacher sees the
very images that the student does, augmented and mixed (Beyer et al. 2022, "Knowledge distillation:
A good teacher is patient and consistent").
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from imgrec.tasks import Batch, Variables
from imgrec.tasks.classification import Classification


@dataclass(frozen=True)
class Distillation:
    """A student's classification beside its teacher's.

    Attributes:
      student: the task as it would be without a teacher.
      teacher: images -> logits of the same classes.
      variables: of the teacher, which nothing changes.
      mean, std: of the teacher's normalisation, per channel on the scale [0, 1].
      alpha: the teacher's share of the loss.
      temperature: that both networks' logits are divided by.
    """

    student: Classification
    teacher: nn.Module
    variables: Variables
    mean: tuple[float, ...]
    std: tuple[float, ...]
    alpha: float
    temperature: float

    def init(self, key: Key[Array, ""], images: Any = None) -> tuple[Any, Any]:
        """The student's."""
        return self.student.init(key, images)

    def prepare(self, batch: Batch, key: Key[Array, ""]) -> Batch:
        """The student's batch, and in "teacher" the logits [B, K] of the same images."""
        prepared = dict(self.student.prepare(batch, key))
        images = prepared["image"]
        # From the student's scale to the teacher's, in one affine map.
        ours, theirs = jnp.array(self.student.std), jnp.array(self.std)
        shift = (jnp.array(self.student.mean) - jnp.array(self.mean)) / theirs
        seen = (images * (ours / theirs) + shift).astype(images.dtype)
        logits: Any = self.teacher.apply(self.variables, seen, train=False)
        return prepared | {"teacher": jax.lax.stop_gradient(logits)}

    def loss(
        self, params: Any, model_state: Any, batch: Batch, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], tuple[Any, dict[str, Array]]]:
        """(1 - alpha) cross-entropy + alpha times `soft_divergence`."""
        logits, new_state = self.student.forward(params, model_state, batch, key)
        hard, metrics = self.student.scores(logits, batch)
        soft = soft_divergence(logits, batch["teacher"], self.temperature).mean()
        loss = (1 - self.alpha) * hard + self.alpha * soft
        agrees = (logits.argmax(-1) == batch["teacher"].argmax(-1)).mean()
        beside = {"loss": loss, "cross_entropy": hard, "distillation": soft, "agreement": agrees}
        return loss, (new_state, metrics | beside)

    def predict(self, variables: Variables, images: Any) -> Any:
        """The student's."""
        return self.student.predict(variables, images)


def soft_divergence(
    logits: Float[Array, "batch classes"],
    teacher: Float[Array, "batch classes"],
    temperature: float,
) -> Float[Array, " batch"]:
    """T^2 KL(softmax(teacher / T) || softmax(logits / T)), in nats.

    Gradients of the divergence shrink as 1 / T^2, hence the factor (Hinton et al., section 2).
    """
    ours = jax.nn.log_softmax(logits / temperature)
    theirs = jax.nn.log_softmax(teacher / temperature)
    return temperature**2 * optax.losses.kl_divergence_with_log_targets(ours, theirs)
