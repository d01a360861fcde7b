"""A fitted classifier in files: `classifier/` of a run folder.

Estimators are written by skops: a zip of JSON and arrays, which is read without running any code
that the file brings (a pickle, joblib's included, runs whatever its writer liked). Types that
skops does not vouch for are refused but for two of scikit-learn's own, the trees. Neighbours are
plain arrays. `classifier.json` comes last: where it is, the rest is.

scikit-learn does not promise that an estimator of another version works, or works the same; so a
classifier is read with the version (but for its last number) that wrote it.
"""

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imgrec import files
from imgrec.classical.classifiers import KINDS, Neighbours
from imgrec.classical.features import Recipe
from imgrec.classical.packages import require, versions
from imgrec.errors import UserError

FOLDER = "classifier"
FORMAT = 1
# scikit-learn's, which skops knows how to read and leaves to us whether to trust.
_TRUSTED = (
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)


@dataclass(frozen=True, eq=False)
class Saved:
    """A classifier with all that its answers depend on.

    Attributes:
      name: of the classifier.
      options: that it was fitted with.
      estimator: fitted.
      recipe: of its features; None where they are a network's.
      temperature: that scores are divided by to be logits.
      tried: each candidate's options, seconds and, where there was validation, its scores.
      fingerprint: of the experiment.
    """

    name: str
    options: Mapping[str, Any]
    estimator: Any
    recipe: Recipe | None
    temperature: float
    tried: tuple[Mapping[str, Any], ...]
    fingerprint: str


def save(saved: Saved, folder: Path) -> int:
    """Writes a classifier into a run folder; returns the bytes that it takes there."""
    to = folder / FOLDER
    (to / "classifier.json").unlink(missing_ok=True)  # until the rest is of one piece
    recipe = saved.recipe
    vocabularies: dict[str, Any] = {
        f"{part}/{name}": array
        for part, arrays in (recipe.vocabularies.items() if recipe else ())
        for name, array in arrays.items()
    }
    with files.written_aside(to / "vocabularies.npz") as file:
        np.savez(file, **vocabularies)
    if isinstance(saved.estimator, Neighbours):
        with files.written_aside(to / "neighbours.npz") as file:
            np.savez(file, rows=saved.estimator.rows, labels=saved.estimator.labels)
    else:
        with files.written_aside(to / "classifier.skops") as file:
            require("skops.io").dump(
                saved.estimator, file, compression=zipfile.ZIP_DEFLATED, compresslevel=1
            )
    told = {
        "format": FORMAT,
        "name": saved.name,
        "options": dict(saved.options),
        "features": recipe and {"parts": [list(p) for p in recipe.parts], "deskew": recipe.deskew},
        "temperature": saved.temperature,
        "tried": [dict(each) for each in saved.tried],
        "fingerprint": saved.fingerprint,
        "versions": versions(),
    }
    files.write_text(to / "classifier.json", json.dumps(told, indent=2) + "\n")
    return sum(path.stat().st_size for path in to.iterdir())


def load(folder: Path) -> Saved:
    """What `save` wrote into a run folder.

    Raises:
      UserError: there is nothing, or it is damaged, of another format or version of
        scikit-learn, or holds what no classifier of ours is made of.
    """
    at = folder / FOLDER
    again = "Fit it again by the command that made the run, in another --workdir."
    if not (at / "classifier.json").is_file():
        raise UserError(
            f"{folder} holds no fitted classifier (no {FOLDER}/classifier.json). The command that "
            "made the run goes on with it."
        )
    try:
        told = json.loads((at / "classifier.json").read_text())
        if told["format"] != FORMAT:
            raise UserError(
                f"{at} has the format {told['format']}, and this imgrec reads {FORMAT}."
            )
        name, options = str(told["name"]), dict(told["options"])
        if name not in KINDS:
            raise ValueError(f"there is no classifier {name!r}")
        with np.load(at / "vocabularies.npz") as arrays:
            recipe = _recipe(told["features"], {n: arrays[n] for n in arrays.files})
        estimator = _neighbours(at, options) if name == "knn" else _estimator(at, told["versions"])
        return Saved(
            name,
            options,
            estimator,
            recipe,
            float(told["temperature"]),
            tuple(told["tried"]),
            str(told["fingerprint"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"The classifier in {at} cannot be read ({error}). {again}") from None


def _recipe(told: Mapping[str, Any] | None, arrays: Mapping[str, np.ndarray]) -> Recipe | None:
    if told is None:
        return None
    vocabularies: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        part, _, what = name.partition("/")
        vocabularies.setdefault(part, {})[what] = array
    parts = tuple(
        (str(name), {n: tuple(v) if isinstance(v, list) else v for n, v in options.items()})
        for name, options in told["parts"]
    )
    return Recipe(parts, bool(told["deskew"]), vocabularies)


def _neighbours(at: Path, options: Mapping[str, Any]) -> Neighbours:
    found = Neighbours(**options)
    with np.load(at / "neighbours.npz") as arrays:
        found.rows = arrays["rows"].astype(np.float32)
        found.labels = arrays["labels"].astype(np.int32)
    return found


def _estimator(at: Path, written_by: Mapping[str, str]) -> Any:
    skops, path = require("skops.io"), at / "classifier.skops"
    now, then = require("sklearn").__version__, str(written_by["sklearn"])
    if _series(now) != _series(then):
        raise UserError(
            f"{path} was written by scikit-learn {then}, and this is {now}, which may not read it "
            f"as it was meant. Install that one: pip install 'scikit-learn=={_series(then)}.*'; or "
            "fit the classifier again."
        )
    if strange := sorted(set(skops.get_untrusted_types(file=path)) - set(_TRUSTED)):
        raise UserError(
            f"{os.fspath(path)} holds objects of {', '.join(strange[:3])}, and no classifier of "
            "imgrec does. Nothing of it was loaded; it may be meant to do harm."
        )
    return skops.load(path, trusted=list(_TRUSTED))


def _series(version: str) -> str:
    return ".".join(version.split(".")[:2])
