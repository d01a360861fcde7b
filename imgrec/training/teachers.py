"""The teacher of a distillation: the best variables of a finished run, and how it sees images."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import Experiment, ModelConfig
from imgrec.data import Info
from imgrec.errors import UserError
from imgrec.tasks.classification import Classification
from imgrec.tasks.distillation import Distillation
from imgrec.training import weights


@dataclass(frozen=True)
class Teacher:
    """A network to follow; no part of the train state, and so of no checkpoint.

    Attributes:
      module: images -> logits.
      variables: a copy on every device.
      mean, std: of its normalisation.
      said: one line for people.
    """

    module: nn.Module
    variables: dict[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    said: str

    def task(self, student: Classification, experiment: Experiment, variables: Any) -> Distillation:
        """The task of following it; `variables` are its own, perhaps under a trace."""
        return Distillation(
            student=student,
            teacher=self.module,
            variables=variables,
            mean=self.mean,
            std=self.std,
            alpha=float(experiment.distill.alpha),
            temperature=float(experiment.distill.temperature),
        )


def load(experiment: Experiment, info: Info, mesh: Mesh) -> Teacher:
    """The teacher that `distill.teacher` names.

    Args:
      experiment: of the student.
      info: of its data set.
      mesh: its devices.

    Raises:
      UserError: no such run, or one of other classes, images or an unknown normalisation.
    """
    folder = experiment.distill.teacher
    path = weights.best_variables(folder, "config.distill.teacher")
    try:
        saved = json.loads((Path(folder) / "config.json").read_text())["experiment"]
        model = ModelConfig(saved["model"]["name"], ConfigDict(saved["model"]["options"]))
        dataset = saved["data"]["dataset"]
        mean, std = saved["augment"]["mean"], saved["augment"]["std"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"config.distill.teacher={folder!r} has no readable config.json ({error}). Give the "
            "folder of a finished run."
        ) from None
    if not mean and dataset != experiment.data.dataset:
        raise UserError(
            f"The teacher {folder!r} was trained on {dataset!r}, by whose mean and standard "
            f"deviation it normalises, and this run is on {experiment.data.dataset!r}. Take a "
            "teacher of the same data set, or one whose config.augment.mean and std were set."
        )
    models.check(model, info.num_classes, info.image_shape)
    module = models.create(model, info.num_classes, dtype=experiment.train.compute_dtype)
    module = models.portable(module)
    images = jax.ShapeDtypeStruct((1, *info.image_shape), "float32")
    expected = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), images)
    like = {name: tree for name, tree in expected.items() if name != "intermediates"}
    _check_shapes(folder, path, like, info.num_classes)
    everywhere = NamedSharding(mesh, PartitionSpec())
    variables = weights.restored(path, like, jax.tree.map(lambda _: everywhere, like))
    return Teacher(
        module=module,
        variables=variables,
        mean=tuple(mean or info.mean),
        std=tuple(std or info.std),
        said=f"teacher: {model.name} of {path}, {models.count_parameters(variables):,} "
        f"parameters; alpha {experiment.distill.alpha:g}, temperature "
        f"{experiment.distill.temperature:g}",
    )


def _check_shapes(folder: str, path: Path, like: Any, num_classes: int) -> None:
    found, expected = weights.shapes_there(path), weights.shapes(like)
    differ = sorted(n for n in found.keys() | expected if found.get(n) != expected.get(n))
    if not differ:
        return
    if all(name.startswith("params/head/") for name in differ) and differ[0] in found:
        raise UserError(
            f"The teacher config.distill.teacher={folder!r} knows {found[differ[0]][-1]} classes, "
            f"and this data set has {num_classes}. A teacher has to know the same classes."
        )
    name = differ[0]
    raise UserError(
        f"The teacher config.distill.teacher={folder!r} does not take these images: {len(differ)} "
        f"of its arrays have other shapes, as {name}: {found.get(name, 'missing')} there, "
        f"{expected.get(name, 'missing')} here. Set config.data as that run did."
    )
