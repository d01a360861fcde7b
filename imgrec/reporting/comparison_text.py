"""Runs beside each other, as text for a terminal."""

from collections.abc import Mapping
from typing import Any

from imgrec.reporting.columns import aligned
from imgrec.reporting.units import duration, number, p_value, percent, points, quantity

ALPHA = 0.05
_MOST_FIELDS = 40
_LONGEST_VALUE = 40


def render(found: Mapping[str, Any]) -> str:
    """Lines for people of what `side_by_side` found; what is missing begins with "!"."""
    several = len(found["runs"]) > 1
    lines = [*aligned(_results(found)), ""]
    lines += [verdict(pair) for pair in found["pairs"]]
    lines += [f"! {name} is not compared: {why}" for name, why in found["refused"].items()]
    lines += [seeds(family) for family in found["seeds"]]
    if several:
        lines += ["", "configuration", *aligned(_fields(found))]
    lines += [f"! {run['name']}: {why}" for run in found["runs"] for why in run["missing"]]
    return "\n".join(lines).rstrip() + "\n"


def verdict(pair: Mapping[str, Any]) -> str:
    """In a sentence or two, whether another run is better than the first."""
    first, other, n = pair["first"], pair["other"], pair["n"]
    difference = f"{points(pair['accuracy_difference'])} points"
    if interval := pair["intervals"]["accuracy_difference"]:
        low, high = interval
        difference += f", 95 % interval {100 * low:+.2f} to {100 * high:+.2f}"
    p = f"McNemar's p {_p(pair['mcnemar_p_exact_holm'])}"
    if pair["mcnemar_p_exact_holm"] < ALPHA:
        way = "more" if pair["accuracy_difference"] > 0 else "less"
        return f"{other} is right {way} often than {first}: {difference} ({p}, n {n:,})."
    return (
        f"No difference in accuracy can be told between {other} and {first}: {difference} "
        f"({p}, n {n:,})."
    )


def seeds(family: Mapping[str, Any]) -> str:
    """How much runs differ whose seeds alone differ."""
    return (
        f"{', '.join(family['runs'])} differ in their seed alone: accuracy "
        f"{100 * family['accuracy_mean']:.2f} ± {100 * family['accuracy_sd']:.2f} % (mean and "
        f"standard deviation of {family['n']})."
    )


def shown(value: Any) -> str:
    """A value of a configuration; "–" for one that is not there."""
    if value is None:
        return "–"
    text = repr(value) if isinstance(value, list) else str(value)
    return text if text else '""'


def _p(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _results(found: Mapping[str, Any]) -> list[list[str]]:
    measures = {measure["path"]: measure for measure in found["measures"]}
    against = {pair["other"]: pair for pair in found["pairs"]}
    header = ["run", "accuracy [95 %]", "nats", "time", "compute", "parameters"]
    if against:
        header.insert(2, "points against the first")
        header.insert(3, "p")
    rows = [header]
    for i, run in enumerate(found["runs"]):
        accuracy, loss = (
            (measures[path]["values"][i], measures[path]["intervals"][i])
            if path in measures
            else (None, None)
            for path in ("accuracy", "loss")
        )
        row = [
            run["name"],
            percent(*accuracy),
            number(loss[0], digits=4),
            duration(run["total_seconds"]),
            quantity(run["flops"], "FLOP"),
            quantity(run["parameters"], "").strip(),
        ]
        if against:
            pair = against.get(run["name"])
            told = (
                ["", ""]
                if pair is None
                else [
                    points(pair["accuracy_difference"], pair["intervals"]["accuracy_difference"]),
                    p_value(pair["mcnemar_p_exact_holm"]),
                ]
            )
            row[2:2] = told
        rows.append(row)
    return rows


def _fields(found: Mapping[str, Any]) -> list[list[str]]:
    fields = found["configuration"]
    if not fields:
        return [["  no field differs"]]
    rows = [["  field", *(run["name"] for run in found["runs"])]]
    for field in fields[:_MOST_FIELDS]:
        values = (shown(value) for value in field["values"])
        cut = (v if len(v) <= _LONGEST_VALUE else v[: _LONGEST_VALUE - 1] + "…" for v in values)
        rows.append([f"  {field['field']}", *cut])
    if len(fields) > _MOST_FIELDS:
        rows.append([f"  and {len(fields) - _MOST_FIELDS} more"])
    return rows
