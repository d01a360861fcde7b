"""What the runs of a study say together, as plain JSON values, for tables, pages and results."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from imgrec import config
from imgrec.ablation.measured import Measured, measured
from imgrec.ablation.study import Change, Study, StudyRun, run_name
from imgrec.evaluation import over_seeds
from imgrec.evaluation.comparison import holm
from imgrec.launching import Outcome


def summarise(
    study: Study, name: str, runs: Sequence[StudyRun], outcomes: Mapping[str, Outcome]
) -> dict[str, Any]:
    """The table of a study, from what its runs left behind.

    Args:
      study: of the runs.
      name: of it.
      runs: all of them, finished or not.
      outcomes: of those that were launched, by name.

    Returns:
      study, question, metric, axis, seeds, n (test images), rows, runs, published (None or source,
      metric, values, note), notes.

      Each of `rows` has name, fields, against ("" of the base), seeds and values (of its finished
      runs), mean, std (None where there are too few), difference (`over_seeds.paired` over the
      seeds that both rows have, with seeds and p_t_holm; None for the base and where there is no
      such seed), x (the value of the axis), parameters, flops and seconds (means over runs),
      missing ({seed, status, error} of runs that are not finished) and published (as printed, or
      None).
    """
    found = {run.name: measured(run, study.metric) for run in runs}
    rows = [_row(study, row, found, outcomes) for row in study.rows]
    by_name = {row["name"]: row for row in rows}
    for run in runs if study.axis else ():
        flat = config.flatten(config.to_dict(run.experiment))
        by_name[run.change]["x"] = flat.get(study.axis)
    for row in rows[1:]:
        row["difference"] = _difference(row, by_name[row["against"]])
    _correct([row["difference"] for row in rows if row["difference"]])
    published = study.published
    return {
        "study": name,
        "question": study.question,
        "metric": study.metric,
        "axis": study.axis,
        "seeds": list(study.seeds),
        "n": next((each.n for each in found.values() if each), None),
        "rows": rows,
        "runs": [_run(run, found[run.name], outcomes.get(run.name)) for run in runs],
        "published": published
        and {
            "source": published.source,
            "metric": published.metric,
            "values": dict(published.values),
            "note": published.note,
        },
        "notes": [*study.notes, *_said(study, rows)],
    }


def _row(
    study: Study,
    row: Change,
    found: Mapping[str, Measured | None],
    outcomes: Mapping[str, Outcome],
) -> dict[str, Any]:
    of_seed = {seed: found[run_name(row.name, seed)] for seed in study.seeds}
    ended = {
        seed: each for seed, each in of_seed.items() if each is not None and each.value is not None
    }
    values = [each.value for each in ended.values() if each.value is not None]
    is_base = row.name == study.base_name
    return {
        "name": row.name,
        "fields": dict(row.fields),
        "against": "" if is_base else row.against or study.base_name,
        "seeds": list(ended),
        "values": values,
        "mean": statistics.fmean(values) if values else None,
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "difference": None,
        "x": None,
        "parameters": _mean([each.parameters for each in ended.values()]),
        "flops": _mean([each.flops for each in ended.values()]),
        "seconds": _mean([each.seconds for each in ended.values()]),
        "missing": [
            _missing(seed, outcomes.get(run_name(row.name, seed)), of_seed[seed])
            for seed in study.seeds
            if seed not in ended
        ],
        "published": study.published.values.get(row.name) if study.published else None,
    }


def _missing(seed: int, outcome: Outcome | None, ended: Measured | None) -> dict[str, Any]:
    status = "not run" if outcome is None else outcome.status
    error = "" if outcome is None else outcome.error
    if ended is not None:
        status, error = (
            "without the metric",
            "the metric is not a number, as of a run that diverged",
        )
    return {"seed": seed, "status": status, "error": error}


def _difference(row: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any] | None:
    """Over the seeds of both rows."""
    ours, theirs = (dict(zip(r["seeds"], r["values"], strict=True)) for r in (row, base))
    both = [seed for seed in ours if seed in theirs]
    if not both:
        return None
    return {
        "seeds": both,
        **over_seeds.paired([ours[seed] for seed in both], [theirs[seed] for seed in both]),
        "p_t_holm": None,
    }


def _correct(differences: Sequence[dict[str, Any]]) -> None:
    """Sets p_t_holm of those that have a p."""
    tested = [each for each in differences if each["p_t"] is not None]
    for each, p in zip(tested, holm([each["p_t"] for each in tested]), strict=True):
        each["p_t_holm"] = p


def _run(run: StudyRun, found: Measured | None, outcome: Outcome | None) -> dict[str, Any]:
    ended = "not run" if outcome is None else outcome.status
    return {
        "name": run.name,
        "change": run.change,
        "seed": run.seed,
        "fingerprint": run.fingerprint,
        "status": "done" if found else ended,
        "value": found and found.value,
        "parameters": found and found.parameters,
        "flops": found and found.flops,
        "seconds": found and found.seconds,
        "error": "" if outcome is None or found is not None else outcome.error,
    }


def _said(study: Study, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the tests can and cannot say of so many seeds."""
    n = len(study.seeds)
    if n == 1:
        return ["One seed: whether another would say the same is not known."]
    said = [
        f"Differences are paired by seed ({n} of them), and so are intervals: 95 % by the "
        "bootstrap over seeds, with the test images as they are. p is of Student's paired t, "
        "which takes differences to be normally distributed, corrected for the number of changes "
        "(Holm)."
    ]
    if n < 6:
        said.append(
            f"{n} seeds are few. The sign-flip test, which assumes no distribution, cannot give "
            f"less than {over_seeds.least_p(n):.3g}; and the bootstrap interval, which reaches at "
            "most from the smallest to the largest difference seen, leaves out the true median in "
            f"at least {over_seeds.least_p(n):.0%} of such studies, not in 5 %. More seeds: "
            "--seeds=0,1,2,3,4,5,6,7."
        )
    if any(row["missing"] for row in rows):
        said.append("Runs are missing; differences are over the seeds that both rows have.")
    return said


def _mean(values: Sequence[int | float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
