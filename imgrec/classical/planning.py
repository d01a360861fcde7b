"""Everything about a classical run that can be known before it: made, checked, not yet computed."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from imgrec import data, validation
from imgrec.classical import classifiers, features
from imgrec.classical.classifiers import KINDS
from imgrec.classical.features import NETWORK, Recipe
from imgrec.config import Experiment
from imgrec.data import Dataset
from imgrec.errors import UserError
from imgrec.training import memory, plan, resident, resolving
from imgrec.training.plan import Plan

_SHARE = 0.8  # of a machine's memory that a fit may take


@dataclass(frozen=True)
class ClassicalPlan:
    """A resolved experiment.

    Attributes:
      experiment: resolved.
      dataset: of it.
      candidates: options, one of which validation chooses.
      recipe: of features by hand, not learnt yet; None where they are a network's.
      network: of the features, where they are a network's.
      dimensions: features of an image.
      needs: bytes of memory, about, at most.
    """

    experiment: Experiment
    dataset: Dataset
    candidates: list[dict[str, Any]]
    recipe: Recipe | None
    network: Plan | None
    dimensions: int
    needs: int

    def describe(self) -> list[str]:
        """Lines for people."""
        c, d = self.experiment, self.dataset
        splits = [d.train, *([d.validation] if d.validation else []), d.test]
        several = len(self.candidates)
        chosen = f"one of {several} by validation" if several > 1 else f"{self.candidates[0]}"
        return [
            f"data: {d.info.name}, {d.info.source}; "
            + ", ".join(f"{len(split):,} {split.name}" for split in splits),
            f"features: {c.features.name}, {self.dimensions:,} an image"
            + (", upright" if c.features.deskew else ""),
            f"classifier: {c.classifier.name}, {chosen}",
            f"memory: about {memory.megabytes(self.needs)} of "
            f"{memory.megabytes(resident.host_memory())}",
        ]


def plan_classical(experiment: Experiment, dataset: Dataset | None = None) -> ClassicalPlan:
    """Resolves a classical experiment against its data and the machine.

    Args:
      experiment: with a classifier.
      dataset: in place of the one that `experiment.data` names, which is then not read.

    Raises:
      UserError: whatever is impossible, with what to change; before any feature is computed.
    """
    validation.validate(experiment)
    # Names first: reading data may take a while.
    classifiers.candidates(experiment.classifier, has_validation=True)
    by_network = experiment.features.name == NETWORK
    recipe = None if by_network else features.recipe(experiment.features)
    if by_network and (experiment.features.deskew or experiment.features.options):
        raise UserError(
            "config.features.deskew and config.features.options are for features by hand; those "
            "of a network are as the network was trained. Leave them out."
        )
    c = resolving.resolve(experiment)
    _check_training_set(c)
    dataset = data.load(c.data) if dataset is None else dataset
    candidates = classifiers.candidates(c.classifier, has_validation=dataset.validation is not None)
    _check_classes(dataset)
    _check_neighbours(c, candidates, len(dataset.train))
    network = plan.plan(c, dataset) if by_network else None
    if recipe is not None:
        dimensions = features.dimensions(recipe, dataset.test[0]["image"])
    else:
        assert network is not None
        dimensions = _width(network)
    needs = _check_size(c, dataset, dimensions)
    return ClassicalPlan(c, dataset, candidates, recipe, network, dimensions, needs)


def _check_training_set(c: Experiment) -> None:
    """A fit sees each training image once; how a stream would visit them is no part of it."""
    for name, value, default in (
        ("sampling", c.data.sampling, "shuffle"),
        ("mixture", c.data.mixture, ()),
    ):
        if value != default:
            raise UserError(
                f"config.data.{name}={value!r} is about a stream of training images, and a "
                "classical classifier is fitted to all of them at once. Leave it out."
            )


def _check_classes(dataset: Dataset) -> None:
    counts = np.bincount(dataset.train.labels(), minlength=dataset.info.num_classes)
    if missing := np.flatnonzero(counts == 0).tolist():
        raise UserError(
            f"{len(missing)} of {dataset.info.num_classes} classes have no training image, as "
            f"{dataset.info.class_names[missing[0]]!r}, and a classifier could not know them. "
            "Hold them out with --config.data.holdout_classes, or give images of them."
        )


def _check_neighbours(c: Experiment, candidates: list[dict[str, Any]], images: int) -> None:
    most = max(each.get("k", 1) for each in candidates)
    if most > images:
        raise UserError(
            f"config.classifier.options.k={most} asks for more neighbours than there are training "
            f"images ({images:,})."
        )


def _check_size(c: Experiment, dataset: Dataset, dimensions: int) -> int:
    """Bytes that the run takes; refuses what is beyond the method or the machine."""
    kind, n = KINDS[c.classifier.name], len(dataset.train)
    if n > kind.most:
        per_class = kind.most // dataset.info.num_classes
        raise UserError(
            f"config.classifier.name={c.classifier.name!r} takes time with the square of its "
            f"training images, and is meant for {kind.most:,} at most; there are {n:,}. Take "
            f"linear_svm, or fewer images: --config.data.per_class={per_class}."
        )
    rows = sum(len(s) for s in (dataset.train, dataset.validation, dataset.test) if s is not None)
    held = 4 * dimensions * rows
    needs = held + kind.row_bytes * dimensions * n + kind.fixed_bytes
    limit = int(_SHARE * resident.host_memory())
    if needs > limit:
        fits = (limit - kind.fixed_bytes - 4 * dimensions * (rows - n)) // (
            (kind.row_bytes + 4) * dimensions
        )
        fewer = max(fits, 0) // dataset.info.num_classes
        advice = [f"fewer images (--config.data.per_class={fewer})"] if fewer else []
        advice += ["fewer features of an image (larger cells, smaller images)"]
        raise UserError(
            f"{n:,} training images with {dimensions:,} features each take about "
            f"{memory.megabytes(needs)} for {c.classifier.name}, and this machine can spare "
            f"{memory.megabytes(limit)}. Take {' or '.join(advice)}."
        )
    return needs


def _width(network: Plan) -> int:
    shape = network.dataset.info.image_shape
    images = jax.ShapeDtypeStruct((network.eval_batch_size, *shape), np.uint8)
    found = jax.eval_shape(network.task.features, network.state.variables, images)
    return int(found.shape[-1])
