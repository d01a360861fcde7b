"""A finished run, opened: its experiment, what it takes as input, and its network with weights."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from imgrec import config as configs
from imgrec import data, extensions, models
from imgrec.config import DataConfig, Experiment, InitConfig, MeshConfig, ModelConfig
from imgrec.data import Dataset, synsets
from imgrec.errors import UserError, unknown
from imgrec.evaluation.subject import Subject
from imgrec.training import checkpoints, input_spec, resolving, weights, xla
from imgrec.training import mesh as meshes
from imgrec.training.input_spec import InputSpec
from imgrec.transfer import pretrained

_BATCH = 32  # of published weights, whose images are large


@dataclass(frozen=True, eq=False)
class Trained:
    """A run that can be asked things.

    Attributes:
      folder: of the run.
      experiment: as it was saved.
      spec: of its input.
      subject: its network with the best variables, on all devices at hand.
      step: at which these were saved.
    """

    folder: Path
    experiment: Experiment
    spec: InputSpec
    subject: Subject
    step: int


def read_experiment(folder: Path) -> Experiment:
    """The experiment of a run folder.

    Raises:
      UserError: no such run, one of another format version, or one that cannot be read.
    """
    path = folder / "config.json"
    if not path.is_file():
        there = sorted(str(p.parent) for p in Path("runs").glob("*/config.json"))
        listed = f" There are: {', '.join(there[:10])}." if there else ""
        raise UserError(
            f"{str(folder)!r} is no run folder: it has no config.json. Give the folder of a "
            f"finished run with --workdir=FOLDER.{listed}"
        )
    try:
        saved = json.loads(path.read_text())
        checkpoints.check_format(saved.get("format"), folder)
        return resolving.resolve(extensions.load(configs.from_dict(saved["experiment"])))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}). Restore it from a copy; if a newer imgrec wrote "
            "it, use that one."
        ) from None


def open_run(
    folder: Path, *, experiment: Experiment | None = None, dataset: Dataset | None = None
) -> Trained:
    """Opens a run with its best variables.

    Args:
      folder: of a finished run.
      experiment: of `read_experiment`, where it was read already.
      dataset: of the experiment, where it was loaded already; needed for runs without
        `input.json`, and otherwise loaded then.

    Raises:
      UserError: no such run, no checkpoint, or one of another format version or model.
    """
    c = experiment or read_experiment(folder)
    path = weights.best_variables(str(folder), "--workdir")
    spec = input_spec.read(folder)
    if spec is None:
        spec = input_spec.of(c, (dataset or data.load(c.data)).info)
        input_spec.write(spec, folder)
    module = models.create(c.model, len(spec.class_names), dtype=c.train.compute_dtype)
    module = models.portable(module)
    images = jax.ShapeDtypeStruct((1, *spec.image_shape), "float32")
    expected = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), images)
    like = {name: tree for name, tree in expected.items() if name != "intermediates"}
    _check_shapes(folder, path, like)
    mesh = meshes.create(MeshConfig())
    everywhere = NamedSharding(mesh, PartitionSpec())
    subject = Subject(
        module=module,
        variables=weights.restored(path, like, jax.tree.map(lambda _: everywhere, like)),
        mean=spec.mean,
        std=spec.std,
        image_shape=spec.image_shape,
        class_names=spec.class_names,
        batch_size=_divisible(c.eval.batch_size or c.data.batch_size, mesh.size),
        put=lambda batch: meshes.put_batch(mesh, batch),
        native_convolutions=xla.uses_native_convolutions(c, mesh),
    )
    return Trained(folder, c, spec, subject, step=int(path.parent.name))


def open_weights(name: str) -> Trained:
    """Published weights by name, with the preprocessing and the class names that belong to them.

    Raises:
      UserError: no weights of this name are known, or their package is not installed.
    """
    weights = pretrained.named(name)
    if weights is None:
        raise unknown("published weights", name, pretrained.names())
    module, variables = pretrained.load(name)
    experiment = Experiment(
        name=name,
        data=DataConfig(dataset="imagenet"),
        model=ModelConfig(name=weights.model),
        init=InitConfig(weights=name),
    )
    c = resolving.resolve(experiment)
    shape = (c.data.image_size, c.data.image_size, c.data.channels)
    spec = InputSpec(
        dataset=weights.trained_on,
        class_names=synsets.class_names(),
        image_shape=shape,
        mean=c.augment.mean,
        std=c.augment.std,
        view=data.view_of(c.data, c.data.channels),
    )
    mesh = meshes.create(MeshConfig())
    everywhere = NamedSharding(mesh, PartitionSpec())
    subject = Subject(
        module=module,
        variables=jax.device_put(dict(variables), everywhere),
        mean=spec.mean,
        std=spec.std,
        image_shape=shape,
        class_names=spec.class_names,
        batch_size=_divisible(_BATCH, mesh.size),
        put=lambda batch: meshes.put_batch(mesh, batch),
        native_convolutions=xla.uses_native_convolutions(c, mesh),
    )
    return Trained(Path(), c, spec, subject, step=0)


def _divisible(batch_size: int, devices: int) -> int:
    """The batch size, or as much more as the devices need to share it evenly."""
    return -(-batch_size // devices) * devices


def _check_shapes(folder: Path, path: Path, like: Any) -> None:
    found, expected = weights.shapes_there(path), weights.shapes(like)
    differ = sorted(n for n in found.keys() | expected if found.get(n) != expected.get(n))
    if differ:
        name = differ[0]
        raise UserError(
            f"The checkpoint in {path} is not of the model that {folder / 'config.json'} tells: "
            f"{len(differ)} arrays differ, as {name}: {found.get(name, 'missing')} there, "
            f"{expected.get(name, 'missing')} expected."
        )
