"""Features of whole splits: what the network hands to its head, computed once and kept in files.

A file is named by everything that its numbers depend on, so that several runs may share a folder
of them, and a changed weight or crop finds no file.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, Int32

from imgrec import files
from imgrec.config import DataConfig
from imgrec.data import Info, Split, pipeline
from imgrec.evaluation import exact
from imgrec.training import distributed, rules
from imgrec.training import mesh as meshes
from imgrec.training.plan import Plan

_SAMPLES = 16  # images of a split that its files are told by


@dataclass(frozen=True, eq=False)
class Features:
    """Of a split's images, in the order of the split."""

    values: Float32[np.ndarray, "n features"]
    labels: Int32[np.ndarray, " n"]
    from_file: bool


class Extractor:
    """Computes features of splits with one compiled function, or reads them back."""

    def __init__(self, plan: Plan, variables: Mapping[str, Any], folder: Path):
        """Computes nothing yet.

        Args:
          plan: of the experiment.
          variables: of the network.
          folder: of the files.
        """
        self._plan = plan
        self._variables = variables
        self._folder = folder
        self._features = jax.jit(plan.task.features)
        self._network = _digest_of_network(plan, variables)

    def __call__(self, split: Split) -> Features:
        """The features of a split, as seen in evaluation: no augmentation."""
        path = self._folder / f"{split.name}-{self._key(split)}.npz"
        found = read(path, len(split))
        # All processes read, or all compute: computing is done together.
        if all(distributed.everyone(found is not None)):
            assert found is not None
            return found
        share, shares = meshes.share_of_batch(self._plan.mesh)
        batches = pipeline.eval_batches(
            split,
            batch_size=self._plan.eval_batch_size,
            process_index=share,
            process_count=shares,
        )
        run = exact.predict_split(
            self._features,
            self._variables,
            batches,
            n=len(split),
            to_device=lambda batch: meshes.put_batch(self._plan.mesh, batch),
        )
        if jax.process_index() == 0:
            write(path, run.logits, run.label)
        return Features(run.logits, run.label, from_file=False)

    def _key(self, split: Split) -> str:
        plan = self._plan
        return key(self._network, split, plan.experiment.data, plan.dataset.info)


def key(made_by: str, split: Split, c: DataConfig, info: Info) -> str:
    """24 hex digits that tell the features of a split's images from all others.

    Args:
      made_by: digest of what turns an image into features.
      split: of the images.
      c: that they were loaded by.
      info: of their data set.
    """
    digest = hashlib.sha256(made_by.encode())
    seen = {
        "dataset": [info.name, c.root, info.image_shape],
        "view": [c.image_size, c.channels, c.crop, c.crop_fraction, c.interpolation],
        "options": dict(c.options),
        "record": info.record,
    }
    digest.update(json.dumps(seen, sort_keys=True, default=str).encode())
    digest.update(np.ascontiguousarray(split.rows).tobytes())
    digest.update(split.labels().tobytes())
    some = np.unique(np.linspace(0, len(split) - 1, _SAMPLES).astype(np.int64))
    digest.update(split.gather(some)["image"].tobytes())
    return digest.hexdigest()[:24]


def _digest_of_network(plan: Plan, variables: Mapping[str, Any]) -> str:
    """Of all that turns an image into features; the head is no part of it."""
    c, task = plan.experiment, plan.task
    digest = hashlib.sha256()
    made = [c.model.name, c.model.options.to_dict(), c.train.compute_dtype, task.mean, task.std]
    digest.update(json.dumps(made, sort_keys=True, default=str).encode())
    host = exact.gather(dict(zip(rules.names(variables), jax.tree.leaves(variables), strict=True)))
    for name, value in sorted(host.items()):
        if not name.startswith("params/head/"):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def write(
    path: Path, features: Float32[np.ndarray, "n features"], labels: Int32[np.ndarray, " n"]
) -> None:
    """Writes features and labels of a split as .npz."""
    with files.written_aside(path) as file:
        np.savez(file, features=features, labels=labels)


def read(path: Path, n: int) -> Features | None:
    """What a file holds; None where there is none, or it is damaged."""
    try:
        # Opened here, since NumPy forgets to close what it cannot read.
        with path.open("rb") as file, np.load(file) as arrays:
            values, labels = arrays["features"], arrays["labels"]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    if values.dtype != np.float32 or values.ndim != 2 or not len(values) == len(labels) == n:
        return None
    return Features(values, labels.astype(np.int32), from_file=True)
