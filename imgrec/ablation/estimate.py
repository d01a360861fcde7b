"""What a study would cost before any of it is run: arithmetic by counting, time by a rate.

The arithmetic of a step is taken as three forward passes of the batch, since the backward pass
multiplies each layer's matrices twice. A rate turns it into time, and whoever reads the time is
told which rate that was.
"""

import functools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imgrec import augment, config, data, durations, models
from imgrec.ablation.measured import Measured, measured
from imgrec.ablation.study import Rate, Study, StudyRun
from imgrec.config import Experiment
from imgrec.data import Dataset
from imgrec.errors import UserError
from imgrec.training import optimizers, resolving, schedules

_FORWARD_PASSES = 3  # of which a training step has as much arithmetic
START_SECONDS = 20.0  # that a run is taken to spend on starting, compiling and testing


@dataclass(frozen=True)
class Cost:
    """Of one run.

    Attributes:
      steps: of the optimizer.
      parameters: of the network.
      flops: of the training.
    """

    steps: int
    parameters: int
    flops: float


@dataclass(frozen=True)
class Estimate:
    """Of a study.

    Attributes:
      costs: of a run of each row; rows that cannot be counted lack.
      unknown: why not, by row.
      seconds: of a run of each row; {} where no rate is known.
      rate: what the seconds are estimated by, in words; "" likewise.
    """

    costs: Mapping[str, Cost]
    unknown: Mapping[str, str]
    seconds: Mapping[str, float]
    rate: str


def estimate(study: Study, runs: Sequence[StudyRun], stated: Rate | None = None) -> Estimate:
    """Counts a run of each row, and estimates its time.

    Args:
      study: of the runs.
      runs: all of them; what those that are finished took is used.
      stated: a rate that goes before all others.
    """
    costs, unknown = _counted(runs)
    ended = {run.name: found for run in runs if (found := measured(run, study.metric))}
    by_row = {
        row.name: [ended[run.name] for run in runs if run.change == row.name and run.name in ended]
        for row in study.rows
    }
    rate, where = _rate(study, list(ended.values()), stated)
    seconds: dict[str, float] = {}
    for row, cost in costs.items():
        own = [found.seconds for found in by_row[row] if found.seconds]
        if own and stated is None:
            seconds[row] = statistics.fmean(own)
        elif rate is not None:
            seconds[row] = cost.flops / rate + (0.0 if ended and not stated else START_SECONDS)
    if any(found.seconds for found in ended.values()) and stated is None:
        where = f"what {len(ended)} finished runs of this study took" + (
            f" ({rate / 1e9:,.1f} GFLOP/s, starts included)" if rate else ""
        )
    return Estimate(costs, unknown, seconds, where if seconds else "")


def _rate(study: Study, ended: Sequence[Measured], stated: Rate | None) -> tuple[float | None, str]:
    """Operations a second, and where that is from."""
    whole = [found for found in ended if found.flops and found.seconds]
    if stated is None and whole:
        total = sum(found.seconds or 0.0 for found in whole)
        return sum(found.flops or 0.0 for found in whole) / total, ""
    chosen = stated or study.rate
    if chosen is None:
        return None, ""
    said = (
        f"{chosen.flops_per_second / 1e9:,.1f} GFLOP/s, {chosen.where}, and {START_SECONDS:.0f} s"
    )
    return chosen.flops_per_second, f"{said} to start and test each"


def _counted(runs: Sequence[StudyRun]) -> tuple[dict[str, Cost], dict[str, str]]:
    """Costs by row, and why there are none."""
    costs: dict[str, Cost] = {}
    unknown: dict[str, str] = {}
    # Most rows have the data of the row before, and reading them may take seconds.
    last = functools.lru_cache(maxsize=1)(_load)
    for run in runs:
        if run.change in costs or run.change in unknown:
            continue
        try:
            resolved = resolving.resolve(run.experiment)
            key = json.dumps(config.to_dict(resolved)["data"], sort_keys=True)
            costs[run.change] = _cost(resolved, last(key))
        except UserError as error:
            unknown[run.change] = str(error)
    return costs, unknown


def _load(key: str) -> Dataset:
    """The data set of a section of a configuration, written as JSON."""
    return data.load(config.from_dict({"data": json.loads(key)}).data)


def _cost(c: Experiment, dataset: Dataset) -> Cost:
    """Of one run; refuses what training would refuse, as far as it needs no device."""
    info, batch = dataset.info, c.data.batch_size
    models.check(c.model, info.num_classes, info.image_shape)
    optimizers.check(c.optimizer)
    augment.build(c.augment, info.image_shape, info.mean, info.std, info.num_classes)
    size = {"batch_size": batch, "examples": len(dataset.sampling)}
    steps = durations.parse(c.train.duration).steps(**size)
    schedules.create(c.schedule, c.optimizer.learning_rate, total_steps=steps, **size)
    counted = models.cost_of(
        models.create(c.model, info.num_classes),
        info.image_shape,
        computes=models.describe(c.model.name).init_images > 0,
    )
    return Cost(steps, counted.parameters, _FORWARD_PASSES * counted.flops * steps * batch)
