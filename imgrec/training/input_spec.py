"""What a trained network has to be given: which classes it names, how an image becomes its input.

A run keeps it as `input.json`, so that prediction needs neither the training data nor the
configuration, and cannot prepare images otherwise than training's evaluation did.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgrec import data
from imgrec.config import Experiment
from imgrec.data import Info
from imgrec.data.view import View
from imgrec.errors import UserError
from imgrec.files import write_text

NAME = "input.json"


@dataclass(frozen=True)
class InputSpec:
    """How the images of a run were seen when it was evaluated.

    Attributes:
      dataset: as in `config.data.dataset`.
      class_names: one for each logit.
      image_shape: height, width, channels of what the network takes.
      mean, std: of the normalisation, per channel on the scale [0, 1].
      view: crop, resizing and channels; its size is the network's, also where training took
        images as they came.
    """

    dataset: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    view: View


def of(experiment: Experiment, info: Info) -> InputSpec:
    """That of an experiment on a data set."""
    height, width, channels = info.image_shape
    view = data.view_of(experiment.data, channels)
    return InputSpec(
        dataset=info.name,
        class_names=info.class_names,
        image_shape=info.image_shape,
        mean=tuple(experiment.augment.mean or info.mean),
        std=tuple(experiment.augment.std or info.std),
        # Images that all have one size already pass through such a view untouched.
        view=dataclasses.replace(view, size=height if height == width else 0),
    )


def digest(spec: InputSpec) -> str:
    """Twelve hex digits that two specifications share exactly when they are equal."""
    text = json.dumps(dataclasses.asdict(spec), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write(spec: InputSpec, folder: Path) -> None:
    """Writes `input.json` into a run folder."""
    write_text(folder / NAME, json.dumps(dataclasses.asdict(spec), indent=2) + "\n")


def read(folder: Path) -> InputSpec | None:
    """What `write` wrote; None where there is none, as in runs of earlier versions.

    Raises:
      UserError: it is damaged.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        saved = json.loads(path.read_text())
        view: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in saved["view"].items()
        }
        return InputSpec(
            dataset=saved["dataset"],
            class_names=tuple(saved["class_names"]),
            image_shape=tuple(saved["image_shape"]),
            mean=tuple(saved["mean"]),
            std=tuple(saved["std"]),
            view=View(**view),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}). Restore it from a copy, or remove it: the next "
            "evaluation makes it anew from the data set."
        ) from None
