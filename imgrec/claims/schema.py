"""The one definition of a result file: its keys, how it is read, checked and written.

Files of format 2 have every key of `KEYS`, with null where there is nothing to say (a benchmark
of files has no seeds). Older files lack some, since it was not kept when they were measured: they
are read as they are, `lacking` names what is not there, and no one fills it in by hand.
"""

import json
import math
import os
import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imgrec.claims import intervals
from imgrec.errors import UserError
from imgrec.files import write_text

FORMAT = 2

KEYS: Mapping[str, str] = {
    "claim": "what is claimed, in words",
    "metric": "what the numbers are",
    "value": "the number claimed: the mean over seeds, the median over rounds, or the only one",
    "values": "one number a seed, a round or a part",
    "mean": "of the values",
    "std": "of the values, over n - 1; null for a single one",
    "n": "test images of an accuracy, rounds of a comparison, or what else was counted",
    "target": "what was asked for; null where nothing was",
    "reached": "whether the value is as good as that; null where nothing was asked for",
    "rule": "how far another measurement may lie from it: one of imgrec.claims.RULES",
    "seeds": "of the runs; null where nothing is drawn",
    "config": "the experiment, that of the first seed; null where there is none",
    "fingerprint": "of the configuration; null likewise",
    "git_revision": "of the code",
    "git_dirty": "whether the code had changes that were not committed",
    "device": "processor, cores and JAX's backend",
    "versions": "of the packages that results depend on",
    "seconds": "of wall time; null where it means nothing",
    "images_per_second": "likewise",
    "flops": "of the runs, matrix products and convolutions; null where it was not counted",
    "command": "what measures it again; FOLDER stands for data, RUN for a run folder",
}

# What every file has ever had.
_ALWAYS = [
    "claim",
    "metric",
    "values",
    "n",
    "target",
    "reached",
    "device",
    "git_revision",
    "command",
]
# Older names of today's keys.
_ONCE: Mapping[str, str] = {
    "packages": "versions",
    "machine": "device",
    "config_hash": "fingerprint",
}


def root() -> Path:
    """The folder in which `results/` and `runs/` of what is measured lie.

    This checkout, or what the environment variable IMGREC_MEASURED names: by it a claim is
    measured again without touching what is recorded.
    """
    return Path(os.environ.get("IMGREC_MEASURED") or Path(__file__).parents[2])


def load(path: Path) -> dict[str, Any]:
    """One result by today's names of its keys.

    Raises:
      UserError: the file cannot be read, or is no result.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}). Restore it: git checkout {path}"
        ) from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is no result: expected an object with the keys {', '.join(KEYS)}.")
    result = {_ONCE.get(name, name): value for name, value in found.items()}
    check(result, str(path))
    return result


def load_all(folder: Path) -> dict[str, dict[str, Any]]:
    """Every result of a folder by its name, which is that of its file."""
    return {path.stem: load(path) for path in sorted(folder.glob("*.json"))}


def lacking(result: Mapping[str, Any]) -> list[str]:
    """The keys of today that a result of an older format was written without."""
    return [name for name in KEYS if name not in result]


def check(result: Mapping[str, Any], where: str = "the result") -> None:
    """Refuses what is no result, naming all that is wrong with it.

    Raises:
      UserError: keys lack (all of `KEYS` are asked of format 2), or a value cannot be.
    """
    needed = KEYS if result.get("format", 1) >= FORMAT else _ALWAYS
    wrong = [f"it lacks {name!r} ({KEYS[name]})" for name in needed if name not in result]
    for name, (holds, expected) in _EXPECTED.items():
        if name in result and not holds(result[name]):
            wrong.append(f"{name!r} is {result[name]!r}; expected {expected}")
    if not wrong:
        values, mean, std = result["values"], result.get("mean"), result.get("std")
        if mean is not None and not _close(mean, statistics.fmean(values)):
            wrong.append(f"'mean' is {mean}, and that of 'values' {statistics.fmean(values)}")
        if std is not None and not (len(values) > 1 and _close(std, statistics.stdev(values))):
            wrong.append(f"'std' is {std}, and 'values' have another")
        seeds = result.get("seeds")
        if seeds is not None and len(seeds) != len(values):
            wrong.append(f"{len(seeds)} 'seeds' have {len(values)} 'values'")
    if wrong:
        raise UserError(f"{where} is no result: " + "; ".join(wrong) + ".")


def complete(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result of today's format: what follows from its values is computed, the rest is null.

    Args:
      result: of a measurement; keys beyond `KEYS` are kept behind them.
    """
    values = result["values"]
    mean = statistics.fmean(values)
    given = {_ONCE.get(name, name): value for name, value in result.items()}
    rule = intervals.rule(given)
    of_mean = "mean" in result or rule == "seeds"
    known = {
        "mean": mean,
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "value": result.get("median", mean if of_mean else values[0]),
        "rule": rule,
    }
    return {"format": FORMAT, **dict.fromkeys(KEYS), **known, **given}


def write(path: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """Completes, checks and writes a result, aside first, so that it is there whole or not at all.

    Raises:
      UserError: it is no result; nothing is written then.
    """
    check(result, str(path))  # before anything is computed from its values
    whole = complete(result)
    check(whole, str(path))
    write_text(path, json.dumps(whole, indent=2) + "\n")
    return whole


def _close(a: int | float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12)


def _is_number(value: Any) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and math.isfinite(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


_EXPECTED: Mapping[str, tuple[Any, str]] = {
    "claim": (_is_text, "words"),
    "metric": (_is_text, "words"),
    "value": (_is_number, "a finite number"),
    "values": (
        lambda v: isinstance(v, list) and bool(v) and all(map(_is_number, v)),
        "finite numbers, one at least",
    ),
    "n": (lambda v: isinstance(v, int) and v > 0, "a positive count"),
    "target": (lambda v: v is None or _is_number(v), "a finite number or null"),
    "reached": (lambda v: v is None or isinstance(v, bool), "true, false or null"),
    "rule": (lambda v: v in intervals.RULES, "a rule that is known"),
    "seeds": (
        lambda v: v is None or (isinstance(v, list) and all(isinstance(s, int) for s in v)),
        "integers or null",
    ),
    "config": (lambda v: v is None or isinstance(v, dict), "an experiment or null"),
    "fingerprint": (
        lambda v: v is None or bool(re.fullmatch("[0-9a-f]{12}", str(v))),
        "twelve hex digits or null",
    ),
    "git_revision": (lambda v: bool(re.fullmatch("[0-9a-f]{40}", str(v))), "forty hex digits"),
    "device": (_is_text, "words"),
    "command": (_is_text, "a command"),
}
