"""What a run remembers of images of one's own: the class map, and each file's split.

`classes.json` maps class names to labels. `splits.csv` has a line a file: path, label, split
("skipped" for unreadable ones) and a hash of its bytes.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CLASSES, SPLITS = "classes.json", "splits.csv"
SKIPPED = "skipped"
_COLUMNS = ("path", "label", "split", "hash")
Line = tuple[str, str, str, str]


def write(class_names: Iterable[str], lines: Iterable[Line]) -> dict[str, str]:
    """The files as {name: text}."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    table.writerows([_printable(value) for value in line] for line in lines)
    classes = {_printable(name): label for label, name in enumerate(class_names)}
    return {CLASSES: json.dumps(classes, indent=2) + "\n", SPLITS: text.getvalue()}


def _printable(text: str) -> str:
    """File names on Linux are any bytes; what is not UTF-8 is escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Changes:
    """How the files of a data set differ from those recorded.

    Attributes:
      added: paths of files whose bytes were not there before.
      removed: paths of files whose bytes are no longer there.
      relabelled: "path: cat -> dog" of files that had another label.
      moved: "path: train -> test" of files that were in other splits only.
      classes: "cat: 0 -> 1" of classes whose label changed or that came or went.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    relabelled: tuple[str, ...]
    moved: tuple[str, ...]
    classes: tuple[str, ...]


def changes(saved: Mapping[str, str], now: Mapping[str, str]) -> Changes:
    """Compares two records, files by their bytes: a new name is no change.

    Raises:
      ValueError, KeyError: one of them is no record.
    """
    was, is_now = _read(saved[SPLITS]), _read(now[SPLITS])
    known, present = {line["hash"] for line in was}, {line["hash"] for line in is_now}
    labels_were, labels_are = json.loads(saved[CLASSES]), json.loads(now[CLASSES])
    names = sorted(labels_were.keys() | labels_are.keys())
    return Changes(
        added=tuple(line["path"] for line in is_now if line["hash"] not in known),
        removed=tuple(line["path"] for line in was if line["hash"] not in present),
        relabelled=_changed(was, is_now, "label"),
        moved=_changed(was, is_now, "split"),
        classes=tuple(
            f"{name}: {labels_were.get(name, 'absent')} -> {labels_are.get(name, 'absent')}"
            for name in names
            if labels_were.get(name) != labels_are.get(name)
        ),
    )


def _read(text: str) -> list[dict[str, str]]:
    """The lines but for skipped files, which are in no split."""
    table = csv.DictReader(io.StringIO(text))
    if tuple(table.fieldnames or ()) != _COLUMNS:
        raise ValueError(f"the first line of {SPLITS} is not {','.join(_COLUMNS)}")
    return [line for line in table if line["split"] != SKIPPED]


def _changed(
    was: Iterable[Mapping[str, str]], is_now: Iterable[Mapping[str, str]], column: str
) -> tuple[str, ...]:
    """Files that had only other values in a column. Copies of one file may have several."""
    known: dict[str, set[str]] = {}
    for line in was:
        known.setdefault(line["hash"], set()).add(line[column])
    return tuple(
        f"{line['path']}: {' and '.join(sorted(known[line['hash']]))} -> {line[column]}"
        for line in is_now
        if line["hash"] in known and line[column] not in known[line["hash"]]
    )
