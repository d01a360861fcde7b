"""Image files as people name them: one by one, by folder, by pattern, or in a list."""

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from imgrec.data.listing import SUFFIXES
from imgrec.errors import UserError


def find(given: Sequence[str], listed: Iterable[str] = ()) -> list[Path]:
    """The files that are meant, in the order given, each once.

    A folder stands for the image files below it, sorted; hidden ones and other kinds are left
    out. A file named by itself is taken whatever its suffix, and a pattern ("*.png", "**" for
    folders within folders) for what it matches. "-" stands for `listed`.

    Args:
      given: paths, patterns, or "-".
      listed: lines with a path each, as from standard input.

    Raises:
      UserError: a path is not there, a pattern matches nothing, a folder holds no image, or nothing
        is given.
    """
    if not given:
        raise UserError(
            "Which images? Give files, folders, patterns in quotes ('photos/**/*.jpg'), or - to "
            "read a list of paths from standard input."
        )
    found: dict[Path, None] = {}
    for text in given:
        if text == "-":
            lines = (line.rstrip("\n") for line in listed)
            found |= {Path(line).expanduser(): None for line in lines if line.strip()}
        else:
            found |= dict.fromkeys(_meant(text))
    if not found:
        raise UserError("Standard input listed no path.")
    return list(found)


def _meant(text: str) -> list[Path]:
    path = Path(text).expanduser()
    if path.is_dir():
        files = _below(path)
        if not files:
            raise UserError(
                f"There is no image below {text}; expected files with one of the suffixes "
                f"{', '.join(SUFFIXES)}."
            )
        return files
    if path.exists():
        return [path]
    if not glob.has_magic(text):
        raise UserError(f"{text} is not there.")
    # Path.glob takes no absolute pattern.
    matched = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207
    files = [p for p in matched if p.is_file()]
    if not files:
        raise UserError(f"The pattern {text!r} matches no file.")
    return files


def _below(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
