"""A manifest: a table of image files with the columns `path`, `label`, and perhaps `split`.

All other columns are carried along: groups to keep together, or to report on. Paths are
relative to the manifest's own folder.
"""

import csv
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imgrec.data.assign import UNDECIDED
from imgrec.data.listing import SPLIT_NAMES, Listing, listed
from imgrec.errors import UserError, unknown

SUFFIXES = (".csv", ".jsonl", ".parquet")
_REQUIRED = ("path", "label")
Row = Mapping[str, Any]


def read(manifest: Path) -> Listing:
    """Lists the files of a manifest, in its order.

    Raises:
      UserError: it cannot be read, lacks a column or a value, names a file twice, or files that
        are not there.
    """
    rows = _rows(manifest)
    if not rows:
        raise UserError(f"The manifest {manifest} has no rows.")
    for name in _REQUIRED:
        for number, row in enumerate(rows, 1):
            if _text(row.get(name)) == "":
                raise UserError(
                    f"Row {number} of {manifest} has no {name!r}. The columns 'path' and 'label' "
                    f"are required, 'split' is not; found: {', '.join(row) or 'none'}."
                )
    names = [_text(row["path"]) for row in rows]
    paths = [manifest.parent / Path(name).expanduser() for name in names]
    _check_paths(manifest, names, paths)
    columns = dict.fromkeys(name for row in rows for name in row)
    others = [name for name in columns if name not in (*_REQUIRED, "split")]
    return Listing(
        paths=paths,
        names=names,
        labels=[_text(row["label"]) for row in rows],
        splits=_splits(manifest, rows),
        columns={name: [_text(row.get(name)) for row in rows] for name in others},
    )


def _rows(manifest: Path) -> list[Row]:
    readers = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    try:
        return readers[manifest.suffix.lower()](manifest)
    except (OSError, ValueError, csv.Error) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"The manifest {manifest} cannot be read: {what}.") from None


def _csv(manifest: Path) -> list[Row]:
    with manifest.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True)
        rows: list[Row] = []
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(
                    f"line {reader.line_num} has not the {len(reader.fieldnames or ())} fields of "
                    "the first line (quote values that hold commas)"
                )
            rows.append(row)
        return rows


def _jsonl(manifest: Path) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(manifest.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} is no JSON ({error})") from None
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is no JSON object with the keys 'path' and 'label'")
        rows.append(row)
    return rows


def _parquet(manifest: Path) -> list[Row]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            f"Reading {manifest} needs pyarrow: pip install pyarrow. Or save the table as .csv."
        ) from None
    return parquet.read_table(manifest).to_pylist()


def _text(value: Any) -> str:
    """A value as text; a whole float as its int, since tables with gaps make floats of ints."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _splits(manifest: Path, rows: list[Row]) -> list[int]:
    given = [_text(row.get("split")).lower() for row in rows]
    if not any(given):
        return [UNDECIDED] * len(rows)
    for number, split in enumerate(given, 1):
        if not split:
            raise UserError(
                f"Row {number} of {manifest} has no split, and others have one. Fill the column "
                "'split' in everywhere, or remove it to have all images split by their content."
            )
        if split not in SPLIT_NAMES:
            raise unknown(f"split in row {number} of {manifest}", split, SPLIT_NAMES)
    return [SPLIT_NAMES[split] for split in given]


def _check_paths(manifest: Path, names: list[str], paths: list[Path]) -> None:
    counts = Counter(paths)
    if twice := [name for name, path in zip(names, paths, strict=True) if counts[path] > 1]:
        raise UserError(
            f"{manifest} names {len(set(twice)):,} file{'s' * (len(set(twice)) > 1)} more than "
            f"once:{listed(sorted(set(twice)))}\nKeep one row of each."
        )
    if absent := [name for name, path in zip(names, paths, strict=True) if not path.is_file()]:
        raise UserError(
            f"{len(absent):,} of {len(names):,} files that {manifest} names are not there:"
            f"{listed(absent)}\nPaths are relative to {manifest.parent.resolve()}; restore the "
            "files, or remove their rows."
        )
