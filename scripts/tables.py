"""Writes the numbers of README and docs/ from `results/*.json`, between their markers.

    python scripts/tables.py           # make tables
    python scripts/tables.py --check   # exits with 1 where a page and results/ differ

No number of theirs is typed by hand. A table stands between `<!-- results: PART -->` and
`<!-- end of results -->`, PART one of `PARTS`; a number in prose between
`<!-- result: NAME.KEY FORMAT -->` and `<!-- end -->`, FORMAT Python's, as in `.2%`.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imgrec import claims
from imgrec.claims import RULES

ROOT = Path(__file__).parents[1]
TABLE = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end of results -->)", re.DOTALL)
NUMBER = re.compile(r"(<!-- result: (\w+)\.(\w+) (\S+) -->).*?(<!-- end -->)", re.DOTALL)

Result = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    results = claims.load_all(ROOT / "results")
    differ = []
    for page in pages():
        before = page.read_text()
        after = render(before, results)
        if before != after:
            differ.append(str(page.relative_to(ROOT)))
            if not arguments.check:
                page.write_text(after)
    if differ and arguments.check:
        print(f"{', '.join(differ)} and results/ differ; run: make tables", file=sys.stderr)
        return 1
    return 0


def pages() -> list[Path]:
    """All that may show a result."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def render(page: str, results: Mapping[str, Result]) -> str:
    """The page with its tables and numbers made from the results."""

    def table(found: re.Match[str]) -> str:
        return found[1] + "\n".join(PARTS[found[2]](results)) + "\n" + found[3]

    def number(found: re.Match[str]) -> str:
        value = results[found[2]][found[3]]
        return found[1] + format(value, found[4]).replace("%", " %") + found[5]

    return NUMBER.sub(number, TABLE.sub(table, page))


def accuracies(results: Mapping[str, Result]) -> list[str]:
    """A row for each experiment whose test accuracy is claimed."""
    lines = [
        "| claim | test accuracy | asked | seeds | test images | seconds a run | images/s | `ID` |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, r in results.items():
        if not _is_accuracy(r):
            continue
        spread = "" if r["std"] is None else f" ± {r['std'] * 100:.2f}"
        asked = "–" if r["target"] is None else f"{r['target'] * 100:g} %"
        lines.append(
            f"| {r['claim']} | {r['mean'] * 100:.2f} %{spread} | {asked} | {len(r['values'])} "
            f"| {r['n']:,} | {_average(r.get('seconds'))} | {_average(r.get('images_per_second'))} "
            f"| `{name}` |"
        )
    return lines


def measured(results: Mapping[str, Result]) -> list[str]:
    """A row for each other claim, and what measures it again."""
    lines = ["| claim | measured | asked | `ID` | again by |", "| --- | --- | --- | --- | --- |"]
    for name, r in results.items():
        if _is_accuracy(r):
            continue
        asked = "–" if r["target"] is None else f"{r['target']:g}"
        lines.append(
            f"| {r['claim']} | {r['metric']} {_value(r):.4g} | {asked} | `{name}` "
            f"| `{r['command']}` |"
        )
    return lines


def few_images(results: Mapping[str, Result]) -> list[str]:
    """Of each study of few images, test accuracy by method and number of images."""
    lines: list[str] = []
    for r in results.values():
        counts: dict[str, Any] = r.get("accuracy_by_images_a_class", {})
        if not counts:
            continue
        methods = list(next(iter(counts.values())))
        study = r["claim"].partition(":")[0]
        lines += [""] * bool(lines)
        lines += [
            f"| {study}: images a class | {' | '.join(methods)} |",
            "| --- " * (len(methods) + 1) + "|",
        ]
        for count, found in counts.items():
            cells = [f"{found[m]['mean'] * 100:.1f} ± {found[m]['std'] * 100:.1f}" for m in methods]
            lines.append(f"| {count} | {' | '.join(cells)} |")
    return lines


def devices(results: Mapping[str, Result]) -> list[str]:
    """Where all of it was measured."""
    found = sorted({result["device"] for result in results.values()})
    return [f"Measured on: {'; '.join(found)}."]


def rules(results: Mapping[str, Result]) -> list[str]:
    """How a second measurement is compared with the first, and for which claims."""
    lines = ["| rule | expected of another measurement | of |", "| --- | --- | --- |"]
    for rule, said in RULES.items():
        names = [f"`{name}`" for name, result in results.items() if claims.rule(result) == rule]
        lines.append(f"| {rule} | {said} | {', '.join(names) or '–'} |")
    return lines


PARTS = {
    "accuracies": accuracies,
    "measured": measured,
    "few_images": few_images,
    "devices": devices,
    "rules": rules,
}


def _is_accuracy(r: Result) -> bool:
    return r["metric"] == "test accuracy"


def _value(r: Result) -> float:
    # Older results do not name the one of their numbers that is claimed.
    return r.get("value", r.get("median", r.get("mean", r["values"][0])))


def _average(values: list[float] | None) -> str:
    return f"{sum(values) / len(values):,.0f}" if values else "–"


if __name__ == "__main__":
    sys.exit(main())
