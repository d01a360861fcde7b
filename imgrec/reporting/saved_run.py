"""A run as its folder tells it: configuration, history, what was measured, what it cost.

Runs are stopped, moved and thinned out, so whatever is not there is said, and the rest is read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgrec.errors import UserError
from imgrec.evaluation import predictions
from imgrec.evaluation.predictions import Predictions
from imgrec.reporting import report_page


@dataclass(frozen=True, eq=False)
class SavedRun:
    """What a run folder holds.

    Attributes:
      name: the folder's, with as much of its path as tells it from others.
      folder: of the run.
      experiment: as in `config.json`; its fields by section.
      fingerprint: of the experiment.
      history: lines of `metrics.jsonl`.
      metrics: of the split; {} where there are none.
      predictions: for the split, where they were kept.
      class_names: as far as known, one for each logit.
      launches: one for each start of the run, the last being the latest.
      cost: `cost.json`.
      seconds: `seconds.json`, by activity, and their total.
      missing: sentences on what is not there, without a full stop.
    """

    name: str
    folder: Path
    experiment: Mapping[str, Any]
    fingerprint: str
    history: Sequence[Mapping[str, Any]]
    metrics: Mapping[str, Any]
    predictions: Predictions | None
    class_names: tuple[str, ...]
    launches: Sequence[Mapping[str, Any]]
    cost: Mapping[str, Any]
    seconds: Mapping[str, float]
    missing: tuple[str, ...]


def read_all(folders: Sequence[str | Path], split: str = "test") -> list[SavedRun]:
    """`read` of each, under names that differ.

    Raises:
      UserError: a folder is given twice, or holds no run.
    """
    paths = [Path(folder).expanduser() for folder in folders]
    real = [path.resolve() for path in paths]
    for path, there in zip(paths, real, strict=True):
        if real.count(there) > 1:
            raise UserError(f"{path} is given twice; each run is compared once.")
    return [read(path, name, split) for path, name in zip(paths, _names(real), strict=True)]


def read(folder: Path, name: str, split: str) -> SavedRun:
    """The run in a folder, with what was measured on a split.

    Raises:
      UserError: the folder holds no run.
    """
    saved = _configuration(folder)
    missing: list[str] = []
    evaluation = folder / "evaluation" / split
    command = f"python -m imgrec.evaluate --workdir={folder} --split={split}"
    metrics = _json(evaluation / "metrics.json", missing, f"{command} makes it")
    try:
        said = predictions.load(evaluation / "predictions.npz")
    except UserError as error:
        said = None
        told = (evaluation / "predictions.npz").exists()
        missing.append(
            str(error).rstrip(".") if told else f"no predictions for {split} ({command} makes them)"
        )
    history = report_page.history(folder / "metrics.jsonl")
    if not history:
        missing.append("no metrics.jsonl, so no learning curves")
    return SavedRun(
        name=name,
        folder=folder,
        experiment=saved["experiment"],
        fingerprint=str(saved.get("fingerprint", "")),
        history=history,
        metrics=metrics,
        predictions=said,
        class_names=_class_names(folder, metrics, said),
        launches=_launches(folder / "launches.jsonl", missing),
        cost=_json(folder / "cost.json", missing, "FLOPs and parameters are not known"),
        seconds=_json(folder / "seconds.json", missing, "a run writes it when it ends"),
        missing=tuple(missing),
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """The ends of the paths, all of one depth, at which they differ."""
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ValueError("The paths are not different.")


def _configuration(folder: Path) -> dict[str, Any]:
    try:
        saved = json.loads((folder / "config.json").read_text())
        if isinstance(saved["experiment"], dict):
            return saved
        raise ValueError("its experiment is no object")
    except FileNotFoundError:
        inside = sorted(str(path.parent) for path in folder.glob("*/config.json"))
        there = f" There are runs inside: {', '.join(inside[:5])}." if inside else ""
        raise UserError(
            f"{folder} is no run folder: it has no config.json.{there} Give folders that "
            "python -m imgrec.main wrote, for example runs/digits_lenet."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / 'config.json'} cannot be read ({error}).") from None


def _json(path: Path, missing: list[str], otherwise: str) -> dict[str, Any]:
    """A file's object; {} and a word on it where there is none."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        missing.append(f"no {path.name} ({otherwise})")
    except (OSError, ValueError) as error:
        missing.append(f"{path.name} cannot be read ({error})")
    else:
        if isinstance(found, dict):
            return found
        missing.append(f"{path.name} is no JSON object")
    return {}


def _launches(path: Path, missing: list[str]) -> list[dict[str, Any]]:
    launches = [line for line in report_page.history(path) if isinstance(line, dict)]
    if not launches:
        missing.append("no launches.jsonl, so machine and revision are not known")
    return launches


def _class_names(
    folder: Path, metrics: Mapping[str, Any], said: Predictions | None
) -> tuple[str, ...]:
    names = _json(folder / "input.json", [], "").get("class_names") or [
        each["name"] for each in metrics.get("per_class", ())
    ]
    classes = len(names) if said is None else said.logits.shape[1]
    return tuple(map(str, names)) if len(names) == classes else tuple(map(str, range(classes)))
