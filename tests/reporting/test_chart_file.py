"""The file of a figure: all that is drawn lies in its frame, and little more."""

import re
import xml.etree.ElementTree as ET

import pytest

from imgrec.reporting import chart_file, chart_style


def frame(svg):
    """Left, top, right and bottom of the view box, after the size was compared with it."""
    root = ET.fromstring(svg)
    left, top, width, height = (float(number) for number in root.get("viewBox").split())
    assert (root.get("width"), root.get("height")) == (f"{width:.3f}pt", f"{height:.3f}pt")
    return left, top, left + width, top + height


def drawn(**changes):
    with chart_style.styled():
        figure, axes = chart_style.framed((4.0, 3.0), changes.pop("title", ""))
        axes.plot([0, 1], [0, 1], label="line")
        axes.set(**changes)
        return figure, axes


def reach(figure):
    """What matplotlib lays out, in points from the upper left."""
    box = figure.get_tightbbox()
    height = figure.get_size_inches()[1]
    points = (box.x0, height - box.y1, box.x1, height - box.y0)
    return [72 * inches for inches in points]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"title": "title", "xlabel": "gyp", "ylabel": "gyp"},
        {"ylim": (0, 123_456_789), "ylabel": "two\nlines"},
    ],
)
def test_the_frame_is_where_matplotlib_would_have_it(changes):
    figure, _ = drawn(**changes)
    expected = reach(figure)
    with chart_style.styled():
        found = frame(chart_file.svg(figure))
    margin = 0.06 * 72
    for got, at, sign in zip(found, expected, (-1, -1, 1, 1), strict=True):
        assert got == pytest.approx(at + sign * margin, abs=4)


def test_what_is_written_far_outside_is_in_the_frame():
    figure, axes = drawn()
    plain = frame(chart_file.svg(drawn()[0]))
    with chart_style.styled():
        chart_style.note(axes, "turned and far to the right", (1.3, 0.5), of="y", rotation=90)
        chart_style.note(axes, "wide", (0.5, 1.2), of="x")
        left, top, right, bottom = frame(chart_file.svg(figure))
    assert right > plain[2] + 0.25 * 4 * 72 * 0.775 and top < plain[1] - 20
    assert (left, bottom) == pytest.approx((plain[0], plain[3]))


def test_paper_fills_the_frame_and_what_is_cut_to_the_axes_does_not_widen_it():
    figure, axes = drawn(xlim=(0, 1), ylim=(0, 1))
    axes.plot([-50, 50], [-50, 50])
    svg = chart_file.svg(figure).decode()
    left, top, right, bottom = frame(svg)
    assert right - left < 4 * 72 and bottom - top < 3 * 72
    paper = re.search(r'<rect x="(.+?)" y="(.+?)" width="(.+?)" height="(.+?)" fill="#ffffff"', svg)
    x, y, width, height = map(float, paper.groups())
    assert (x, y, x + width, y + height) == pytest.approx((left, top, right, bottom), abs=1e-6)
