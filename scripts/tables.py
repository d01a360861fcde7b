"""Writes README's results tables from `results/*.json`, between its markers.

    python scripts/tables.py           # make tables
    python scripts/tables.py --check   # exits with 1 where README and results differ

No number of the README is typed by hand.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MARKERS = re.compile(r"(<!-- results -->\n).*?(<!-- end of results -->)", re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    readme = ROOT / "README.md"
    before = readme.read_text()
    after = render(before, load(ROOT / "results"))
    if before == after:
        return 0
    if arguments.check:
        print("README.md and results/ differ; run: make tables", file=sys.stderr)
        return 1
    readme.write_text(after)
    return 0


def load(folder: Path) -> dict[str, dict[str, Any]]:
    """Every result by its name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def render(readme: str, results: dict[str, dict[str, Any]]) -> str:
    """The README with its tables made from the results."""
    accuracies = {k: r for k, r in results.items() if r["metric"] == "test accuracy"}
    others = {k: r for k, r in results.items() if k not in accuracies}
    lines = [
        "| claim | test accuracy | runs | test images | seconds a run | images/s | again by |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_accuracy_row(name, result) for name, result in accuracies.items()]
    lines += ["", "| claim | measured | asked | again by |", "| --- | --- | --- | --- |"]
    lines += [_other_row(result) for result in others.values()]
    for result in others.values():
        lines += _few_images_table(result)
    devices = sorted({result["device"] for result in results.values()})
    lines += ["", f"Measured on: {'; '.join(devices)}."]
    text = "\n".join(lines) + "\n"
    found = MARKERS.search(readme)
    if found is None:
        raise SystemExit("README.md has lost its markers <!-- results --> ... ")
    return readme[: found.start()] + found[1] + text + found[2] + readme[found.end() :]


def _accuracy_row(name: str, r: dict[str, Any]) -> str:
    spread = "" if r["std"] is None else f" ± {r['std'] * 100:.2f}"
    seconds = f"{sum(r['seconds']) / len(r['seconds']):,.0f}"
    speed = f"{sum(r['images_per_second']) / len(r['images_per_second']):,.0f}"
    return (
        f"| {r['claim']} (asked: {r['target'] * 100:g} %) | {r['mean'] * 100:.2f} %{spread} "
        f"| {len(r['values'])} | {r['n']:,} | {seconds} | {speed} "
        f"| `python scripts/measure.py {name} --data_root=FOLDER` |"
    )


def _other_row(r: dict[str, Any]) -> str:
    value = r.get("median", r.get("mean", r["values"][0]))
    asked = "–" if r["target"] is None else f"{r['target']:g}"
    return f"| {r['claim']} | {r['metric']} {value:.4g} | {asked} | `{r['command']}` |"


def _few_images_table(r: dict[str, Any]) -> list[str]:
    """Test accuracy of every method by the number of training images, where a study has it."""
    counts: dict[str, dict[str, Any]] = r.get("accuracy_by_images_a_class", {})
    if not counts:
        return []
    methods = list(next(iter(counts.values())))
    study = r["claim"].partition(":")[0]
    lines = [
        "",
        f"| {study}: images a class | {' | '.join(methods)} |",
        "| --- " * (len(methods) + 1) + "|",
    ]
    for count, found in counts.items():
        cells = [f"{found[m]['mean'] * 100:.1f} ± {found[m]['std'] * 100:.1f}" for m in methods]
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
