"""Official raw files on disk: where they are looked for, and what is said when they are not.

Nothing is unpacked to disk and nothing is downloaded. A file that is missing, damaged or
another one than its name says ends in a `UserError` that names it and what belongs there.
"""

import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from imgrec.errors import UserError

_CHUNK = 1 << 20
_MOST_NAMES_LISTED = 12


def folders(root: Path, name: str) -> list[Path]:
    """Where the files of a data set may lie: a folder named after it, before the root itself."""
    return [root / name, root / name.replace("_", "-"), root]


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """Opens a file for reading, through gzip where its content (not its name) is gzip.

    Raises:
      UserError: on entering or while reading, the file cannot be read or its gzip is broken.
    """
    try:
        with path.open("rb") as raw:
            if raw.peek(2)[:2] != b"\x1f\x8b":
                yield raw
                return
            with gzip.open(raw) as unpacked:
                yield unpacked
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(path, f"its gzip compression is broken or cut off ({error})") from None
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from None


def read(stream: io.BufferedIOBase | IO[bytes], count: int) -> bytes:
    """Reads `count` bytes, or fewer where the stream ends.

    In chunks, so that a damaged header which promises terabytes does not allocate them.
    """
    buffer = io.BytesIO()
    while chunk := stream.read(min(_CHUNK, count - buffer.tell())):
        buffer.write(chunk)
    return buffer.getvalue()


def damaged(path: Path | str, what: str) -> UserError:
    """The error for a file that is there but is not what it should be."""
    return UserError(f"{path} is damaged or not the official file: {what}. Fetch it again.")


def missing(
    name: str, root: Path, expected: str, absent: Sequence[str] = (), hint: str = ""
) -> UserError:
    """The error for official files that are not there.

    Args:
      name: of the data set.
      root: folder that was searched, together with its subfolder `name`.
      expected: which files belong there.
      absent: those of them that are not there, where others are.
      hint: a sentence on what was found, where it explains itself.
    """
    if not root.is_dir():
        found = f"{root} is not a folder."
    else:
        names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
        listed = ", ".join(names[:_MOST_NAMES_LISTED]) or "nothing"
        found = f"{root} holds {listed}{', ...' * (len(names) > _MOST_NAMES_LISTED)}."
    lacking = f" Missing: {', '.join(absent)}." if absent else ""
    return UserError(
        f"The official files of {name!r} are not in {root} or {root / name}.{lacking} {found} "
        f"Expected: {expected}. {hint + ' ' if hint else ''}Say where they are with "
        "--config.data.root=FOLDER or the environment variable IMGREC_DATA. Data prepared by "
        f"TensorFlow Datasets is read with --config.data.dataset=tfds:{name}."
    )
