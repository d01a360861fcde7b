"""Runs beside each other, as one HTML file that needs nothing else.

The page answers in this order: which is better and is that certain, how well does each do, how
did they learn, what did they cost, and in what were they set up differently.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from imgrec.reporting import charts, comparison_text, frame
from imgrec.reporting.charts import Line
from imgrec.reporting.comparison_text import shown
from imgrec.reporting.parts import Details, Item, Numbers, Part, Picture, Table, Text
from imgrec.reporting.units import duration, number, p_value, percent, points, quantity

_CURVES = {
    "validation/accuracy": "accuracy on validation",
    "validation_ema/accuracy": "accuracy on validation, averaged parameters",
    "validation/loss": "loss on validation (nats)",
    "validation_ema/loss": "loss on validation, averaged parameters (nats)",
    "train/loss": "loss while training (nats)",
    "train/accuracy": "accuracy while training",
    "train/learning_rate": "learning rate",
}
_MOST_NUMBERS = 400
_FEW_POINTS = 12  # that are worth a dot each


def render(found: Mapping[str, Any]) -> str:
    """The page of what `side_by_side` found."""
    names = [run["name"] for run in found["runs"]]
    several = len(names) > 1
    title = f"{names[0]} against {_listed(names[1:])}" if several else names[0]
    sets = dict.fromkeys(str(run["dataset"]) for run in found["runs"])
    made = [
        _verdict(found) if several else None,
        _results(found),
        _curves(found),
        _cost(found),
        _configuration(found),
    ]
    return frame.render(
        title=title,
        about=f"{found['split']} of {_listed(list(sets))}"
        + (f". All are compared with the first, {names[0]}." if several else "."),
        shown=[part for part in made if part is not None],
        missing=[(run["name"], why) for run in found["runs"] for why in run["missing"]],
        missing_about="What these runs do not have; the rest of the page does without.",
    )


def _verdict(found: Numbers) -> Part:
    pairs = found["pairs"]
    items: list[Item] = [Text(comparison_text.verdict(pair)) for pair in pairs]
    items += [Text(f"{name} is not compared: {why}") for name, why in found["refused"].items()]
    items += [Text(comparison_text.seeds(family)) for family in found["seeds"]]
    if pairs:
        first = pairs[0]["first"]
        items.append(
            Picture(
                "differences.svg",
                charts.dots(
                    [pair["other"] for pair in pairs],
                    {"difference": [100 * pair["accuracy_difference"] for pair in pairs]},
                    {"difference": [_percents(pair) for pair in pairs]},
                    x_label="percentage points of accuracy more than the first",
                    level=(0, f"as {_short(first)}"),
                    notes=[f"p {p_value(pair['mcnemar_p_exact_holm'])}" for pair in pairs],
                ),
                "Difference of accuracy on the same images, with 95 % intervals. Where the line "
                f"crosses 0, {first} may be as good.",
            )
        )
        items.append(_pairs(pairs))
    return Part(
        "verdict",
        "Which is better",
        "Judged on the same images, pair by pair. What is judged are these trained networks: "
        "another seed of the same recipe may do better or worse.",
        items,
    )


def _pairs(pairs: Sequence[Numbers]) -> Table:
    return Table(
        (
            "run",
            "accuracy, points [95 %]",
            "loss, nats [95 %]",
            "p",
            "p (Holm)",
            "both right",
            "only the first",
            "only this",
            "both wrong",
            "same answer",
        ),
        [
            (
                pair["other"],
                points(pair["accuracy_difference"], pair["intervals"]["accuracy_difference"]),
                number(pair["nll_difference"], pair["intervals"]["nll_difference"], 4),
                p_value(pair["mcnemar_p_exact"]),
                p_value(pair["mcnemar_p_exact_holm"]),
                *(
                    f"{pair[count]:,}"
                    for count in (
                        "both_right",
                        "only_first_right",
                        "only_other_right",
                        "both_wrong",
                    )
                ),
                percent(pair["agreement"], digits=1),
            )
            for pair in pairs
        ],
        caption="Differences are this run less the first; intervals by the paired bootstrap, p by "
        "McNemar's exact test, and corrected for the number of runs (Holm).",
    )


def _results(found: Numbers) -> Part:
    runs, measures = found["runs"], found["measures"]
    names = [run["name"] for run in runs]
    rows = [
        (measure["title"], *(_value(measure, i) for i in range(len(runs)))) for measure in measures
    ]
    rows.append(("images", *(shown(run["n"]) for run in runs)))
    rows.append(("parameters of step", *(shown(run["step"]) for run in runs)))
    items: list[Item] = [
        Table(
            ("", *names),
            rows,
            caption="With 95 % intervals."
            + (
                " Those of two runs may overlap although one is certainly better, since both saw "
                "the same images: the pairs above tell."
                if len(runs) > 1
                else ""
            ),
        )
    ]
    accuracy = next((m for m in measures if m["path"] == "accuracy"), None)
    if accuracy and len(runs) > 1:
        items.append(
            Picture(
                "accuracy.svg",
                charts.dots(
                    names,
                    {"accuracy": accuracy["values"]},
                    {"accuracy": accuracy["intervals"]},
                    x_label="accuracy",
                    notes=[f"n {run['n']:,}" if run["n"] else "" for run in runs],
                ),
                "Accuracy of each run by itself, with its 95 % interval.",
            )
        )
    if numbers := found["numbers"]:
        items.append(_every_number(names, numbers))
    return Part("results", "Results", "How well each run does by itself.", items)


def _every_number(names: Sequence[str], numbers: Mapping[str, Sequence[Any]]) -> Details:
    listed = list(numbers.items())[:_MOST_NUMBERS]
    table = Table(
        ("in metrics.json", *names),
        [
            (name, *("–" if value is None else f"{value:.6g}" for value in values))
            for name, values in listed
        ],
        caption=""
        if len(listed) == len(numbers)
        else f"The first {len(listed)} of {len(numbers):,}; --format=json has all.",
    )
    return Details(f"Every number ({len(numbers):,})", [table])


def _curves(found: Numbers) -> Part | None:
    """One chart for each scalar that at least one run logged twice; a colour for each run."""
    per_step = {name: run["images_per_step"] for name, run in found["curves"].items()}
    by_images = len(set(per_step.values())) > 1
    items: list[Item] = []
    for scalar, label in _CURVES.items():
        lines = []
        for name, run in found["curves"].items():
            curve = run["values"].get(scalar)
            scale = (per_step[name] or 0) / 1000 if by_images else 1
            if curve is None or not scale:  # keeps the colours of the others
                lines.append(Line("", [0], [None]))
            else:
                x = [step * scale for step in curve["step"]]
                lines.append(Line(_short(name) if len(per_step) > 1 else "", x, curve["value"]))
        if any(len(line.x) > 1 for line in lines):
            items.append(
                Picture(
                    f"{scalar.replace('/', '_')}.svg",
                    charts.lines(
                        lines,
                        x_label="thousand images seen" if by_images else "step",
                        y_label=label,
                        markers=max(len(line.x) for line in lines) <= _FEW_POINTS,
                    ),
                    label.capitalize() + ".",
                )
            )
    if not items:
        return None
    said = " Batch sizes differ, so the axis counts images, not steps." if by_images else ""
    return Part(
        "curves", "Learning curves", f"How the runs learnt, as they logged it.{said}", items
    )


def _cost(found: Numbers) -> Part:
    runs = found["runs"]
    activities = dict.fromkeys(name for run in runs for name in run["seconds"])
    rows = [
        ("parameters", *(quantity(run["parameters"], "").strip() for run in runs)),
        ("compute to train", *(quantity(run["flops"], "FLOP") for run in runs)),
        ("compute a step", *(quantity(run["flops_per_step"], "FLOP") for run in runs)),
        ("time in all", *(duration(run["total_seconds"]) for run in runs)),
        *(
            (f"of it {activity}", *(duration(run["seconds"].get(activity)) for run in runs))
            for activity in activities
        ),
        ("of it in steps", *(percent(_step_share(run), digits=1) for run in runs)),
        ("of the measured peak", *(percent(run["utilisation"], digits=1) for run in runs)),
        ("images/s while training", *(_rounded(run["images_per_second"]) for run in runs)),
        ("device", *(shown(run["device"]) for run in runs)),
        ("processor", *(shown(run["processor"]) for run in runs)),
        ("starts", *(f"{run['launches']}" for run in runs)),
    ]
    return Part(
        "cost",
        "Cost",
        "Compute is that of matrix products and convolutions; time depends on the machine and "
        "on what else it did.",
        [Table(("", *(run["name"] for run in runs)), rows)],
    )


def _step_share(run: Numbers) -> float | None:
    total, steps = run["total_seconds"], run["seconds"].get("step")
    return steps / total if total and steps is not None else None


def _configuration(found: Numbers) -> Part:
    names = [run["name"] for run in found["runs"]]
    items: list[Item] = []
    if len(names) == 1:
        items.append(Details("All fields", [_fields(names, found["configuration"])]))
    elif found["configuration"]:
        items.append(_fields(names, found["configuration"]))
    else:
        items.append(Text("No field of the configuration differs."))
    if found["environment"]:
        summary = "Machine and software" + (", where they differ" if len(names) > 1 else "")
        items.append(Details(summary, [_fields(names, found["environment"])]))
    return Part(
        "configuration",
        "Configuration",
        "The fields in which the runs differ; all others are equal."
        if len(names) > 1
        else "As it was saved with the run.",
        items,
    )


def _fields(names: Sequence[str], rows: Sequence[Numbers]) -> Table:
    return Table(
        ("", *names), [(row["field"], *(shown(value) for value in row["values"])) for row in rows]
    )


def _value(measure: Numbers, i: int) -> str:
    value, interval = measure["values"][i], measure["intervals"][i]
    text = percent(value, interval) if measure["share"] else number(value, interval, 4)
    return text.replace(", ", ",\N{NO-BREAK SPACE}").replace(" %", "\N{NO-BREAK SPACE}%")


def _percents(pair: Numbers) -> list[float] | None:
    interval = pair["intervals"]["accuracy_difference"]
    return interval and [100 * bound for bound in interval]


def _rounded(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _listed(names: Sequence[str]) -> str:
    if len(names) > 4:
        return f"{', '.join(names[:3])} and {len(names) - 3} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _short(name: str) -> str:
    return name if len(name) <= 28 else "…" + name[-27:]
