"""Claims: what was measured, in one JSON file each, and whether a second measurement agrees.

`results/NAME.json` is one claim. What such a file says is defined in `schema`, how far another
measurement may lie from it in `intervals`, and how one is made of training runs in `of_runs`.
"""

from imgrec.claims.intervals import RULES, Interval, Verdict, compare, interval, rule
from imgrec.claims.of_runs import of_runs
from imgrec.claims.schema import KEYS, check, complete, lacking, load, load_all, root, write

__all__ = [
    "KEYS",
    "RULES",
    "Interval",
    "Verdict",
    "check",
    "compare",
    "complete",
    "interval",
    "lacking",
    "load",
    "load_all",
    "of_runs",
    "root",
    "rule",
    "write",
]
