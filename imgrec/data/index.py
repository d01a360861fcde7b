"""What is in image files: each is read, hashed and fully decoded once, and that is remembered.

A file that is truncated or damaged is so found before the first step, not in the middle of an
epoch. The second start asks each file only for its size and time of change.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import PIL
from rich.console import Console
from rich.progress import track

from imgrec.data import decode
from imgrec.errors import UserError
from imgrec.files import cache_folder

_FORMAT = 1  # of the remembered file; another one is not read
_LISTED = 10
_SHOWN_FROM = 500  # files to read, that a progress bar is worth


class Entry(NamedTuple):
    """What one file holds.

    Attributes:
      hash: hexadecimal BLAKE2b of its bytes, 128 bits; "" where it cannot be opened.
      width: in pixels, upright; 0 if it is broken.
      height: likewise.
      fault: why it cannot be read as an image; "" if it can.
    """

    hash: str
    width: int
    height: int
    fault: str


@dataclass(frozen=True)
class Memory:
    """What is remembered between starts about the files of one data set."""

    path: Path

    def load(self) -> dict[str, Any]:
        """{"files": {path: [size, time, *Entry]}, "statistics": {key: values}}; or empty ones."""
        empty: dict[str, Any] = {"files": {}, "statistics": {}}
        try:
            saved = json.loads(self.path.read_text())
            return saved if saved["version"] == _version() else empty
        except (OSError, ValueError, KeyError, TypeError):
            return empty

    def save(self, content: Mapping[str, Any]) -> None:
        """Writes aside and renames. A folder that cannot be written only costs the next start."""
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps({"version": _version(), **content}))
            aside.replace(self.path)
        except OSError:
            with contextlib.suppress(OSError):
                aside.unlink()


def memory_of(dataset: Path) -> Memory:
    """Where a data set is remembered: $IMGREC_CACHE/index, else ~/.cache/imgrec/index."""
    name = hashlib.blake2b(os.fsencode(dataset.resolve()), digest_size=10).hexdigest()
    return Memory(cache_folder() / "index" / f"{name}.json")


def _version() -> list[object]:
    # Another Pillow may read what this one cannot.
    return [_FORMAT, PIL.__version__]


def scan(paths: Sequence[Path], threads: int, memory: Memory) -> list[Entry]:
    """What each file holds, in the order given.

    Args:
      paths: of the files.
      threads: that read and decode.
      memory: where what is known of them is looked up first, and saved.
    """
    content = memory.load()
    known, found = content["files"], dict[str, list[Any]]()
    stamps = [_stamp(path) for path in paths]
    unknown = []
    for path, stamp in zip(paths, stamps, strict=True):
        saved = known.get(str(path))
        if stamp is not None and saved is not None and saved[:2] == stamp:
            found[str(path)] = saved
        else:
            unknown.append((path, stamp))
    entries = {path: Entry(*found[str(path)][2:]) for path in paths if str(path) in found}
    with ThreadPoolExecutor(threads) as pool:
        read = pool.map(_read, [path for path, _ in unknown])
        for (path, stamp), entry in zip(unknown, _shown(read, len(unknown)), strict=True):
            entries[path] = entry
            if stamp is not None:
                found[str(path)] = [*stamp, *entry]
    if unknown or found.keys() != known.keys():
        memory.save({**content, "files": found})
    return [entries[path] for path in paths]


def refuse(faults: Mapping[str, str], what_else: str = "") -> UserError:
    """The error for files that are no readable images.

    Args:
      faults: name of the file -> what is wrong with it.
      what_else: a sentence on another way out.
    """
    listed = "\n  ".join(f"{name}: {fault}" for name, fault in list(faults.items())[:_LISTED])
    more = len(faults) - _LISTED
    return UserError(
        f"{len(faults):,} image file{'s' * (len(faults) > 1)} cannot be read:\n  {listed}"
        + (f"\n  ... and {more:,} more" if more > 0 else "")
        + "\nRestore them, or leave them out with --config.data.on_bad_image=skip, which says how "
        f"many. {what_else}".rstrip()
    )


def _stamp(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _read(path: Path) -> Entry:
    try:
        encoded = path.read_bytes()
    except OSError as error:
        return Entry("", 0, 0, error.strerror or str(error))
    digest = hashlib.blake2b(encoded, digest_size=16).hexdigest()
    try:
        width, height = decode.check(encoded)
    except decode.BrokenImageError as error:
        return Entry(digest, 0, 0, str(error))
    return Entry(digest, width, height, "")


def _shown(read: Any, total: int) -> Any:
    """The same, with a bar on a terminal where there is much to read."""
    console = Console(stderr=True)
    if total < _SHOWN_FROM or not console.is_terminal:
        return read
    return track(read, "reading images", total, console=console, transient=True)
