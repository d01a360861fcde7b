"""Charts: well-formed, the same from run to run, and saying what they were given."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from imgrec.reporting import charts
from imgrec.reporting.charts import Line

BINS = [
    {"mean_confidence": None, "accuracy": None, "count": 0, "interval": None},
    {"mean_confidence": 0.55, "accuracy": 0.4, "count": 10, "interval": [0.2, 0.6]},
    {"mean_confidence": 0.95, "accuracy": 0.9, "count": 90, "interval": [0.8, 0.95]},
]
CHARTS = {
    "lines": lambda: charts.lines(
        [
            Line("a", [0, 1, 2], [0.1, None, 0.3], [0, 0, 0.2], [0.2, 0.2, 0.4]),
            Line("b", [0, 1, 2], [0.3, 0.2, 0.1], style="--"),
        ],
        x_label="x",
        y_label="y",
        title="lines",
        level=(0.2, "chance"),
        markers=True,
    ),
    "lines, logarithmic": lambda: charts.lines(
        [Line("", [1, 5, 25], [0.1, 0.2, 0.3])], x_label="x", y_label="y", log_x=True
    ),
    "dots": lambda: charts.dots(
        ["one", "two"],
        {"precision": [0.5, None], "recall": [0.2, 1.0]},
        {"precision": [[0.4, 0.6], None]},
        x_label="x",
        level=(0.5, "mean"),
        notes=["n 3", "n 4"],
    ),
    "heat_map": lambda: charts.heat_map(
        [[0.1, 0.5], [None, 0.9]], ["fog", "snow"], ["1", "2"], x_label="severity"
    ),
    "histograms": lambda: charts.histograms(
        [0, 0.5, 1], {"in": [1, 3], "out": [0, 0]}, x_label="score", line=(0.3, "threshold")
    ),
    "bars": lambda: charts.bars(["head", "tail"], {"before": [0.9, None]}, y_label="accuracy"),
    "scatter": lambda: charts.scatter([[0, 1], [2, 3]], [0, 1], ["ant", "bee"]),
    "reliability": lambda: charts.reliability(BINS, BINS),
    "reliability, before alone": lambda: charts.reliability(BINS, None),
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_well_formed_and_the_same_again(name):
    svg = CHARTS[name]()
    assert ET.fromstring(svg).tag.endswith("svg")
    assert svg == CHARTS[name]()
    assert b"<dc:date>" not in svg
    # Nothing is fetched when it is looked at.
    assert not re.findall(rb'(?:href|src)="(?!#|data:)', svg)


def test_names_are_taken_as_they_are():
    svg = charts.bars(["$x^2$", "<b>"], {"a": [0.1, 0.2]}, y_label="$")
    ET.fromstring(svg)
    assert b"<!-- $x^2$ -->" in svg


def test_a_long_name_is_cut():
    svg = charts.bars(["n" * 40], {"a": [0.1]}, y_label="y")
    assert b"n" * 40 not in svg


def test_a_thousand_points_are_no_burden():
    rng = np.random.default_rng(0)
    svg = charts.scatter(rng.normal(size=(2000, 2)).tolist(), [0] * 1000 + [1] * 1000, ["a", "b"])
    assert len(svg) < 300_000
