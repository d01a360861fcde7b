"""Files that appear under their name only when they are whole, and where to remember things."""

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def cache_folder() -> Path:
    """Where things are remembered that can be had again: $IMGREC_CACHE, else ~/.cache/imgrec."""
    return Path(os.environ.get("IMGREC_CACHE") or "~/.cache/imgrec").expanduser()


def writable_bytes(folder: Path) -> int:
    """Bytes left on the disk of a folder, which is made where it lacks.

    Raises:
      OSError: no file can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".probe.{os.getpid()}"
    probe.write_bytes(b"imgrec")
    probe.unlink()
    return shutil.disk_usage(folder).free


@contextmanager
def written_aside(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file beside `path` for writing, which takes its name when the block ends well.

    Folders that lack are made. Where the block raises, whatever had the name before keeps it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of several hosts may write here, too.
    aside = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            yield file
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file by `written_aside`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file by `written_aside`."""
    with written_aside(path) as file:
        file.write(content)
