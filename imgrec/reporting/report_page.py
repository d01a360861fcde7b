"""What is known of a trained model, as one HTML file that needs nothing else.

Pictures are inside the file, so it can be mailed, and opened without network. A section of
`metrics.json` becomes a part of the page by the function of its name in `sections`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgrec.reporting import frame, parts
from imgrec.reporting.parts import Numbers, Part, of
from imgrec.reporting.sections import (
    classification,
    confidence,
    features,
    groups,
    pictures,
    robustness,
    unknown,
)
from imgrec.reporting.sections import history as curves
from imgrec.reporting.units import percent

# In the order of the page. Each takes the section's numbers, and its material if it has some.
_SECTIONS: Mapping[str, Callable[..., Part]] = {
    "classification": classification.classification,
    "ranking": classification.ranking,
    "calibration": confidence.calibration,
    "selective": confidence.selective,
    "conformal": confidence.conformal,
    "imbalance": groups.imbalance,
    "groups": groups.groups,
    "label_errors": groups.label_errors,
    "robustness": robustness.corruptions,
    "sweeps": robustness.sweeps,
    "dose_response": robustness.dose_response,
    "published": robustness.published,
    "adversarial": robustness.adversarial,
    "representations": features.representations,
    "likeness": features.likeness,
    "unseen": unknown.unseen,
    "open_set": unknown.open_set,
    "new_classes": unknown.new_classes,
    "galleries": pictures.galleries,
    "explanations": pictures.explanations,
}


@dataclass(frozen=True)
class Page:
    """A report and the files of its pictures, by name."""

    html: str
    files: Mapping[str, bytes]


def part(section: str, numbers: Numbers, material: Mapping[str, Any] | None = None) -> Part:
    """A section of `metrics.json` as a part of the page.

    Args:
      section: its name.
      numbers: that it found.
      material: arrays for its pictures, where it has some.
    """
    return _SECTIONS[section](numbers, *([material] if material else []))


def render(
    numbers: Numbers,
    drawn: Mapping[str, Part],
    *,
    name: str,
    history: Sequence[Mapping[str, Any]] = (),
    seconds: Mapping[str, float] | None = None,
    cost: Mapping[str, Any] | None = None,
) -> Page:
    """The page.

    Args:
      numbers: what `metrics.json` holds.
      drawn: the sections' parts; and "history", `learning_curves` that were drawn before.
      name: of the run.
      history: lines of the run's `metrics.jsonl`.
      seconds: `seconds.json` of the run.
      cost: `cost.json` of it.
    """
    shown = [drawn[section] for section in _SECTIONS if section in drawn]
    if went := drawn.get("history") or curves.history(history):
        shown.append(went)
    if spent := curves.time_spent(seconds or {}, cost or {}):
        shown.append(spent)
    missing = {name.replace("_", " "): why for name, why in numbers.get("missing", {}).items()}
    html = frame.render(
        title=f"{name} on {numbers['dataset']}, {numbers['split']}",
        about=_about(numbers),
        cards=_cards(numbers),
        shown=shown,
        missing=list(missing.items()),
        missing_about="Sections that could not be had, and why.",
    )
    files = {p.name: p.content for part in shown for p in parts.pictures(part.items)}
    return Page(html, files)


def learning_curves(path: Path) -> dict[str, Part]:
    """{"history": the curves of a `metrics.jsonl`}, or nothing where there are too few lines."""
    found = curves.history(history(path))
    return {"history": found} if found else {}


def history(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`; none where it is not there, and a torn last line is left."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def json_object(path: Path) -> dict[str, Any]:
    """What a JSON file of the run holds; nothing where it is not there or torn."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _about(numbers: Numbers) -> str:
    """One sentence on what was evaluated."""
    parts_of = [f"{numbers['split']} of {numbers['dataset']}"]
    if "n" in numbers:
        parts_of.append(f"{numbers['n']:,} images")
    if "step" in numbers:
        parts_of.append(f"parameters of step {numbers['step']:,}")
    source = f" {numbers['source']}." if "source" in numbers else ""
    return ", ".join(parts_of) + "." + source


def _cards(numbers: Numbers) -> list[tuple[str, str, str]]:
    """(what, value, interval) of the numbers that a reader wants first."""
    cards = []

    def add(what: str, value: float | None, interval: Sequence[float] | None) -> None:
        if value is not None:
            between = interval and f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f} %"
            cards.append((what, percent(value), between or ""))

    if "accuracy" in numbers:
        add("accuracy", numbers["accuracy"], of(numbers, "accuracy"))
        add("balanced accuracy", numbers["balanced_accuracy"], of(numbers, "balanced_accuracy"))
        worst = min(numbers["per_class"], key=lambda c: c["recall"])
        add(f"hardest class: {worst['name']}", worst["recall"], of(worst, "recall"))
    calibration = (numbers.get("calibration") or {}).get("before")
    if calibration:
        key = "ece_equal_width_15"
        add("calibration error", calibration[key], of(calibration, key))
    return cards
