"""How a run went: loss and accuracy by step, the learning rate, and where the time went."""

from collections.abc import Mapping, Sequence
from typing import Any

from imgrec.reporting import charts
from imgrec.reporting.charts import Line
from imgrec.reporting.parts import Part, Picture, Table, Text
from imgrec.reporting.units import duration, percent, quantity

_MOST_POINTS = 300
_NAMES = {"train": "training", "validation": "validation", "validation_ema": "validation, averaged"}


def history(lines: Sequence[Mapping[str, Any]]) -> Part | None:
    """Learning curves from the lines of `metrics.jsonl`; None where there are too few of them."""
    items: list[Any] = []
    for metric, label in (("loss", "loss (nats)"), ("accuracy", "accuracy")):
        curves = []
        for group, name in _NAMES.items():
            steps, values = series(lines, f"{group}/{metric}")
            if len(steps) > 1:
                curves.append(Line(name, steps, values))
        if curves:
            items.append(
                Picture(
                    f"history_{metric}.svg",
                    charts.lines(curves, x_label="step", y_label=label),
                    f"The {metric} by step. Training's is the mean of each window between log "
                    "lines, on augmented images and with whatever regularises on, so it may lie "
                    "on the worse side of validation's.",
                )
            )
    steps, rates = series(lines, "train/learning_rate")
    if len(steps) > 1:
        items.append(
            Picture(
                "history_learning_rate.svg",
                charts.lines([Line("", steps, rates)], x_label="step", y_label="learning rate"),
                "The learning rate by step.",
            )
        )
    if not items:
        return None
    return Part("history", "Learning curves", "How training went.", items)


def time_spent(seconds: Mapping[str, float], cost: Mapping[str, Any]) -> Part | None:
    """Where a run's wall time went, and how much of the device its steps used.

    Args:
      seconds: `seconds.json`, by activity and in "total"; without it there is nothing to tell.
      cost: `cost.json`, whose "utilisation" is told where it has one.
    """
    total = seconds.get("total")
    if not total:
        return None
    spent = sorted(((s, name) for name, s in seconds.items() if name != "total"), reverse=True)
    rows = [(name, duration(s), percent(s / total, digits=1)) for s, name in spent]
    items: list[Any] = [
        Table(("activity", "time", "share"), [*rows, ("in all", duration(total), "")])
    ]
    if used := cost.get("utilisation"):
        rate, peak = used["flops_per_second"], used["peak_flops_per_second"]
        items.append(
            Text(
                f"While training, the latest launch did {quantity(rate, 'FLOP')}/s of matrix "
                f"products and convolutions: {percent(used['share'], digits=1)} of "
                f"{quantity(peak, 'FLOP')}/s ({used['peak']})."
            )
        )
    return Part(
        "time",
        "Where the time went",
        "The wall time of all launches by activity. Only steps bring a model forward; the rest is "
        "what a run pays for them.",
        items,
    )


def series(lines: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[Any]]:
    """Steps and values of one scalar, at most 300 of them at equal distances.

    A run that was cut may have logged a step twice; the later line counts.
    """
    found = {line["step"]: line[name] for line in lines if name in line and "step" in line}
    steps = sorted(found)
    every = max(1, -(-len(steps) // _MOST_POINTS))
    kept = [s for i, s in enumerate(steps) if i % every == 0 or i == len(steps) - 1]
    return kept, [found[step] for step in kept]
