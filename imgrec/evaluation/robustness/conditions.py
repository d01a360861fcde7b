"""A model's answers to the same images under many conditions, in one pass over the split.

Each batch is read once, changed and classified on the device under every condition in turn, by
one compiled program in which the condition is an input. Of a changed image nothing stays but
whether the answer was right and how sure it was.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, UInt8

from imgrec.data import Split
from imgrec.evaluation.subject import Batch, Subject, Variables

# (images uint8, their index, how much) -> images uint8; how much is a traced scalar.
Change = Callable[
    [
        UInt8[Array, "batch height width channels"],
        Int[Array, " batch"],
        Float[Array, ""] | Int[Array, ""],
    ],
    UInt8[Array, "batch height width channels"],
]
Progress = Callable[[int, int], None]  # (conditions of batches done, all of them)


@dataclass(frozen=True, eq=False)
class Answers:
    """One row an example, in the order of the split, and one column a condition.

    Attributes:
      correct: whether the class with the largest logit is the label.
      nll: negative log likelihood of the label, in nats.
      confidence: the largest softmax probability.
    """

    correct: Bool[np.ndarray, "n conditions"]
    nll: Float32[np.ndarray, "n conditions"]
    confidence: Float32[np.ndarray, "n conditions"]

    def __len__(self) -> int:
        return len(self.correct)

    def columns(self, chosen: slice) -> "Answers":
        """Some of the conditions."""
        return Answers(self.correct[:, chosen], self.nll[:, chosen], self.confidence[:, chosen])


def unchanged(
    images: UInt8[Array, "batch height width channels"],
    index: Int[Array, " batch"],
    amount: Float[Array, ""] | Int[Array, ""],
) -> UInt8[Array, "batch height width channels"]:
    """The change that changes nothing, whatever the amount."""
    return images


def answers(
    subject: Subject,
    split: Split,
    changes: Sequence[Change],
    conditions: Sequence[tuple[int, int | float]],
    *,
    progress: Progress | None = None,
) -> Answers:
    """Answers to a split's images under every condition.

    Args:
      subject: the model.
      split: of images that it takes.
      changes: what may be done to a batch of images. Each is a branch of one program.
      conditions: (which change, how much), a column each. All amounts are ints or all floats.
      progress: told of every batch under every condition.
    """
    # The condition is the same for a whole batch, so one branch runs and the others wait.
    changed = jax.jit(lambda change, *given: jax.lax.switch(change, tuple(changes), *given))
    step = subject.compiled(functools.partial(_under, subject, changed))
    which = [jnp.int32(change) for change, _ in conditions]
    amounts = [jnp.asarray(amount) for _, amount in conditions]
    total = -(-len(split) // subject.batch_size) * len(conditions)
    done = 0

    def compute(variables: Variables, batch: Batch) -> dict[str, Array]:
        nonlocal done
        columns = []
        for change, amount in zip(which, amounts, strict=True):
            columns.append(step(variables, batch, change, amount))
            done += 1
            if progress is not None:
                progress(done, total)
        return side_by_side(columns)

    rows = subject.over(split, compute)
    return Answers(rows["correct"], rows["nll"], rows["confidence"])


def answers_of_parts(
    subject: Subject,
    parts: Sequence[Split],
    *,
    classes: Int[np.ndarray, " classes"] | None = None,
    progress: Progress | None = None,
) -> Answers:
    """Answers to splits that hold the same examples in the same order, a column each.

    Args:
      subject: the model.
      parts: at least one.
      classes: which logits it may choose from; labels are among them. None for all.
      progress: told of every part.

    Raises:
      ValueError: the parts do not have the same labels.
    """
    labels = parts[0].labels()
    step = subject.compiled(functools.partial(_as_they_are, subject, classes))
    columns = []
    for part in parts:
        if not np.array_equal(part.labels(), labels):
            raise ValueError(f"The labels of {part.name!r} are not those of {parts[0].name!r}.")
        columns.append(subject.over(part, step))
        if progress is not None:
            progress(len(columns), len(parts))
    stacked = {
        name: np.stack([column[name] for column in columns], axis=1)
        for name in ("correct", "nll", "confidence")
    }
    return Answers(**stacked)


def scores(logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]) -> dict[str, Array]:
    """correct, nll and confidence of `Answers`, each [batch], on the device.

    As in `metrics`, the first of equal logits is the predicted class, and a logit that is not a
    number ranks last.
    """
    logits = logits.astype(jnp.float32)
    predicted = jnp.where(jnp.isnan(logits), -jnp.inf, logits).argmax(-1)
    log_probabilities = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]
    return {
        "correct": predicted == labels,
        "nll": -chosen,
        "confidence": jnp.exp(log_probabilities.max(-1)),
    }


@jax.jit
def side_by_side(columns: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Arrays [batch] of several conditions as arrays [batch, conditions], by name."""
    return {name: jnp.stack([column[name] for column in columns], axis=1) for name in columns[0]}


def _under(
    subject: Subject,
    changed: Callable[..., UInt8[Array, "batch height width channels"]],
    variables: Variables,
    batch: Batch,
    change: Int[Array, ""],
    amount: Float[Array, ""] | Int[Array, ""],
) -> dict[str, Array]:
    images = changed(change, batch["image"], batch["index"], amount)
    return scores(subject.logits(variables, images), batch["label"])


def _as_they_are(
    subject: Subject,
    classes: Int[np.ndarray, " classes"] | None,
    variables: Variables,
    batch: Batch,
) -> dict[str, Array]:
    logits, labels = subject.logits(variables, batch["image"]), batch["label"]
    if classes is not None:
        logits = logits[:, classes]
        labels = jnp.searchsorted(jnp.asarray(classes), labels).astype(jnp.int32)
        labels = jnp.minimum(labels, len(classes) - 1)  # padding has the label 0
    return scores(logits, labels)
