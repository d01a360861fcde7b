"""What finished runs measured, noted where they cannot lose it: `seals.json` of a study's folder.

A run folder is somebody's to open and edit. A study that took its numbers from one that was
changed since would be wrong without a word, and one that trained it again would lose what was
there. So a finished run is sealed, and looked at again before anything is run.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imgrec import config
from imgrec.ablation.study import StudyRun
from imgrec.config import Experiment
from imgrec.errors import UserError, unknown
from imgrec.evaluation import metrics, predictions
from imgrec.files import write_text
from imgrec.launching.runs import is_finished

_SEALED = ("accuracy", "loss", "n", "step", "total_steps")
_SAME = 1e-6  # an evaluation on another machine may differ in the last digits


def check(folder: Path, runs: Sequence[StudyRun], again: Sequence[str] = ()) -> None:
    """Refuses runs that were changed or taken away since they were finished.

    Args:
      folder: of the study.
      runs: of the study.
      again: names of runs that are to be trained anew, whatever was known of them.

    Raises:
      UserError: naming each such run, and what differs.
    """
    names = [run.name for run in runs]
    for name in again:
        if name not in names:
            raise unknown("run to repeat:", name, names)
    sealed = _read(folder)
    wrong = [
        f"{run.folder}: {why}"
        for run in runs
        if run.name not in again and (why := _fault(run, sealed.get(run.name)))
    ]
    if wrong:
        raise UserError(
            "Finished runs are not as they were:\n  "
            + "\n  ".join(wrong)
            + "\nRestore them, or have them trained again with --again=NAME,... (what is there is "
            "kept under another name)."
        )


def put_aside(folder: Path, runs: Sequence[StudyRun], again: Sequence[str]) -> list[Path]:
    """Renames the folders of runs that are to be trained again, and forgets what they measured."""
    kept = {name: seal for name, seal in _read(folder).items() if name not in again}
    moved = []
    for run in runs:
        if run.name in again and run.folder.exists():
            number = 1
            while (aside := run.folder.with_name(f"{run.name}.before{number}")).exists():
                number += 1
            run.folder.rename(aside)
            moved.append(aside)
    if again:
        _write(folder, kept)
    return moved


def seal(folder: Path, runs: Sequence[StudyRun]) -> None:
    """Notes the results of all runs that are finished and not sealed yet."""
    sealed = _read(folder)
    new = {
        run.name: _seal_of(run)
        for run in runs
        if run.name not in sealed and is_finished(run.folder)
    }
    if new:
        _write(folder, {**sealed, **new})


def _fault(run: StudyRun, sealed: Mapping[str, Any] | None) -> str:
    """What is wrong with a run in a few words; "" where nothing is."""
    if not is_finished(run.folder):
        return "it was finished, and its results are gone" if sealed else ""
    try:
        now = _seal_of(run)
        saved = json.loads((run.folder / "config.json").read_text())
        said = str(saved["fingerprint"])
        own = _lenient(lambda: config.fingerprint(config.from_dict(saved["experiment"])))
        computed = _from_predictions(run.folder)
    except (OSError, ValueError, KeyError, TypeError, UserError) as error:
        return f"it cannot be read ({error})"
    faults = [
        f"evaluation/test/metrics.json: {name} was {sealed[name]}, and is {now[name]}"
        for name in (_SEALED if sealed else ())
        if sealed and not _same(sealed[name], now[name])
    ]
    faults += [
        f"evaluation/test/metrics.json: {name} is {now[name]}, and predictions.npz has {value}"
        for name, value in computed.items()
        if not _same(now[name], value)
    ]
    if sealed and sealed["fingerprint"] != said:
        faults.append(f"config.json: fingerprint was {sealed['fingerprint']}, and is {said}")
    elif own is not None and own != said and _complete(saved["experiment"]):
        faults.append(f"config.json: its fields have the fingerprint {own}, and not {said}")
    return "; ".join(faults)


def _complete(experiment: Mapping[str, Any]) -> bool:
    """Whether a saved experiment has all fields of today; of an older one no hash can be had."""
    today = config.flatten(config.to_dict(Experiment()))
    return not today.keys() - config.flatten(experiment).keys()


def _lenient(compute: Callable[[], str]) -> str | None:
    try:
        return compute()
    except ValueError:  # a field that is no more
        return None


def _from_predictions(folder: Path) -> dict[str, float]:
    """Accuracy and number of images by the predictions, where they were kept."""
    path = folder / "evaluation" / "test" / "predictions.npz"
    if not path.exists():
        return {}
    said = predictions.load(path)
    right = metrics.predictions(said.logits) == said.label
    return {"accuracy": float(np.mean(right)), "n": len(said.label)}


def _seal_of(run: StudyRun) -> dict[str, Any]:
    found = json.loads((run.folder / "evaluation" / "test" / "metrics.json").read_text())
    saved = json.loads((run.folder / "config.json").read_text())
    return {
        "fingerprint": saved["fingerprint"],
        **{name: found[name] for name in _SEALED},
    }


def _same(was: Any, now: Any) -> bool:
    if isinstance(was, float) and isinstance(now, int | float):
        return abs(was - now) <= _SAME * max(1.0, abs(was))
    return bool(was == now)


def _path(folder: Path) -> Path:
    return folder / "seals.json"


def _read(folder: Path) -> dict[str, Any]:
    path = _path(folder)
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}). Restore it; without it nobody knows whether the "
            "runs there are as they were."
        ) from None
    return found


def _write(folder: Path, sealed: Mapping[str, Any]) -> None:
    write_text(_path(folder), json.dumps(sealed, indent=2, sort_keys=True) + "\n")
