"""Changes to an experiment with which its step fits into a device's memory.

Each is compiled and counted before it is advised. Recomputing blocks costs time and changes
nothing else; accumulation costs time too, and batch norm sees smaller batches; a state that is
cut over the devices costs traffic; a smaller batch is another experiment.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imgrec.config import Experiment
from imgrec.errors import UserError
from imgrec.training import memory
from imgrec.training import plan as plans
from imgrec.training.memory import Need
from imgrec.training.plan import Plan

Changes = Mapping[str, Any]
"""Values of fields of an experiment by dotted name."""


@dataclass(frozen=True)
class Remedy:
    """A change, and what a step takes with it."""

    changes: Changes
    need: Need

    @property
    def flags(self) -> str:
        """What to type."""
        return " ".join(f"--config.{name}={value}" for name, value in self.changes.items())


def remedies(
    plan: Plan, now: Need, limit: int, measure: Callable[[Plan], Need] = memory.of_step
) -> list[Remedy]:
    """What makes a step fit, each change by itself; or if none is enough, several together.

    Args:
      plan: whose step takes too much.
      now: what it takes.
      limit: bytes of a device.
      measure: what another plan's step takes.

    Returns:
      The mildest first; nothing where not even all together are enough.
    """
    c = plan.experiment
    shards = plan.mesh.shape["data"] * plan.mesh.shape["fsdp"]

    def tried(changes: Changes) -> Remedy | None:
        try:
            changed = plans.plan(_changed(c, changes), dataset=plan.dataset)
        except UserError:  # a network without blocks, parameters that nothing divides, ...
            return None
        return Remedy(changes, measure(changed))

    def accumulating(beside: Changes, now: Need) -> Remedy | None:
        most = c.data.batch_size // shards
        parts = _doublings(c.train.accumulate, most)
        return _first_that_fits(
            [{**beside, "train.accumulate": n} for n in parts if most % n == 0], now, limit, tried
        )

    def smaller(beside: Changes, now: Need) -> Remedy | None:
        unit = shards * c.train.accumulate
        halves = [c.data.batch_size // 2**k for k in range(1, 20)]
        return _first_that_fits(
            [{**beside, "data.batch_size": n} for n in halves if n and n % unit == 0],
            now,
            limit,
            tried,
        )

    kinds = {"none": ("dots", "blocks"), "dots": ("blocks",)}.get(c.train.remat, ())
    recomputed = [found for kind in kinds if (found := tried({"train.remat": kind}))]
    cut: Remedy | None = None
    if plan.mesh.shape["data"] > 1:
        cut = tried({"mesh.data": 1, "mesh.fsdp": shards})
    enough = [found for found in recomputed if found.need.total <= limit][:1]
    singles = [*enough, accumulating({}, now), cut, smaller({}, now)]
    fitting = [found for found in singles if found and found.need.total <= limit]
    if fitting:
        return fitting
    return _together(recomputed[-1:] + ([cut] if cut else []), limit, tried, accumulating, smaller)


def _together(
    mild: Sequence[Remedy],
    limit: int,
    tried: Callable[[Changes], Remedy | None],
    accumulating: Callable[[Changes, Need], Remedy | None],
    smaller: Callable[[Changes, Need], Remedy | None],
) -> list[Remedy]:
    """All that changes no experiment, then with parts of the batch, or with a smaller one."""
    changes: dict[str, Any] = {}
    for remedy in mild:
        changes |= remedy.changes
    every = tried(changes) if len(mild) > 1 else next(iter(mild), None)
    if every is None:
        return []
    if every.need.total <= limit:
        return [every]
    more = (accumulating(changes, every.need), smaller(changes, every.need))
    return [found for found in more if found and found.need.total <= limit]


def _first_that_fits(
    options: Sequence[Changes],
    now: Need,
    limit: int,
    tried: Callable[[Changes], Remedy | None],
) -> Remedy | None:
    """The first of changes that halve the work again and again, few of which are tried.

    What the first saves tells how much of the work is divided at all.
    """
    first = tried(options[0]) if options else None
    if first is None or first.need.total <= limit:
        return first
    divided = 2 * (now.total - first.need.total)
    for k, changes in enumerate(options[1:], start=2):
        # A tenth of what is divided is the guess's own uncertainty.
        if now.total - divided * (1 - 2.0**-k) > limit + 0.1 * divided:
            continue
        found = tried(changes)
        if found and found.need.total <= limit:
            return found
    return None


def _doublings(start: int, most: int) -> list[int]:
    found = []
    while (start := 2 * start) <= most:
        found.append(start)
    return found


def _changed(experiment: Experiment, changes: Changes) -> Experiment:
    """A copy with other values of some fields."""
    copied = copy.deepcopy(experiment)
    for name, value in changes.items():
        section, _, field = name.rpartition(".")
        setattr(getattr(copied, section), field, value)
    return copied
