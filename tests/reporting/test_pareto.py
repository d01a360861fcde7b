"""What is worth its cost, and how it is drawn."""

from imgrec.reporting import pareto
from imgrec.reporting.pareto import Option

OPTIONS = [
    Option("dear", 100.0, 0.9),
    Option("worse and dearer", 50.0, 0.6),
    Option("cheap", 1.0, 0.5),
    Option("as good, dearer", 20.0, 0.7),
    Option("middle", 10.0, 0.7),
    Option("as cheap, worse", 1.0, 0.4),
]


def test_the_front_is_what_nothing_beats():
    assert [o.name for o in pareto.front(OPTIONS)] == ["cheap", "middle", "dear"]
    low = pareto.front(OPTIONS, good_is_high=False)
    assert [o.name for o in low] == ["as cheap, worse"]
    assert pareto.front(OPTIONS[:1]) == OPTIONS[:1]


def test_a_chart_is_the_same_from_run_to_run():
    drawn = [pareto.chart(OPTIONS, x_label="FLOP", y_label="accuracy", base="cheap")] * 2
    assert drawn[0] == drawn[1]
    assert drawn[0].startswith(b"<?xml")
    pareto.chart([Option("a", 1.0, 0.5), Option("b", 1.0, 0.5)], x_label="", y_label="")
