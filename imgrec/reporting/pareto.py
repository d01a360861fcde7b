"""What is good for its cost: a chart of a metric against a cost, with the best of each price."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from imgrec.reporting import chart_file, chart_style
from imgrec.reporting.chart_style import BLUE, RED
from imgrec.reporting.plots import FAINT, INK

# Shares of the axes' height and width within which two names would cover each other.
_NEAR, _WIDE = 0.045, 0.3


@dataclass(frozen=True)
class Option:
    """Something that can be had.

    Attributes:
      name: beside the mark.
      cost: positive.
      value: of the metric.
      spread: its standard deviation, 0 where not known.
    """

    name: str
    cost: float
    value: float
    spread: float = 0.0


def front(options: Sequence[Option], *, good_is_high: bool = True) -> list[Option]:
    """Those that no other beats: nothing is better at the same or a lower cost.

    Returns:
      By ascending cost; of equals the first.
    """
    sign = 1 if good_is_high else -1
    kept: list[Option] = []
    for option in sorted(options, key=lambda each: (each.cost, -sign * each.value)):
        if not kept or sign * option.value > sign * kept[-1].value:
            kept.append(option)
    return kept


def chart(
    options: Sequence[Option],
    *,
    x_label: str,
    y_label: str,
    good_is_high: bool = True,
    base: str = "",
) -> bytes:
    """Value over cost on a logarithmic axis, as an SVG file, with the front drawn through.

    Args:
      options: at least one.
      x_label: with its unit.
      y_label: likewise.
      good_is_high: whether more of the metric is better.
      base: the name of the option that is marked as what others are compared with.
    """
    best = front(options, good_is_high=good_is_high)
    with chart_style.styled():
        figure, axes = chart_style.framed((6.2, 4.0), "")
        axes.set_xscale("log")
        axes.step(
            [each.cost for each in best],
            [each.value for each in best],
            where="post",
            color=FAINT,
            linewidth=1,
            linestyle="--",
            label="nothing better costs less",
        )
        for each in options:
            colour = RED if each.name == base else BLUE
            axes.errorbar(
                each.cost, each.value, each.spread or None, fmt="o", color=colour, markersize=5,
                elinewidth=1.2, alpha=1.0 if each in best else 0.55,
            )  # fmt: skip
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.margins(x=0.18, y=0.12)
        _name(axes, options)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axes.minorticks_off()
        chart_style.legend(axes, 1, above=True)
        return chart_file.svg(figure)


def _name(axes: Axes, options: Sequence[Option]) -> None:
    """Names beside the marks, pushed up where they would cover each other."""
    low, high = axes.get_ylim()
    least = _NEAR * (high - low)
    logs = [math.log(each.cost) for each in options]
    near = _WIDE * ((max(logs) - min(logs)) or 1.0)
    placed: list[tuple[float, float]] = []
    for x, each in sorted(zip(logs, options, strict=True), key=lambda pair: pair[1].value):
        y = each.value
        while any(abs(x - other) < near and abs(y - at) < least for other, at in placed):
            y += least / 4
        placed.append((x, y))
        axes.annotate(
            chart_style.short(each.name),
            (each.cost, y),
            xytext=(6, 0),
            textcoords="offset points",
            fontsize=7.5,
            color=INK,
            va="center",
        )
