"""What a model said about a split: kept whole, so that any metric can be computed later.

A report is a folder, by convention `evaluation/<split>/` of a run, with `predictions.npz`
and `metrics.json`. Each file appears under its name only when it is complete.
"""

import json
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Int64

from imgrec import files
from imgrec.errors import UserError
from imgrec.evaluation import metrics


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits for examples of a split, with their positions in it and their true labels."""

    index: Int64[np.ndarray, " n"]
    label: Int32[np.ndarray, " n"]
    logits: Float32[np.ndarray, "n classes"]


def write_report(
    folder: str | os.PathLike[str],
    predictions: Predictions,
    class_names: Sequence[str],
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes `predictions.npz` and `metrics.json` into a folder, and returns the metrics.

    Args:
      folder: made where it is missing; what an earlier report left in it is replaced.
      predictions: of a whole split.
      class_names: one for each logit.
      extra: JSON values written beside `metrics.classification`, such as the step.

    Raises:
      ValueError: `extra` has a name that a metric has.
    """
    found = report(predictions, class_names, extra)
    # The metrics come last: where they are, the predictions are.
    save(predictions, Path(folder) / "predictions.npz")
    write_metrics(found, Path(folder) / "metrics.json")
    return found


def report(
    predictions: Predictions, class_names: Sequence[str], extra: Mapping[str, Any]
) -> dict[str, Any]:
    """What `write_report` writes into `metrics.json`."""
    found = metrics.classification(predictions.logits, predictions.label, class_names)
    if taken := sorted(found.keys() & extra.keys()):
        raise ValueError(f"These names are taken by metrics: {', '.join(taken)}.")
    return found | dict(extra)


def write_metrics(report: Mapping[str, Any], path: Path) -> None:
    """Writes metrics as JSON, with null for what is infinite or not a number."""
    files.write_text(path, json.dumps(_finite(report), indent=2, allow_nan=False) + "\n")


def save(predictions: Predictions, path: str | os.PathLike[str]) -> None:
    """Writes `index`, `label` and `logits` as .npz, under exactly this path."""
    arrays = {name: getattr(predictions, name) for name in ("index", "label", "logits")}
    with files.written_aside(Path(path)) as file:
        np.savez(file, **arrays)


def load(path: str | os.PathLike[str]) -> Predictions:
    """Reads what `save` wrote.

    Raises:
      UserError: there is no such file, or it does not hold predictions.
    """
    try:
        # Opened here, since NumPy forgets to close what it cannot read.
        with Path(path).open("rb") as file, np.load(file) as arrays:
            return Predictions(
                index=arrays["index"].astype(np.int64),
                label=arrays["label"].astype(np.int32),
                logits=arrays["logits"].astype(np.float32),
            )
    except FileNotFoundError:
        raise UserError(
            f"There are no predictions at {os.fspath(path)!r}. "
            "Expected the predictions.npz that an evaluation wrote into a run's "
            "evaluation/<split>/."
        ) from None
    except (KeyError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{os.fspath(path)!r} does not hold predictions ({error}). "
            f"Expected an .npz file with the arrays index, label and logits."
        ) from None


def _finite(value: Any) -> Any:
    """Nested JSON values with None for inf and nan, which JSON has no words for."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
