"""Runs beside each other, as plain values: what differs between them, and whether it matters.

What a run's metrics lack is computed from its saved predictions. The first run is the one that
all others are compared with.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from imgrec import config
from imgrec.config import Experiment
from imgrec.errors import UserError
from imgrec.evaluation import bootstrap, comparison, metrics
from imgrec.evaluation.confidence import calibration
from imgrec.reporting.saved_run import SavedRun
from imgrec.reporting.sections.history import series

CURVES = (
    "train/loss",
    "train/accuracy",
    "validation/loss",
    "validation/accuracy",
    "validation_ema/loss",
    "validation_ema/accuracy",
    "train/learning_rate",
)
_ECE = "calibration.before.ece_equal_width_15"
_SPEED = "time/images_per_second"


class Measure(NamedTuple):
    """A number that runs are told apart by."""

    path: str  # in metrics.json
    title: str
    share: bool  # written as per cent
    higher_is_better: bool


MEASURES = (
    Measure("accuracy", "accuracy", True, True),
    Measure("top_5_accuracy", "among the five likeliest", True, True),
    Measure("balanced_accuracy", "balanced accuracy", True, True),
    Measure("macro.f1", "macro F1", True, True),
    Measure("loss", "negative log likelihood (nats)", False, False),
    Measure("calibration.before.brier_sum_over_classes", "Brier score", False, False),
    Measure(_ECE, "calibration error (ECE)", True, False),
)
# Lists and explanations in metrics.json, and what a run is described by elsewhere.
_NO_NUMBERS = {"intervals", "seconds", "missing", "step", "total_steps", "seed", "resamples"}


def side_by_side(
    runs: Sequence[SavedRun], split: str, *, seed: int = 0, count: int = 1000
) -> dict[str, Any]:
    """All that is to be said of runs, of one or several.

    Args:
      runs: the first is the one that others are compared with.
      split: that their metrics and predictions are of.
      seed: of the bootstrap.
      count: of resamples.

    Returns:
      split;
      runs: {name, folder, fingerprint, seed, dataset, model, n (None without metrics), step,
        parameters, flops, flops_per_step, utilisation, images_per_second (median while training),
        total_seconds, seconds, device, processor, started, launches, git_revision, git_dirty,
        missing (sentences)} of each;
      measures: {path, title, share, higher_is_better, values, intervals (95 %, None where not
        known)} of `MEASURES`, one value a run, those that some run has;
      pairs: `comparison.pair` of each other run with the first, as `comparison.compare` gives
        them; refused: {other: why there is no such comparison};
      seeds: {runs, n, accuracy_mean, accuracy_sd} of two or more runs that differ in nothing but
        their seed;
      configuration: {field, values} of the fields in which runs differ, of one run all;
      environment: likewise, of machine and software;
      curves: {run: {step, images_per_step, values by name}}, each name's own steps beside it;
      numbers: {name: one value a run}, every scalar of their metrics.json.
    """
    measured = [_measured(run, seed, count) for run in runs]
    pairs, refused = _pairs(runs, seed, count)
    return {
        "split": split,
        "runs": [_described(run, found) for run, found in zip(runs, measured, strict=True)],
        "measures": _measures(measured),
        "pairs": pairs,
        "refused": refused,
        "seeds": _seeds(runs, measured),
        "configuration": _differing([_fields(run) for run in runs]),
        "environment": _differing([_environment(run) for run in runs]),
        "curves": {run.name: _curves(run) for run in runs},
        "numbers": _numbers(runs),
    }


def _measured(run: SavedRun, seed: int, count: int) -> dict[str, Any]:
    """The run's metrics; intervals and calibration from its predictions where they lack."""
    found = dict(run.metrics)
    said = run.predictions
    if said is not None and len(said.label):
        if not found.get("intervals"):
            found |= metrics.classification(
                said.logits, said.label, run.class_names, resamples=count, seed=seed
            )
        if _at(found, _ECE)[0] is None:
            found["calibration"] = calibration.calibration(said.logits, said.label, seed=seed)
    elif "accuracy" in found and "n" in found and not found.get("intervals"):
        right = round(found["accuracy"] * found["n"])
        found["intervals"] = {"accuracy": bootstrap.wilson(right, found["n"])}
    return found


def _at(found: Mapping[str, Any], path: str) -> tuple[int | float | None, list[float] | None]:
    """A number and its interval by dotted path, where they are."""
    *outer, last = path.split(".")
    at: Any = found
    for name in outer:
        at = at.get(name) if isinstance(at, Mapping) else None
    value = _finite(at.get(last)) if isinstance(at, Mapping) else None
    if value is None:
        return None, None
    return value, (at.get("intervals") or {}).get(last)


