"""A study as one HTML file that needs nothing else: table, effects, and what is worth its cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from imgrec.reporting import charts, frame, pareto, parts, study_text
from imgrec.reporting.charts import Line
from imgrec.reporting.pareto import Option
from imgrec.reporting.parts import Details, Item, Part, Picture, Table, Text
from imgrec.reporting.study_text import good_is_high, is_share, metric_name
from imgrec.reporting.units import duration, p_value, quantity


def render(summary: Mapping[str, Any], command: str) -> tuple[str, list[Picture]]:
    """The page, and the charts in it.

    Args:
      summary: of the study.
      command: that makes it again.
    """
    made = [_table(summary, command), _effects(summary), _curves(summary), _costs(summary)]
    made.append(_runs(summary))
    shown = [part for part in made if part is not None]
    n = f" Tested on {summary['n']:,} images." if summary["n"] else ""
    page = frame.render(
        title=f"Study {summary['study']}",
        about=f"{summary['question']}{n}",
        shown=shown,
        missing=study_text.missing(summary),
        missing_about="Runs that did not come to their end; the table is of the others.",
    )
    return page, [picture for part in shown for picture in parts.pictures(part.items)]


def _table(summary: Mapping[str, Any], command: str) -> Part:
    header, rows = study_text.table(summary)
    items: list[Item] = [Table(header, rows, caption=study_text.about_published(summary))]
    items += [Text(note, faint=True) for note in summary["notes"]]
    items.append(Text(f"Made by: {command}", faint=True))
    base = summary["rows"][0]["name"]
    return Part(
        "table",
        "The changes",
        f"Each row is trained once a seed. Differences are to {base}, or to the row that is named.",
        items,
    )


def _effects(summary: Mapping[str, Any]) -> Part | None:
    rows = [row for row in summary["rows"] if row["difference"]]
    if not rows:
        return None
    base, scale = summary["rows"][0]["name"], 100 if is_share(summary["metric"]) else 1
    intervals = [row["difference"]["intervals"]["difference"] for row in rows]
    named = [
        row["name"] if row["against"] == base else f"{row['name']} – {row['against']}"
        for row in rows
    ]
    unit = "percentage points of" if scale == 100 else "difference of"
    picture = charts.dots(
        named,
        {"difference": [scale * row["difference"]["difference"] for row in rows]},
        {"difference": [each and [scale * bound for bound in each] for each in intervals]},
        x_label=f"{unit} {metric_name(summary['metric'])}",
        level=(0, "no difference"),
        notes=[f"p {p_value(row['difference']['p_t_holm'])}" for row in rows],
    )
    return Part(
        "effects",
        "Effects",
        "What each change does, paired by seed.",
        [
            Picture(
                "effects.svg",
                picture,
                f"Differences to {base}, or between the two rows that are named, with 95 % "
                "intervals over seeds; p by Student's paired t, corrected (Holm).",
                wide=True,
            )
        ],
    )


def _curves(summary: Mapping[str, Any]) -> Part | None:
    """The metric over a field: a curve for each way in which rows differ besides."""
    axis, scale = summary["axis"], 100 if is_share(summary["metric"]) else 1
    curves: dict[str, list[Mapping[str, Any]]] = {}
    for row in summary["rows"]:
        if row["x"] is not None and row["mean"] is not None:
            others = [f"{name}={value!r}" for name, value in row["fields"].items() if name != axis]
            curves.setdefault(", ".join(others) or summary["rows"][0]["name"], []).append(row)
    if not any(len(rows) > 1 for rows in curves.values()):
        return None
    lines = []
    for name, rows in curves.items():
        rows = sorted(rows, key=lambda row: float(row["x"]))
        means, spreads = ([row[key] or 0.0 for row in rows] for key in ("mean", "std"))
        pairs = list(zip(means, spreads, strict=True))
        lines.append(
            Line(
                name if len(curves) > 1 else "",
                [row["x"] for row in rows],
                [scale * mean for mean in means],
                [scale * (mean - spread) for mean, spread in pairs],
                [scale * (mean + spread) for mean, spread in pairs],
            )
        )
    xs = [x for line in lines for x in line.x]
    picture = charts.lines(
        lines,
        x_label=axis,
        y_label=metric_name(summary["metric"]) + (" (%)" if scale == 100 else ""),
        markers=True,
        log_x=min(xs) > 0 and max(xs) / min(xs) > 10,
        size=(6.2, 4.0),
    )
    caption = "Means over seeds; the band is one standard deviation to either side."
    return Part(
        "curve", "Curve", f"Over {axis}.", [Picture("curve.svg", picture, caption, wide=True)]
    )


def _costs(summary: Mapping[str, Any]) -> Part | None:
    """The metric against arithmetic and against time."""
    share = is_share(summary["metric"])
    scale, unit = (100, " (%)") if share else (1, "")
    items: list[Item] = []
    for name, units, file in _COSTS:
        factor, label = _unit([row[name] for row in summary["rows"] if row[name]], units)
        options = [
            Option(
                row["name"],
                row[name] / factor,
                scale * row["mean"],
                scale * (row["std"] or 0.0),
            )
            for row in summary["rows"]
            if row[name] and row["mean"] is not None
        ]
        if len(options) > 1:
            picture = pareto.chart(
                options,
                x_label=label,
                y_label=metric_name(summary["metric"]) + unit,
                good_is_high=good_is_high(summary["metric"]),
                base=summary["rows"][0]["name"],
            )
            items.append(
                Picture(
                    file,
                    picture,
                    "Means over seeds, with one standard deviation to either side; the base in "
                    "red. Along the broken line nothing that costs less is better.",
                )
            )
    if not items:
        return None
    return Part(
        "cost",
        "What it costs",
        "Arithmetic is that of matrix products and convolutions in training. Time depends on "
        "the machine and on what else it did.",
        items,
    )


# Of each cost its units, the largest first.
_COSTS: Sequence[tuple[str, Sequence[tuple[float, str]], str]] = (
    (
        "flops",
        ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP")),
        "pareto_flops.svg",
    ),
    ("seconds", ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds")), "pareto_time.svg"),
)


def _unit(values: Sequence[float], units: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """The largest unit of which the least value has one, and how the axis is called."""
    least = min(values, default=0.0)
    size, name = next((unit for unit in units if unit[0] <= least), units[-1])
    return size, f"{name} to train"


def _runs(summary: Mapping[str, Any]) -> Part:
    shown = ".2%" if is_share(summary["metric"]) else ".4f"
    rows = [
        (
            run["name"],
            run["status"],
            "–" if run["value"] is None else format(run["value"], shown),
            quantity(run["flops"], "FLOP"),
            duration(run["seconds"]),
            run["fingerprint"],
        )
        for run in summary["runs"]
    ]
    header = ("run", "status", metric_name(summary["metric"]), "compute", "time", "configuration")
    fields = [
        (row["name"], ", ".join(f"{k}={v!r}" for k, v in row["fields"].items()) or "–")
        for row in summary["rows"]
    ]
    return Part(
        "runs",
        "Runs",
        "Every run, and in which fields each change differs from the base.",
        [
            Table(("change", "fields"), fields),
            Details(f"All runs ({len(rows)})", [Table(header, rows)]),
        ],
    )
