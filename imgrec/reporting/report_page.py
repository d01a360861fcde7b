"""What is known of a trained model, as one HTML file that needs nothing else.

Pictures are inside the file, so it can be mailed, and opened without network. A section of
`metrics.json` becomes a part of the page by the function of its name in `sections`.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from imgrec.reporting import parts
from imgrec.reporting.parts import Details, Numbers, Part, Picture, Table, Text, of, percent
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

# In the order of the page. Each takes the section's numbers and its material for pictures.
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


def render(
    numbers: Numbers,
    material: Mapping[str, Mapping[str, Any]],
    *,
    name: str,
    history: Sequence[Mapping[str, Any]] = (),
) -> Page:
    """The page.

    Args:
      numbers: what `metrics.json` holds.
      material: arrays for pictures, by section.
      name: of the run.
      history: lines of the run's `metrics.jsonl`.
    """
    shown: list[Part] = []
    missing = dict(numbers.get("missing", {}))
    for section, make in _SECTIONS.items():
        found = numbers if section == "classification" else numbers.get(section)
        if found is None or section in missing:
            continue
        given = (material[section],) if section in material else ()
        shown.append(make(found, *given))
    if went := curves.history(history):
        shown.append(went)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["data_uri"] = _data_uri
    environment.tests["text"] = lambda item: isinstance(item, Text)
    environment.tests["table"] = lambda item: isinstance(item, Table)
    environment.tests["picture"] = lambda item: isinstance(item, Picture)
    environment.tests["details"] = lambda item: isinstance(item, Details)
    html = environment.from_string(_TEMPLATE).render(
        name=name,
        numbers=numbers,
        cards=_cards(numbers),
        shown=shown,
        missing=missing,
    )
    files = {p.name: p.content for part in shown for p in parts.pictures(part.items)}
    return Page(html + "\n", files)


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


def _data_uri(picture: Picture) -> str:
    kind = "svg+xml" if picture.name.endswith(".svg") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(picture.content).decode()}"


_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ name }} on {{ numbers.dataset }}, {{ numbers.split }}</title>
<link rel="icon" href="data:,">
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222831; max-width: 1120px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { margin: 0; } h2 { margin: 2.6rem 0 .2rem; border-bottom: 1px solid #e3e6ea; }
.faint, caption, figcaption { color: #69717c; } caption, figcaption { font-size: 13px; }
caption { caption-side: bottom; text-align: left; padding-top: .3rem; }
nav { margin: 1rem 0; } nav a { margin-right: .9rem; white-space: nowrap; } a { color: #3b6ea5; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 1.2rem 0; }
.card { border: 1px solid #e3e6ea; border-radius: 6px; padding: .6rem 1rem; min-width: 9rem; }
.card b { display: block; font-size: 1.5rem; font-weight: 600; }
.card small { color: #69717c; }
table { border-collapse: collapse; margin: .8rem 0; } tr + tr { border-top: 1px solid #eef0f3; }
td, th { padding: .2rem 1rem .2rem 0; text-align: left; font-variant-numeric: tabular-nums;
  vertical-align: top; } th { font-weight: 600; color: #69717c; }
.items { display: flex; flex-wrap: wrap; gap: 6px 28px; align-items: flex-start; }
.items > p { flex-basis: 100%; margin: .4rem 0; max-width: 48rem; }
figure { margin: .6rem 0; max-width: 100%; } figure img { max-width: 100%; height: auto; }
figure.wide { flex-basis: 100%; } figcaption { max-width: 34rem; }
figure.wide img { max-width: min(100%, 820px); }
details { margin: .6rem 0; flex-basis: 100%; } summary { cursor: pointer; color: #3b6ea5; }
.missing li { margin: .2rem 0; }
@media print { nav, summary { display: none; } details > * { display: block; } }
</style>
</head>
<body>
{%- macro show(items) %}
<div class="items">
{%- for item in items %}
{%- if item is text %}
<p{% if item.faint %} class="faint"{% endif %}>{{ item.text }}</p>
{%- elif item is table %}
<div><table>{% if item.caption %}<caption>{{ item.caption }}</caption>{% endif %}
<thead><tr>{% for cell in item.header %}<th>{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in item.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{%- elif item is picture %}
<figure{% if item.wide %} class="wide"{% endif %}><img src="{{ item | data_uri }}"
alt="{{ item.caption }}" data-file="{{ item.name }}">
<figcaption>{{ item.caption }}</figcaption></figure>
{%- elif item is details %}
<details><summary>{{ item.summary }}</summary>{{ show(item["items"]) }}</details>
{%- endif %}
{%- endfor %}
</div>
{%- endmacro %}
<h1>{{ name }}</h1>
<p class="faint">{{ numbers.split }} of {{ numbers.dataset }}
{%- if numbers.n %}, {{ "{:,}".format(numbers.n) }} images{% endif %}
{%- if numbers.step is defined %}, parameters of step {{ "{:,}".format(numbers.step) }}{% endif %}.
{%- if numbers.source is defined %} {{ numbers.source }}.{% endif %}</p>
<div class="cards">
{%- for what, value, interval in cards %}
<div class="card"><small>{{ what }}</small><b>{{ value }}</b><small>{{ interval }}</small></div>
{%- endfor %}
</div>
<nav>{% for part in shown %}<a href="#{{ part.anchor }}">{{ part.title }}</a>{% endfor %}
{%- if missing %}<a href="#missing">What is missing</a>{% endif %}</nav>
{%- for part in shown %}
<section id="{{ part.anchor }}">
<h2>{{ part.title }}</h2>
<p class="faint">{{ part.about }}</p>
{{- show(part["items"]) }}
</section>
{%- endfor %}
{%- if missing %}
<section id="missing">
<h2>What is missing</h2>
<p class="faint">Sections that could not be had, and why.</p>
<ul class="missing">{% for name, why in missing.items() %}
<li><b>{{ name.replace("_", " ") }}</b>: {{ why }}</li>{% endfor %}</ul>
</section>
{%- endif %}
</body>
</html>
"""
