"""The table of a study: as cells, and as Markdown and CSV made of them."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from imgrec.reporting import markdown
from imgrec.reporting.units import duration, number, p_value, points, quantity

_NOT_SHARES = ("loss", "cohen_kappa", "matthews")
_LOW_IS_GOOD = ("loss",)


def is_share(metric: str) -> bool:
    """Whether a metric is a share, which is written in percent."""
    return metric not in _NOT_SHARES


def good_is_high(metric: str) -> bool:
    """Whether more of a metric is better."""
    return metric not in _LOW_IS_GOOD


def metric_name(metric: str) -> str:
    """A metric in words."""
    return "test " + metric.replace("_", " ").replace(".", " ")


def table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a summary, as texts."""
    metric, published = summary["metric"], summary["published"]
    header = [
        "change",
        f"{metric_name(metric)}, mean ± SD" + (" (%)" if is_share(metric) else ""),
        "difference" + (" (points)" if is_share(metric) else "") + " [95 %]",
        "p (t, Holm)",
        "seeds",
        "parameters",
        "FLOP to train",
        "time a run",
    ]
    if published:
        header.append("published")
    rows = []
    for row in summary["rows"]:
        cells = [
            row["name"],
            _mean(row, is_share(metric)),
            *_difference(row, summary),
            f"{len(row['seeds'])}",
            quantity(row["parameters"], "").strip(),
            quantity(row["flops"], "FLOP"),
            duration(row["seconds"]),
        ]
        if published:
            cells.append(row["published"] or "–")
        rows.append(cells)
    return header, rows


def about_published(summary: Mapping[str, Any]) -> str:
    """A sentence on where the published figures are from; "" where there are none."""
    published = summary["published"]
    if not published:
        return ""
    said = f"Published: {published['source']}: {published['metric']}."
    return f"{said} {published['note']}".rstrip()


def missing(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(which run, what became of it) of all that did not come to their end."""
    found = []
    for row in summary["rows"]:
        for run in row["missing"]:
            last = run["error"].splitlines()[-1:] or [""]
            why = run["status"] + (f": {last[0]}" if last[0] else "")
            found.append((f"{row['name']}, seed {run['seed']}", why))
    return found


def render_markdown(summary: Mapping[str, Any], command: str) -> str:
    """A document with the table and all that belongs to it.

    Args:
      summary: of the study.
      command: that makes it again.
    """
    header, rows = table(summary)
    base = summary["rows"][0]["name"]
    lines = [
        f"# {markdown.escaped(summary['study'])}",
        "",
        markdown.escaped(summary["question"]),
        "",
        markdown.table(header, rows),
        "",
        f"Differences are to {markdown.escaped(base)}, or to the row that is named. "
        + (f"Tested on {summary['n']:,} images. " if summary["n"] else "")
        + f"Made by `{command}`.",
        "",
    ]
    notes = [*([said] if (said := about_published(summary)) else []), *summary["notes"]]
    lines += [markdown.listed(markdown.escaped(note) for note in notes), ""]
    if gone := missing(summary):
        told = [markdown.escaped(f"{which}: {why}") for which, why in gone]
        lines += ["Missing runs:", "", markdown.listed(told), ""]
    return "\n".join(lines)


def rows_csv(summary: Mapping[str, Any]) -> str:
    """A line for each change, with full precision."""
    header = ["change", "against", "seeds", "values", "mean", "std", "difference", "low", "high"]
    header += ["p_t", "p_t_holm", "p_sign_flip", "parameters", "flops", "seconds", "published"]
    lines = []
    for row in summary["rows"]:
        found = row["difference"] or {}
        low, high = (found.get("intervals") or {}).get("difference") or (None, None)
        lines.append(
            [row["name"], row["against"], _joined(row["seeds"]), _joined(row["values"])]
            + [row["mean"], row["std"], found.get("difference"), low, high]
            + [found.get(name) for name in ("p_t", "p_t_holm", "p_sign_flip")]
            + [row[name] for name in ("parameters", "flops", "seconds", "published")]
        )
    return _csv(header, lines)


def runs_csv(summary: Mapping[str, Any]) -> str:
    """A line for each run."""
    header = ["name", "change", "seed", "fingerprint", "status", "value", "parameters", "flops"]
    header += ["seconds", "error"]
    return _csv(header, [[run[name] for name in header] for run in summary["runs"]])


def _mean(row: Mapping[str, Any], share: bool) -> str:
    if row["mean"] is None:
        return "–"
    if share:
        spread = "" if row["std"] is None else f" ± {100 * row['std']:.2f}"
        return f"{100 * row['mean']:.2f}{spread}"
    return f"{row['mean']:.4f}" + ("" if row["std"] is None else f" ± {row['std']:.4f}")


def _difference(row: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    found = row["difference"]
    if found is None:
        return ["–", "–"]
    show = points if is_share(summary["metric"]) else _signed
    text = show(found["difference"], found["intervals"]["difference"])
    base = summary["rows"][0]["name"]
    against = "" if row["against"] == base else f" to {row['against']}"
    return [text + against, p_value(found["p_t_holm"])]


def _signed(value: float | None, interval: Sequence[float] | None) -> str:
    text = number(value, interval, 4)
    return text if value is None or value < 0 else f"+{text}"


def _joined(values: Sequence[Any]) -> str:
    return " ".join(map(str, values))


def _csv(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return out.getvalue()
