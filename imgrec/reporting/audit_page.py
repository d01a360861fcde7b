"""What an audit of a data set found, as one HTML file that needs nothing else.

Pictures and charts are inside the file, so it can be mailed, and opened without network.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from imgrec.data import audit as audits
from imgrec.data import fingerprints
from imgrec.data.audit import Audit
from imgrec.data.dataset import Official

_SIDE = 96  # pixels of a picture's longer side, at most
_MOST_COPIES = 60
_MOST_CLASSES = 60  # of which samples are shown
_SAMPLES = 8  # of each
_CHART = (720, 160)  # pixels


def render(found: Audit, official: Official) -> str:
    """The page.

    Args:
      found: what was found.
      official: the data set, for its pictures.
    """
    parts = audits.parts_of(official)
    channels = official.info.image_shape[2]

    def picture(split: str, row: int) -> str:
        try:
            return _data_uri(fingerprints.picture(parts[split], row, channels))
        except Exception:  # an image that cannot be read is told of elsewhere on the page
            return ""

    counts = np.array([split.class_counts for split in found.splits])
    shown = _shown_classes(counts.sum(axis=0))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["thousands"] = lambda number: f"{number:,}"
    return environment.from_string(_TEMPLATE).render(
        found=found,
        summary=_summary(found),
        balance=[
            (split.name, _bars(list(split.class_counts), list(found.class_names)))
            for split in found.splits
        ],
        sizes=[
            (split.name, _bars([n for _, n in split.sizes], [size for size, _ in split.sizes]))
            for split in found.splits
            if split.different_sizes > 1
        ],
        copies=[
            (copy, picture(*copy.first[:2]), picture(*copy.second[:2]))
            for copy in found.copies[:_MOST_COPIES]
        ],
        samples=[
            (found.class_names[label], [picture("train", row) for row in rows])
            for label, rows in _samples(official, shown)
        ],
        other_classes=len(found.class_names) - len(shown),
    )


def _summary(found: Audit) -> list[tuple[bool, str]]:
    """(whether it is good, sentence) of each thing a person should know first."""
    lines = []
    for leak in found.leaks:
        count = leak.exact + leak.near
        lines.append(
            (
                not count,
                f"{count:,} of {leak.leaked} have a copy in {leak.known} ({leak.exact:,} of the "
                f"same pixels, {leak.near:,} near-duplicates; {leak.conflicting:,} labelled "
                "otherwise)"
                if count
                else f"No image of {leak.leaked} has a copy in {leak.known}",
            )
        )
    for split in found.splits:
        if split.unreadable:
            lines.append(
                (False, f"images of {split.name} that cannot be read: {len(split.unreadable):,}")
            )
        if split.missing_classes:
            lines.append(
                (False, f"classes missing in {split.name}: {len(split.missing_classes):,}")
            )
        if split.near_empty_classes:
            lines.append(
                (False, f"classes nearly empty in {split.name}: {len(split.near_empty_classes):,}")
            )
    if found.conflicting_copies:
        lines.append(
            (False, f"pairs of copies with different labels: {found.conflicting_copies:,}")
        )
    return lines + [(False, message) for message in found.damaged_files]


def _shown_classes(counts: np.ndarray) -> list[int]:
    """All classes, or of many those with the fewest and the most examples."""
    if len(counts) <= _MOST_CLASSES:
        return list(range(len(counts)))
    order = np.argsort(counts, kind="stable")
    return sorted({*order[: _MOST_CLASSES // 2].tolist(), *order[-_MOST_CLASSES // 2 :].tolist()})


def _samples(official: Official, shown: Sequence[int]) -> list[tuple[int, list[int]]]:
    labels = official.train.labels()
    samples = []
    for label in shown:
        rows = np.flatnonzero(labels == label)
        chosen = np.unique(np.linspace(0, max(0, len(rows) - 1), _SAMPLES).astype(int))
        samples.append((label, rows[chosen].tolist() if len(rows) else []))
    return samples


def _data_uri(image: Image.Image) -> str:
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    if max(image.size) > _SIDE:
        image.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        kind, options = "JPEG", {"quality": 85}
    else:
        kind, options = "PNG", {}
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _bars(values: Sequence[int], names: Sequence[str]) -> Markup:
    """A bar chart as inline SVG; the bars tell name and value under the mouse."""
    width, height = _CHART
    most, step = max([*values, 1]), width / max(1, len(values))
    labelled = len(values) <= 24
    room = 44 if labelled else 0
    parts: list[Any] = []
    for i, (value, name) in enumerate(zip(values, names, strict=True)):
        tall = (height - 16) * value / most
        x, gap = i * step, min(2.0, step / 4)
        parts.append(
            Markup(
                '<rect x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}">'
                "<title>{}: {:,}</title></rect>"
            ).format(x, height - tall, step - gap, tall, name, value)
        )
        if labelled:
            middle = x + step / 2
            parts.append(
                Markup(
                    '<text x="{0:.1f}" y="{1}" transform="rotate(-30 {0:.1f} {1})" '
                    'text-anchor="end">{2}</text>'
                ).format(middle, height + 14, name[:14])
            )
    label = escape(f"{len(values)} bars, the tallest {most:,}")
    return Markup('<svg viewBox="-24 -2 {} {}" role="img" aria-label="{}">{}{}</svg>').format(
        width + 24,
        height + room + 4,
        label,
        Markup('<text x="2" y="10">{:,}</text>').format(most),
        Markup("").join(parts),
    )


_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ found.name }}: what is in the data set</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; color: #222831; max-width: 1060px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #e3e6ea; }
.faint, figcaption { color: #69717c; } figcaption { font-size: 12px; }
table { border-collapse: collapse; } td, th { padding: .25rem .8rem .25rem 0; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr + tr { border-top: 1px solid #e3e6ea; }
.good::before { content: "\\2713  "; color: #2f855a; } .bad::before { content: "!  ";
  color: #c53030; font-weight: bold; } ul.summary { list-style: none; padding: 0; }
svg { width: 100%; max-width: 760px; } svg rect { fill: #3b6ea5; }
svg text { font-size: 10px; fill: #69717c; }
img { width: 80px; height: 80px; object-fit: contain; image-rendering: pixelated;
  background: #f3f4f6; }
.copies { display: flex; flex-wrap: wrap; gap: 14px; } figure { margin: 0; width: 166px; }
.across { outline: 2px solid #dd8b1f; outline-offset: 3px; }
.conflicting figcaption { color: #c53030; }
.class { display: flex; align-items: center; gap: 3px; margin: 3px 0; }
.class span { width: 11rem; overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>{{ found.name }}</h1>
<p class="faint">{{ found.source }}</p>
<ul class="summary">
{%- for good, sentence in summary %}
<li class="{{ 'good' if good else 'bad' }}">{{ sentence }}</li>
{%- endfor %}
</ul>

<h2>Splits</h2>
<table>
<tr><th></th>{% for split in found.splits %}<th>{{ split.name }}</th>{% endfor %}</tr>
{%- macro line(name, attribute) %}
<tr><td>{{ name }}</td>{% for split in found.splits %}
<td>{{ split[attribute] | thousands }}</td>{% endfor %}</tr>
{%- endmacro %}
{{ line("images", "examples") }}
{{ line("different sizes", "different_sizes") }}
{{ line("same pixels as an earlier image", "same_pixels") }}
{{ line("same file as an earlier image", "same_files") }}
{{ line("near-duplicates of an earlier image", "near_duplicates") }}
{{ line("too plain to be compared", "plain") }}
<tr><td>unreadable</td>{% for split in found.splits %}
<td>{{ split.unreadable | length }}</td>{% endfor %}</tr>
<tr><td>largest over smallest class</td>{% for split in found.splits %}
<td>{{ "%.3g" | format(split.imbalance) }}</td>{% endfor %}</tr>
<tr><td>width, median (least to most)</td>{% for split in found.splits %}<td>
{%- if split.width_quantiles %}{{ split.width_quantiles[3] }} ({{ split.width_quantiles[0] }} to
{{ split.width_quantiles[-1] }}){% endif %}</td>{% endfor %}</tr>
<tr><td>height, median (least to most)</td>{% for split in found.splits %}<td>
{%- if split.height_quantiles %}{{ split.height_quantiles[3] }} ({{ split.height_quantiles[0] }} to
{{ split.height_quantiles[-1] }}){% endif %}</td>{% endfor %}</tr>
<tr><td>formats and modes</td>{% for split in found.splits %}<td>
{%- for kind, n in split.formats.items() %}{{ kind }} {{ n | thousands }} {% endfor %}
{%- for kind, n in split.modes.items() %}{{ kind }} {{ n | thousands }} {% endfor %}</td>
{%- endfor %}</tr>
</table>

<h2>Images a class</h2>
{% for name, chart in balance %}<h3>{{ name }}</h3>{{ chart }}{% endfor %}
{% for split in found.splits %}
{% if split.missing_classes %}<p class="bad">No image in {{ split.name }}:
{{ split.missing_classes | join(", ") }}</p>{% endif %}
{% if split.near_empty_classes %}<p class="bad">Nearly empty in {{ split.name }}:
{% for name, n in split.near_empty_classes %}{{ name }} ({{ n }}){{ ", " if not loop.last }}
{%- endfor %}</p>{% endif %}
{% endfor %}
{% if sizes %}
<h2>Sizes, the commonest</h2>
{% for name, chart in sizes %}<h3>{{ name }}</h3>{{ chart }}{% endfor %}
{% endif %}

{% for split in found.splits %}{% for column in split.columns %}
<h2>{{ column.name }} in {{ split.name }}</h2>
<table>
<tr><th>value ({{ column.values }} in all)</th><th>images</th>
{%- if found.class_names | length <= 12 %}{% for name in found.class_names %}<th>{{ name }}</th>
{%- endfor %}{% endif %}</tr>
{%- for group in column.groups %}
<tr><td>{{ group.value }}</td><td>{{ group.examples | thousands }}</td>
{%- if found.class_names | length <= 12 %}{% for n in group.per_class %}<td>{{ n | thousands }}</td>
{%- endfor %}{% endif %}</tr>
{%- endfor %}
</table>
{% endfor %}{% endfor %}

<h2>Copies</h2>
<p class="faint">{{ found.total_copies | thousands }} pairs,
{{ found.conflicting_copies | thousands }} with different labels;
{{ copies | length }} are shown. Framed: across splits.
Near-duplicates correlate by at least {{ found.least_correlation }} at 16x16 pixels; plain drawings
do so without being copies.</p>
<div class="copies">
{%- for copy, first, second in copies %}
<figure class="{{ 'across ' if copy.across }}{{ 'conflicting' if copy.conflicting }}">
<img src="{{ first }}" alt="{{ copy.first[0] }} {{ copy.first[1] }}">
<img src="{{ second }}" alt="{{ copy.second[0] }} {{ copy.second[1] }}">
<figcaption>{{ copy.first[0] }} {{ copy.first[1] }}, {{ copy.second[0] }} {{ copy.second[1] }}<br>
{{ found.class_names[copy.first[2]] }}
{%- if copy.conflicting %} / {{ found.class_names[copy.second[2]] }}{% endif %},
{{ "same pixels" if copy.kind == "pixels" else "correlation %.3f" | format(copy.correlation) }}
</figcaption></figure>
{%- endfor %}
</div>

{% for split in found.splits %}{% if split.unreadable %}
<h2>Unreadable in {{ split.name }}</h2>
<ul>{% for where, message in split.unreadable[:200] %}<li>{{ where }}: {{ message }}</li>
{%- endfor %}</ul>
{% endif %}{% endfor %}

<h2>Samples of train</h2>
{%- for name, pictures in samples %}
<div class="class"><span>{{ name }}</span>
{%- for source in pictures %}<img src="{{ source }}" alt="{{ name }}">{% endfor %}</div>
{%- endfor %}
{% if other_classes %}<p class="faint">{{ other_classes | thousands }} other classes are not shown;
these have the fewest and the most images.</p>{% endif %}
</body>
</html>
"""
