"""A study: a base experiment, named changes of it, and the seeds that all are trained with.

A file in `configs/studies/` defines `get_study(scale="")`. What it returns is checked here and
resolved to runs, whose names are those of the change and the seed and so stay the same.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from imgrec import config, fields, validation
from imgrec.config import Experiment
from imgrec.errors import UserError, unknown
from imgrec.evaluation import metrics
from imgrec.training import resolving

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+=-]{0,59}")


@dataclass(frozen=True)
class Change:
    """What is different in the runs of one row of the table.

    Attributes:
      name: of the row and, with the seed, of the run's folder.
      fields: values of fields by dotted name, as `imgrec.fields.replaced` takes them.
      against: the change that it is compared with; "" is the base.
    """

    name: str
    fields: Mapping[str, Any]
    against: str = ""


@dataclass(frozen=True)
class Published:
    """Figures that somebody printed, to be shown beside ours.

    Attributes:
      source: authors, year, and the number of the table.
      metric: what was measured, on what, in which unit.
      values: as printed, by the name of a change or of the base.
      note: in what theirs is not like ours.
    """

    source: str
    metric: str
    values: Mapping[str, str]
    note: str = ""


@dataclass(frozen=True)
class Rate:
    """Operations a second that training reaches somewhere, for an estimate of time."""

    flops_per_second: float
    where: str


@dataclass(frozen=True)
class Study:
    """What is asked, and by which runs it is answered.

    Attributes:
      question: in a sentence.
      base: the experiment that is changed, "FILE[:ARG]" from the folder of the study's file.
      changes: the other rows, in their order.
      settings: fields of all runs, the base's too, set before those of a change.
      base_name: of the row of the base.
      seeds: each change is trained once with each.
      metric: of the test split, as `metrics.json` names it: "accuracy", "macro.f1", ...
      axis: a field with a number in it, such as "data.per_class", over which rows make curves.
      published: None where no figures are known that could stand beside ours; say so in `notes`.
      rate: for the plan, before any run of the study has been timed.
      notes: sentences that belong below the table.
    """

    question: str
    base: str
    changes: Sequence[Change]
    settings: Mapping[str, Any] = field(default_factory=dict)
    base_name: str = "base"
    seeds: Sequence[int] = (0, 1, 2)
    metric: str = "accuracy"
    axis: str = ""
    published: Published | None = None
    rate: Rate | None = None
    notes: Sequence[str] = ()

    @property
    def rows(self) -> list[Change]:
        """The base, then the changes."""
        return [Change(self.base_name, {}), *self.changes]


@dataclass(frozen=True)
class StudyRun:
    """One training run of a study.

    Attributes:
      change: name of the row.
      seed: of the run.
      experiment: as it is given to training.
      fingerprint: of the resolved experiment, as its folder will have it.
      folder: of the run.
    """

    change: str
    seed: int
    experiment: Experiment
    fingerprint: str
    folder: Path

    @property
    def name(self) -> str:
        """By which the run is named for ever."""
        return run_name(self.change, self.seed)


def run_name(change: str, seed: int) -> str:
    """The name of a run, which is also that of its folder."""
    return f"{change}_seed{seed}"


def metric_names() -> list[str]:
    """The numbers that every run reports of its test split."""
    found = metrics.classification(np.eye(2, dtype=np.float32), np.arange(2), ["a", "b"])
    numbers = {k: v for k, v in config.flatten(found).items() if isinstance(v, int | float)}
    return sorted(numbers.keys() - {"n"})


def check(study: Study) -> None:
    """Refuses a study that cannot be meant.

    Raises:
      UserError: no changes, no seeds, a name or seed that is there twice, or a name that cannot
        be a folder's; a change that sets nothing or the seed, a field or metric that does not
        exist, a change or figure of a row that is not there.
    """
    names = [row.name for row in study.rows]
    if not study.changes:
        raise UserError("The study has no changes, and a base alone shows nothing. Add a Change.")
    if not study.seeds:
        raise UserError("The study has no seeds. Give some, as in seeds=(0, 1, 2).")
    for kind, counted in (("change", Counter(names)), ("seed", Counter(study.seeds))):
        if again := [str(value) for value, count in counted.items() if count > 1]:
            raise UserError(f"The {kind} {again[0]} is there twice; each needs one of its own.")
    if any(isinstance(seed, bool) or not isinstance(seed, int) for seed in study.seeds):
        raise UserError(f"seeds={tuple(study.seeds)!r}: expected whole numbers, as in (0, 1, 2).")
    if bad := [name for name in names if not _NAME.fullmatch(name)]:
        raise UserError(
            f"The change {bad[0]!r} cannot name a folder: expected letters, digits and _.+=-, at "
            "most 60 and no sign first."
        )
    if study.metric not in metric_names():
        raise unknown("metric that no run reports:", study.metric, metric_names())
    if study.axis:
        _check_fields("axis", {study.axis: 0})
    for where, values in [("settings", study.settings)] + [
        (f"change {change.name!r}", change.fields) for change in study.changes
    ]:
        _check_fields(where, values)
    for change in study.changes:
        if not change.fields:
            raise UserError(f"The change {change.name!r} changes nothing; give it fields.")
        if change.against not in ("", *names) or change.against == change.name:
            others = [name for name in names if name != change.name]
            raise unknown(f"row that {change.name!r} is compared with:", change.against, others)
    for name in study.published.values if study.published else ():
        if name not in names:
            raise unknown("row of the published table:", name, names)


def _check_fields(where: str, values: Mapping[str, Any]) -> None:
    for name in values:
        if name == "seed":
            raise UserError(f"{where} of the study sets the seed, which the study itself varies.")
        if name == "name":
            raise UserError(f"{where} of the study sets the name, which is that of the study.")
        try:
            fields.check(name)
        except UserError as error:
            raise UserError(f"{where} of the study: {error}") from None


def resolve(study: Study, base: Experiment, *, name: str, folder: Path) -> list[StudyRun]:
    """The runs of a checked study, row by row.

    Args:
      study: as `check` takes it.
      base: the experiment that `study.base` names.
      name: of the study, which all its experiments bear.
      folder: in which each run has one.

    Raises:
      UserError: a change makes an experiment that is impossible, or the same as another does.
    """
    base = replace(fields.replaced(base, study.settings), name=name)
    runs: list[StudyRun] = []
    made: dict[str, str] = {}
    for change in study.rows:
        for seed in study.seeds:
            experiment = replace(fields.replaced(base, change.fields), seed=seed)
            try:
                validation.validate(experiment)
                fingerprint = config.fingerprint(resolving.resolve(experiment))
            except UserError as error:
                raise UserError(f"The change {change.name!r}: {error}") from None
            if (other := made.setdefault(fingerprint, change.name)) != change.name:
                raise UserError(
                    f"The changes {other!r} and {change.name!r} are the same experiment; leave "
                    "out one, or look for a field that was to differ."
                )
            run = folder / run_name(change.name, seed)
            runs.append(StudyRun(change.name, seed, experiment, fingerprint, run))
    return runs
