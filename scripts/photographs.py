"""What the scripts on photographs share: the files at hand, and the logits of published weights."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from imgrec import augment, data
from imgrec.config import Experiment, InitConfig, ModelConfig
from imgrec.data import view
from imgrec.training import resolving
from imgrec.transfer import pretrained

SKLEARN = ("sklearn", "datasets/images")  # two photographs under a free licence
SKIMAGE = ("skimage", "data")


def folder(package: str, inside: str) -> Path:
    """A folder of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        names = {"sklearn": "scikit-learn", "skimage": "scikit-image"}
        raise SystemExit(f"Its photographs are needed: pip install {names[package]}")
    return Path(spec.submodule_search_locations[0]) / inside


def logits(weights: str, files: Sequence[Path]) -> Mapping[str, np.ndarray]:
    """1000 logits of each file by its name, prepared as a run with these weights prepares it."""
    experiment = resolving.resolve(
        Experiment(model=ModelConfig(weights), init=InitConfig(weights=weights))
    )
    seen = data.view_of(experiment.data, experiment.data.channels)
    images = np.stack([view.decode(file.read_bytes(), seen) for file in files])
    module, variables = pretrained.load(weights)
    mean, std = experiment.augment.mean, experiment.augment.std

    @jax.jit
    def predict(variables, images):
        return module.apply(variables, augment.normalise(images, mean, std), train=False)

    found = np.asarray(predict(variables, images))
    return {file.name: row for file, row in zip(files, found, strict=True)}
