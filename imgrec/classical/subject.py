"""A classical model under evaluation: pixels in, logits and features out, as of any subject.

It computes on the host, so nothing of it is traced: functions that ask it are called as they
are. What needs a gradient, or a network's insides, is not to be had, and says so.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Float32, Num, UInt8

from imgrec import data
from imgrec.classical import classifiers, features, saving
from imgrec.classical.saving import Saved
from imgrec.config import Experiment
from imgrec.data import Dataset
from imgrec.errors import UserError
from imgrec.evaluation.subject import Subject, Variables
from imgrec.training import input_spec, trained
from imgrec.training.trained import Trained

Images = UInt8[np.ndarray, "n height width channels"]
_BATCH = 1024  # a fit's own answers come at such lengths at their best


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassicalSubject(Subject):
    """A fitted classifier with its features.

    Attributes:
      describe: features of images, on the host.
      classify: their logits.
    """

    describe: Callable[[Images], Float32[np.ndarray, "n features"]]
    classify: Callable[[Float32[np.ndarray, "n features"]], Float32[np.ndarray, "n classes"]]
    module: nn.Module = field(default_factory=lambda: NoNetwork())
    variables: Variables = field(default_factory=dict)

    def logits(
        self, variables: Variables, images: Num[Array, "batch height width channels"]
    ) -> Float[Array, "batch classes"]:
        """As of any subject; floats on the scale [0, 1] are rounded to levels."""
        return self.outputs(variables, images)["logits"]

    def outputs(
        self, variables: Variables, images: Num[Array, "batch height width channels"]
    ) -> dict[str, Array]:
        """Logits, and the features that they were found by."""
        if isinstance(images, jax.core.Tracer):
            raise UserError(_NO_NETWORK)
        levels = np.asarray(images)
        if levels.dtype != np.uint8:
            levels = np.rint(levels * 255).clip(0, 255).astype(np.uint8)
        described = self.describe(levels)
        return {
            "logits": jnp.asarray(self.classify(described)),
            "features": jnp.asarray(described),
        }

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function itself."""
        return function


_NO_NETWORK = "a classical model has no gradient and no layers; that is for networks"


class NoNetwork(nn.Module):
    """In the place of a network, for those who would look into it."""

    def __call__(self, images: Any, train: bool = False) -> Any:
        """Refuses."""
        raise UserError(_NO_NETWORK)


def open_run(
    folder: Path, *, experiment: Experiment | None = None, dataset: Dataset | None = None
) -> Trained:
    """Opens a run, classical or of a network; as `training.trained.open_run` does of those.

    Raises:
      UserError: no such run, nothing fitted or trained in it, or something that cannot be read.
    """
    c = experiment or trained.read_experiment(folder)
    if not c.classifier.name:
        return trained.open_run(folder, experiment=c, dataset=dataset)
    saved = saving.load(folder)
    spec = input_spec.read(folder)
    if spec is None:
        spec = input_spec.of(c, (dataset or data.load(c.data)).info)
        input_spec.write(spec, folder)
    if saved.recipe is None:
        network = trained.open_run(folder, experiment=c, dataset=dataset).subject
        describe, batch_size = _by(network), network.batch_size
    else:
        describe, batch_size = _by_hand(saved), c.eval.batch_size or _BATCH
    subject = ClassicalSubject(
        describe=describe,
        classify=lambda rows: _classify(saved, rows),
        mean=spec.mean,
        std=spec.std,
        image_shape=spec.image_shape,
        class_names=spec.class_names,
        batch_size=batch_size,
        put=lambda batch: {name: jnp.asarray(array) for name, array in batch.items()},
    )
    return Trained(folder, c, spec, subject, step=0)


def _classify(
    saved: Saved, rows: Float32[np.ndarray, "n features"]
) -> Float32[np.ndarray, "n classes"]:
    found = classifiers.scores(saved.estimator, rows) / saved.temperature
    return found.astype(np.float32)


def _by_hand(saved: Saved) -> Callable[[Images], Float32[np.ndarray, "n features"]]:
    recipe = saved.recipe
    assert recipe is not None
    return lambda images: features.describe(recipe, images)


def _by(network: Subject) -> Callable[[Images], Float32[np.ndarray, "n features"]]:
    """What a network hands to its head."""
    outputs = jax.jit(network.outputs)

    def describe(images: Images) -> Float32[np.ndarray, "n features"]:
        placed = network.put({"image": images})["image"]
        return np.asarray(outputs(network.variables, placed)["features"])

    return describe
