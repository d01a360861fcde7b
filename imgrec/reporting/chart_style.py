"""How charts look: colours, type, the frame, the legend, reference levels.

matplotlib draws through its object interface: no display, no global state. Which charts there are
is in `imgrec.reporting.charts`, what becomes of them in `imgrec.reporting.chart_file`.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from imgrec.reporting.plots import FAINT, GRID, INK

BLUE, RED, GREEN, AMBER = "#3b6ea5", "#c0504d", "#3d8b5f", "#d08a2e"
COLOURS = (
    BLUE,
    RED,
    GREEN,
    AMBER,
    "#7b5ea7",
    "#3e9cb0",
    "#a4637d",
    "#7d8a3c",
    "#5a6270",
    "#b5651d",
)

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "imgrec",
    "svg.fonttype": "path",
    "text.parse_math": False,  # what a user named may hold dollars
}
_LONGEST_NAME = 28
_SMALL = 7.5  # points, of what is written beside the marks

Number = int | float
Numbers = Sequence[Number | None]
Limits = tuple[Number, Number]
Level = tuple[Number, str]  # where, and what it is


def styled() -> AbstractContextManager[None]:
    """Within it, everything is drawn in the one style."""
    return mpl.rc_context(_STYLE)


def framed(size: tuple[float, float], title: str) -> tuple[Figure, Axes]:
    """A figure of a size in inches with one pair of axes."""
    figure = Figure(figsize=size)
    axes = figure.subplots()
    if title:
        axes.set_title(title)
    return figure, axes


def legend(axes: Axes, entries: int, *, above: bool = False) -> None:
    """Where it covers nothing: beside long lists, above what reaches into every corner."""
    if above:
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=min(entries, 4))
    elif entries > 5:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    else:
        axes.legend(loc="best")


def level_across(axes: Axes, level: Level | None, *, firm: bool = False) -> None:
    """A horizontal reference level, named at its right end; `firm` where it is what to look at."""
    if level is not None:
        axes.axhline(level[0], **_level_line(firm))
        note(axes, level[1], (1, level[0]), of="y", firm=firm, ha="right", va="bottom")


def level_upright(axes: Axes, level: Level | None, *, firm: bool = False) -> None:
    """A vertical reference level, named above the axes or, if firm, along the line."""
    if level is not None:
        axes.axvline(level[0], **_level_line(firm))
        above: dict[str, Any] = {"ha": "center", "va": "bottom"}
        along: dict[str, Any] = {"ha": "right", "va": "top", "rotation": 90}
        at = (level[0], 0.98 if firm else 1)
        note(axes, level[1], at, of="x", firm=firm, **(along if firm else above))


def note(
    axes: Axes,
    text: str,
    at: tuple[Number, Number],
    *,
    of: str,
    firm: bool = False,
    **placed: Any,
) -> None:
    """A few small words at a place on one axis, "x" or "y"; on the other, 0 to 1 of its length."""
    xycoords = ("data", "axes fraction") if of == "x" else ("axes fraction", "data")
    colour = INK if firm else FAINT
    axes.annotate(text, at, xycoords=xycoords, fontsize=_SMALL, color=colour, **placed)


def numbers(values: Numbers) -> Float64[np.ndarray, " n"]:
    """With nan, which is not drawn, for what is not known."""
    return np.array([np.nan if value is None else value for value in values], np.float64)


def short(name: str) -> str:
    """A name as it fits beside an axis."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1].rstrip() + "…"


def _level_line(firm: bool) -> dict[str, Any]:
    return {
        "color": INK if firm else FAINT,
        "linestyle": "--" if firm else ":",
        "linewidth": 1,
    }
