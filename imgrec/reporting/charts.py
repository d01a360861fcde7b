"""Charts as SVG: the few kinds that reports are made of.

Every function returns the bytes of an SVG file that is the same from run to run. How they look is
in `imgrec.reporting.chart_style`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from imgrec.reporting import chart_file, chart_style
from imgrec.reporting.chart_style import AMBER, BLUE, COLOURS, Level, Limits, Number, Numbers
from imgrec.reporting.plots import FAINT, INK


@dataclass(frozen=True)
class Line:
    """One curve of a chart.

    Attributes:
      name: in the legend; "" for none.
      x, y: the points; None in y breaks the line.
      low, high: a band around it, where known.
      style: of the line, as matplotlib writes it.
    """

    name: str
    x: Sequence[Number]
    y: Numbers
    low: Numbers = ()
    high: Numbers = ()
    style: str = "-"


def lines(
    curves: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    markers: bool = False,
    x_limits: Limits | None = None,
    y_limits: Limits | None = None,
    log_x: bool = False,
    diagonal: bool = False,
    level: Level | None = None,
    size: tuple[float, float] = (5.2, 3.4),
) -> bytes:
    """Curves over a common axis.

    Args:
      curves: at least one.
      x_label: with its unit.
      y_label: likewise.
      title: "" for none.
      markers: a dot at each point, where points are measurements.
      x_limits: of the axis; by default those of the curves.
      y_limits: likewise.
      log_x: a logarithmic axis.
      diagonal: a faint line y = x, which is what chance or perfection looks like.
      level: a faint horizontal line and what it is.
      size: in inches.
    """
    with chart_style.styled():
        figure, axes = chart_style.framed(size, title)
        for i, curve in enumerate(curves):
            colour = COLOURS[i % len(COLOURS)]
            y = chart_style.numbers(curve.y)
            axes.plot(
                curve.x,
                y,
                curve.style,
                color=colour,
                linewidth=1.6,
                marker="o" if markers else None,
                markersize=3.5,
                label=curve.name or None,
            )
            if len(curve.low):
                low, high = chart_style.numbers(curve.low), chart_style.numbers(curve.high)
                axes.fill_between(curve.x, low, high, color=colour, alpha=0.15, linewidth=0)
        if diagonal:
            axes.plot([0, 1], [0, 1], ":", color=FAINT, linewidth=1)
        chart_style.level_across(axes, level)
        if log_x:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
            ticks = sorted({x for curve in curves for x in curve.x})
            if len(ticks) <= 8:
                axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
                axes.minorticks_off()
        axes.set(xlabel=x_label, ylabel=y_label)
        if x_limits:
            axes.set_xlim(*x_limits)
        if y_limits:
            axes.set_ylim(*y_limits)
        if any(curve.name for curve in curves):
            chart_style.legend(axes, len(curves))
        return chart_file.svg(figure)


def dots(
    names: Sequence[str],
    series: Mapping[str, Numbers],
    intervals: Mapping[str, Sequence[Sequence[Number] | None]],
    *,
    x_label: str,
    title: str = "",
    level: Level | None = None,
    notes: Sequence[str] = (),
    x_limits: Limits | None = None,
) -> bytes:
    """One row for each name, with a dot and its interval for each series.

    Args:
      names: of the rows, from the top.
      series: values of each row; None leaves a row empty.
      intervals: [low, high] or None for each value, of series that have them.
      x_label: with its unit.
      title: "" for none.
      level: a faint vertical line and what it is.
      notes: a few words at the right end of each row, such as its count.
      x_limits: of the axis.
    """
    with chart_style.styled():
        figure, axes = chart_style.framed(
            (5.8, max(1.6, 0.9 + 0.24 * len(names) * max(1, len(series) / 2))), title
        )
        rows = np.arange(len(names))[::-1]
        for i, (name, values) in enumerate(series.items()):
            shift = (len(series) - 1) / 2 - i
            y = rows + shift * 0.7 / max(1, len(series))
            x, colour = chart_style.numbers(values), COLOURS[i % len(COLOURS)]
            for at, value in zip(y, intervals.get(name, [None] * len(y)), strict=True):
                if value is not None:
                    axes.plot(value, (at, at), color=colour, linewidth=1.4, alpha=0.6)
            axes.plot(x, y, "o", color=colour, markersize=4, label=name)
        chart_style.level_upright(axes, level)
        axes.set_yticks(rows, [chart_style.short(name) for name in names])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(-0.7, len(names) - 0.3)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(x_label)
        if x_limits:
            axes.set_xlim(*x_limits)
        for at, note in zip(rows.tolist(), notes, strict=False):
            chart_style.note(axes, note, (1.01, at), of="y", va="center")
        if len(series) > 1:
            chart_style.legend(axes, len(series), above=True)
        return chart_file.svg(figure)


def heat_map(
    values: Sequence[Numbers],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    x_label: str = "",
    title: str = "",
    limits: Limits = (0, 1),
    percent: bool = True,
    good_is_high: bool = True,
) -> bytes:
    """A table whose cells are coloured and written: dark blue is good, dark red is bad."""
    with chart_style.styled():
        size = (1.9 + 0.62 * len(columns), 0.9 + 0.26 * len(rows))
        figure, axes = chart_style.framed(size, title)
        table = np.array([chart_style.numbers(row) for row in values], np.float64).reshape(
            len(rows), -1
        )
        axes.imshow(
            table,
            aspect="auto",
            cmap="RdYlBu" if good_is_high else "RdYlBu_r",
            vmin=limits[0],
            vmax=limits[1],
        )
        for i, row in enumerate(table):
            for j, value in enumerate(row):
                share = (value - limits[0]) / (limits[1] - limits[0])
                text = (
                    "–" if np.isnan(value) else f"{100 * value:.1f}" if percent else f"{value:.2f}"
                )
                colour = "white" if share < 0.15 or share > 0.87 else INK
                axes.text(j, i, text, ha="center", va="center", fontsize=7.5, color=colour)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), [chart_style.short(row) for row in rows])
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.set_xlabel(x_label)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return chart_file.svg(figure)


def histograms(
    edges: Sequence[Number],
    counts: Mapping[str, Sequence[Number]],
    *,
    x_label: str,
    y_label: str = "share",
    title: str = "",
    line: Level | None = None,
    size: tuple[float, float] = (5.2, 2.8),
) -> bytes:
    """Steps over common bins, each series as shares of its own total.

    Args:
      edges: of the bins, one more than there are bins.
      counts: of each bin, by series.
      x_label: with its unit.
      y_label: likewise.
      title: "" for none.
      line: a vertical one and what it is.
      size: in inches.
    """
    with chart_style.styled():
        figure, axes = chart_style.framed(size, title)
        for i, (name, values) in enumerate(counts.items()):
            shares = np.asarray(values, np.float64) / max(1e-12, float(np.sum(values)))
            colour = COLOURS[i % len(COLOURS)]
            axes.stairs(shares, edges, color=colour, linewidth=1.4, label=name)
            axes.stairs(shares, edges, color=colour, alpha=0.15, fill=True)
        chart_style.level_upright(axes, line, firm=True)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.set_ylim(bottom=0)
        if len(counts) > 1:
            chart_style.legend(axes, len(counts))
        return chart_file.svg(figure)


def bars(
    names: Sequence[str],
    series: Mapping[str, Numbers],
    *,
    y_label: str,
    x_label: str = "",
    title: str = "",
    level: Level | None = None,
    size: tuple[float, float] = (5.2, 2.8),
) -> bytes:
    """Bars side by side for each name."""
    with chart_style.styled():
        figure, axes = chart_style.framed(size, title)
        width = 0.8 / max(1, len(series))
        for i, (name, values) in enumerate(series.items()):
            x = np.arange(len(names)) + (i - (len(series) - 1) / 2) * width
            axes.bar(
                x, chart_style.numbers(values), width, color=COLOURS[i % len(COLOURS)], label=name
            )
        chart_style.level_across(axes, level, firm=True)
        longest = max((len(name) for name in names), default=0)
        turned: dict[str, Any] = (
            {"rotation": 35, "ha": "right"} if longest * len(names) > 60 else {}
        )
        axes.set_xticks(range(len(names)), [chart_style.short(name) for name in names], **turned)
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="x", visible=False)
        axes.set(xlabel=x_label, ylabel=y_label)
        if len(series) > 1:
            chart_style.legend(axes, len(series), above=True)
        return chart_file.svg(figure)


def scatter(
    points: Sequence[Sequence[Number]],
    labels: Sequence[int],
    names: Sequence[str],
    *,
    title: str = "",
    x_label: str = "",
    y_label: str = "",
) -> bytes:
    """Points in the plane, coloured by label; of more than 20 labels none is named."""
    with chart_style.styled():
        figure, axes = chart_style.framed((5.6, 4.4), title)
        xy, of = np.asarray(points, np.float64).reshape(-1, 2), np.asarray(labels)
        palette = mpl.colormaps["tab20" if len(names) > 10 else "tab10"]
        for label, name in enumerate(names):
            chosen = xy[of == label]
            if len(chosen):
                axes.plot(
                    chosen[:, 0],
                    chosen[:, 1],
                    "o",
                    markersize=2.2,
                    alpha=0.6,
                    markeredgewidth=0,
                    color=palette(label % palette.N),
                    label=chart_style.short(name) if len(names) <= 20 else None,
                    rasterized=len(xy) > 500,
                )
        axes.set(xlabel=x_label, ylabel=y_label, xticks=[], yticks=[])
        axes.grid(visible=False)
        if len(names) <= 20:
            axes.legend(
                loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=3, handletextpad=0.1
            )
        return chart_file.svg(figure)


def reliability(
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]] | None,
    *,
    title: str = "",
) -> bytes:
    """Accuracy against confidence by bins, with how many examples each bin has below.

    Args:
      before: {mean_confidence, accuracy, count, interval} of each bin; empty ones have None.
      after: likewise after temperature scaling, if there was one.
      title: "" for none.
    """
    with chart_style.styled():
        figure = Figure(figsize=(4.6, 4.6))
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.set_title(title)
        upper.plot([0, 1], [0, 1], ":", color=FAINT, linewidth=1, label="perfectly calibrated")
        series = [("as trained", before, BLUE)] + (
            [("after temperature scaling", after, AMBER)] if after else []
        )
        for name, bins, colour in series:
            full = [b for b in bins if b["count"] and b["mean_confidence"] is not None]
            x = [b["mean_confidence"] for b in full]
            sure = [b for b in full if b.get("interval")]
            ends = np.array([b["interval"] for b in sure]).reshape(-1, 2).T
            at = [b["mean_confidence"] for b in sure]
            upper.vlines(at, *ends, color=colour, alpha=0.4, linewidth=1.4)
            accuracy = [b["accuracy"] for b in full]
            upper.plot(x, accuracy, "o-", color=colour, markersize=3.5, linewidth=1.2, label=name)
            total = max(1, sum(b["count"] for b in bins))
            shares = [b["count"] / total for b in full]
            lower.vlines(x, 0, shares, color=colour, linewidth=5, alpha=0.6)
        upper.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1.02))
        lower.set(xlabel="confidence (largest probability)", ylabel="share of images")
        chart_style.legend(upper, len(series) + 1)
        return chart_file.svg(figure)
