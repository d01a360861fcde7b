"""The HTML of a page made of parts: one file that needs nothing else, with everything escaped."""

import base64
from collections.abc import Mapping, Sequence

import jinja2

from imgrec.reporting.parts import Details, Part, Picture, Table, Text


def render(
    *,
    title: str,
    about: str,
    shown: Sequence[Part],
    cards: Sequence[tuple[str, str, str]] = (),
    missing: Sequence[tuple[str, str]] = (),
    missing_about: str = "",
) -> str:
    """A whole page.

    Args:
      title: of the page, and its heading.
      about: a sentence below it.
      shown: the parts, in their order.
      cards: (what, value, remark) of the numbers that a reader wants first.
      missing: (what, why) of what could not be had.
      missing_about: a sentence on that.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["data_uri"] = _data_uri
    kinds: Mapping[str, type] = {
        "text": Text,
        "table": Table,
        "picture": Picture,
        "details": Details,
    }
    for name, kind in kinds.items():
        environment.tests[name] = lambda item, kind=kind: isinstance(item, kind)
    html = environment.from_string(_TEMPLATE).render(
        title=title,
        about=about,
        cards=cards,
        shown=shown,
        missing=missing,
        missing_about=missing_about,
    )
    return html + "\n"


def _data_uri(picture: Picture) -> str:
    kind = "svg+xml" if picture.name.endswith(".svg") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(picture.content).decode()}"


_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<link rel="icon" href="data:,">
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222831; max-width: 1120px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { margin: 0; overflow-wrap: anywhere; }
h2 { margin: 2.6rem 0 .2rem; border-bottom: 1px solid #e3e6ea; }
.faint, caption, figcaption { color: #69717c; } caption, figcaption { font-size: 13px; }
caption { caption-side: bottom; text-align: left; padding-top: .3rem; max-width: 48rem; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 1.2rem 0; }
.card { border: 1px solid #e3e6ea; border-radius: 6px; padding: .6rem 1rem; min-width: 9rem; }
.card b { display: block; font-size: 1.5rem; font-weight: 600; }
.card small { color: #69717c; }
nav { margin: 1rem 0; display: flex; flex-wrap: wrap; gap: .2rem .9rem; } a { color: #3b6ea5; }
table { border-collapse: collapse; margin: .8rem 0; } tr + tr { border-top: 1px solid #eef0f3; }
td, th { padding: .2rem 1rem .2rem 0; text-align: left; font-variant-numeric: tabular-nums;
  vertical-align: top; overflow-wrap: break-word; } th { font-weight: 600; color: #69717c; }
.items { display: flex; flex-wrap: wrap; gap: 6px 28px; align-items: flex-start; }
.items > p { flex-basis: 100%; margin: .4rem 0; max-width: 48rem; }
.items > div { max-width: 100%; overflow-x: auto; }
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
<h1>{{ title }}</h1>
<p class="faint">{{ about }}</p>
{%- if cards %}
<div class="cards">
{%- for what, value, remark in cards %}
<div class="card"><small>{{ what }}</small><b>{{ value }}</b><small>{{ remark }}</small></div>
{%- endfor %}
</div>
{%- endif %}
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
<p class="faint">{{ missing_about }}</p>
<ul class="missing">{% for what, why in missing %}
<li><b>{{ what }}</b>: {{ why }}</li>{% endfor %}</ul>
</section>
{%- endif %}
</body>
</html>
"""