def _finite(value: Any) -> float | int | None:
    """A number that JSON has words for, else None."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _measures(measured: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for measure in MEASURES:
        column = [_at(found, measure.path) for found in measured]
        values, intervals = ([each[i] for each in column] for i in range(2))
        if any(value is not None for value in values):
            rows.append(measure._asdict() | {"values": values, "intervals": intervals})
    return rows


def _described(run: SavedRun, found: Mapping[str, Any]) -> dict[str, Any]:
    latest = run.launches[-1] if run.launches else {}
    speeds = [line[_SPEED] for line in run.history if _SPEED in line]
    devices = latest.get("devices") or []
    return {
        "name": run.name,
        "folder": str(run.folder),
        "fingerprint": run.fingerprint,
        "seed": run.experiment.get("seed"),
        "dataset": found.get("dataset") or _of(run, "data", "dataset"),
        "model": _of(run, "model", "name"),
        "n": found.get("n"),
        "step": found.get("step"),
        "parameters": run.cost.get("parameters"),
        "flops": run.cost.get("flops"),
        "flops_per_step": run.cost.get("flops_per_step"),
        "utilisation": (run.cost.get("utilisation") or {}).get("share"),
        "images_per_second": statistics.median(speeds) if speeds else None,
        "total_seconds": run.seconds.get("total"),
        "seconds": {name: spent for name, spent in run.seconds.items() if name != "total"},
        "device": f"{len(devices)} x {devices[0]}" if devices else None,
        "processor": latest.get("processor"),
        "started": run.launches[0].get("started") if run.launches else None,
        "launches": len(run.launches),
        "git_revision": latest.get("git_revision"),
        "git_dirty": latest.get("git_dirty"),
        "missing": list(run.missing),
    }


def _of(run: SavedRun, section: str, field: str) -> Any:
    return (run.experiment.get(section) or {}).get(field)


def _pairs(
    runs: Sequence[SavedRun], seed: int, count: int
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    first, *others = runs
    if not others:
        return [], {}
    if first.predictions is None:
        why = f"{first.name}, which all are compared with, has no predictions"
        return [], {run.name: why for run in others}
    fit, refused = {first.name: first.predictions}, {}
    for run in others:
        if run.predictions is None:
            refused[run.name] = "it has no predictions"
            continue
        try:
            comparison.check_same(first.predictions, run.predictions, first.name, run.name)
            if first.class_names != run.class_names:
                raise UserError(f"The classes of {first.name} and {run.name} have other names.")
        except UserError as error:
            refused[run.name] = str(error)
        else:
            fit[run.name] = run.predictions
    return comparison.compare(fit, seed=seed, count=count), refused


def _seeds(runs: Sequence[SavedRun], measured: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Runs of one experiment under several seeds: how much a seed alone changes."""
    families: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        same = {name: v for name, v in _fields(run).items() if name not in ("seed", "name")}
        if "accuracy" in measured[i]:
            families.setdefault(repr((measured[i].get("n"), sorted(same.items()))), []).append(i)
    told = []
    for members in families.values():
        seeds = {runs[i].experiment.get("seed") for i in members}
        if len(seeds) == len(members) > 1:
            accuracies = [measured[i]["accuracy"] for i in members]
            told.append(
                {
                    "runs": [runs[i].name for i in members],
                    "n": len(members),
                    "accuracy_mean": statistics.fmean(accuracies),
                    "accuracy_sd": statistics.stdev(accuracies),
                }
            )
    return told


def _fields(run: SavedRun) -> dict[str, Any]:
    """By dotted name; a field that an older run lacks had its default."""
    return config.flatten(config.to_dict(Experiment())) | config.flatten(run.experiment)


def _environment(run: SavedRun) -> dict[str, Any]:
    if not run.launches:
        return {}
    latest = config.flatten(run.launches[-1])
    return {name: value for name, value in latest.items() if name not in ("started", "command")}


def _differing(columns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows in which the columns are not all equal; all rows of a single column."""
    rows = []
    for name in sorted(set().union(*columns)):
        values = [column.get(name) for column in columns]
        if len(columns) == 1 or any(value != values[0] for value in values):
            rows.append({"field": name, "values": values})
    return rows


def _curves(run: SavedRun) -> dict[str, Any]:
    found = {name: series(run.history, name) for name in CURVES}
    return {
        "images_per_step": _of(run, "data", "batch_size"),
        "values": {
            name: {"step": steps, "value": [_finite(value) for value in values]}
            for name, (steps, values) in found.items()
            if steps
        },
    }


def _numbers(runs: Sequence[SavedRun]) -> dict[str, list[Any]]:
    columns = [_scalars(run.metrics) for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    return {name: [column.get(name) for column in columns] for name in names}


def _scalars(found: Mapping[str, Any], prefix: str = "") -> dict[str, int | float]:
    scalars: dict[str, int | float] = {}
    for name, value in found.items():
        if name in _NO_NUMBERS:
            continue
        if isinstance(value, Mapping):
            scalars |= _scalars(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            scalars[prefix + name] = value
    return scalars
