"""A figure as an SVG file that is cut to what was drawn.

matplotlib finds how far a figure reaches by laying all of it out before it is drawn, which takes
as long as drawing it. Here the renderer notes how far it got while it draws, and the file's frame
is set afterwards. The same figure gives the same file.
"""

import io
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib import colors
from matplotlib.backends.backend_mixed import MixedModeRenderer
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

_MARGIN = 0.06  # inches around what is drawn
_POINTS = 72  # of an inch; the unit of the file
_FRAME = re.compile(r'width="[^"]*" height="[^"]*" viewBox="[^"]*"')


def svg(figure: Figure) -> bytes:
    """The file.

    Its paper is drawn as far as the file reaches; what is rasterised has the figure's resolution.
    """
    stream = io.StringIO()
    resolution = figure.dpi
    width, height = (float(inches) for inches in figure.get_size_inches())
    figure.set_dpi(_POINTS)
    figure.patch.set_visible(False)  # the paper, which reaches as far as the figure
    renderer = _Noting(
        width * _POINTS, height * _POINTS, stream, image_dpi=resolution, metadata={"Date": None}
    )
    mixed: Any = MixedModeRenderer(figure, width, height, resolution, renderer)
    figure.draw(mixed)
    mixed.finalize()

    left, top, right, bottom = renderer.reach
    margin = _MARGIN * _POINTS
    x, y, across, down = (
        f"{number:.3f}"
        for number in (
            left - margin,
            top - margin,
            right - left + 2 * margin,
            bottom - top + 2 * margin,
        )
    )
    head, tag, body = stream.getvalue().partition("<defs>")
    frame = f'width="{across}pt" height="{down}pt" viewBox="{x} {y} {across} {down}"'
    head, framed = _FRAME.subn(frame, head, count=1)
    assert framed, head
    colour = colors.to_hex(figure.get_facecolor())
    paper = f'<rect x="{x}" y="{y}" width="{across}" height="{down}" fill="{colour}"/>\n '
    return (head + paper + tag + body).encode()


class _Noting(RendererSVG):
    """Draws, and keeps how far that reaches: in points from the upper left.

    What is cut to its axes reaches no further than they do, and so does what is rasterised.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.reach = (np.inf, np.inf, -np.inf, -np.inf)

    def get_text_width_height_descent(
        self, s: str, prop: Any, ismath: Any
    ) -> tuple[float, float, float]:
        return _size(s, prop.copy(), ismath)  # a copy, as these can be changed

    def draw_path(self, gc: Any, path: Any, transform: Any, rgbFace: Any = None) -> None:  # noqa: N803
        if gc.get_clip_rectangle() is None:
            self._note(transform.transform(path.vertices))
        super().draw_path(gc, path, transform, rgbFace)

    def draw_markers(
        self,
        gc: Any,
        marker_path: Any,
        marker_trans: Any,
        path: Any,
        trans: Any,
        rgbFace: Any = None,  # noqa: N803
    ) -> None:
        if gc.get_clip_rectangle() is None:
            places = trans.transform(path.vertices)
            marker = marker_trans.transform(marker_path.vertices)
            self._note((places[:, None] + marker).reshape(-1, 2))
        super().draw_markers(gc, marker_path, marker_trans, path, trans, rgbFace)

    def draw_text(
        self,
        gc: Any,
        x: float,
        y: float,
        s: str,
        prop: Any,
        angle: float,
        ismath: Any = False,
        mtext: Any = None,
    ) -> None:
        width, height, descent = self.get_text_width_height_descent(s, prop, ismath)
        turned, tilted = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        along = np.array([0, width, 0, width])
        up = np.array([-descent, -descent, height - descent, height - descent])
        corners = np.stack([along * turned - up * tilted, along * tilted + up * turned], axis=1)
        self._note(corners + np.array([x, self.height - y]))
        super().draw_text(gc, x, y, s, prop, angle, ismath, mtext)

    def _note(self, points: Iterable[Any]) -> None:
        """Points as matplotlib has them, from the lower left."""
        finite = np.asarray(points)
        finite = finite[np.isfinite(finite).all(axis=1)]
        if not len(finite):
            return
        (left, low), (right, high) = finite.min(axis=0), finite.max(axis=0)
        old = self.reach
        self.reach = (
            min(old[0], left),
            min(old[1], self.height - high),
            max(old[2], right),
            max(old[3], self.height - low),
        )


@lru_cache(4096)
def _size(text: str, font: FontProperties, is_math: Any) -> tuple[float, float, float]:
    """Width, height and descent, which charts ask for over and over: of "0.2", of "accuracy"."""
    found: tuple[float, float, float] = text_to_path.get_text_width_height_descent(
        text, font, is_math
    )
    return found
