"""Random access to the members of tar archives, which are never unpacked.

A tar is a chain of headers: where a member lies is known only after all before it were seen.
So the headers are read once (of archives within the archive as well, as ImageNet's training
images are packed), and what they say is kept beside the archive. After that an image is one
`pread`, from any thread or process.
"""

import hashlib
import io
import os
import tarfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from jaxtyping import Int64, Shaped
from rich.console import Console
from rich.progress import Progress

from imgrec.errors import UserError
from imgrec.files import cache_folder, written_aside

_FORMAT = 1  # of the cached index
_BLOCK = 512


@dataclass(frozen=True, eq=False)
class Members:
    """The files in an archive, in its order.

    Attributes:
      names: UTF-8; of a file in an archive within, "INNER.tar/NAME".
      offsets: of the first byte of each, in the outermost archive.
      sizes: in bytes.
    """

    names: Shaped[np.ndarray, "members"]
    offsets: Int64[np.ndarray, "members"]
    sizes: Int64[np.ndarray, "members"]


def members(path: Path) -> Members:
    """All regular files of an archive and of the archives (*.tar) in it.

    Reads the headers, or the index that an earlier call left: `<archive>.index.npz` beside it,
    or in $IMGREC_CACHE (else ~/.cache/imgrec) where that folder takes no file.

    Raises:
      UserError: the file cannot be read, is no tar, or is cut short.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from None
    stamp = np.array([_FORMAT, status.st_size, status.st_mtime_ns], np.int64)
    places = (path.with_name(path.name + ".index.npz"), cache_folder() / _cache_name(path))
    for place in places:
        found = _read_index(place, stamp)
        if found is not None:
            return found
    indexed = _index(path, status.st_size)
    for place in places:
        if _write_index(place, stamp, indexed):
            break
    return indexed


class ArchiveReader:
    """Reads byte ranges of one file; safe to share between threads and to send to processes."""

    def __init__(self, path: Path):
        """Opens the file.

        Raises:
          UserError: it cannot be opened.
        """
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise UserError(f"Cannot read {path}: {error.strerror or error}.") from None
        weakref.finalize(self, os.close, self._descriptor)

    def __reduce__(self) -> tuple[type["ArchiveReader"], tuple[Path]]:
        return (ArchiveReader, (self.path,))

    def read(self, offset: int, size: int) -> bytes:
        """The bytes from `offset` on.

        Raises:
          UserError: the file has become shorter, or the disk does not give the bytes.
        """
        try:
            content = os.pread(self._descriptor, size, offset)
            while len(content) < size:  # a call reads 2 GiB at most, or less on a network disk
                more = os.pread(self._descriptor, size - len(content), offset + len(content))
                if not more:
                    raise _cut_short(self.path, offset + len(content), "it was whole when indexed")
                content += more
        except OSError as error:
            raise UserError(
                f"Cannot read {self.path} at byte {offset:,}: {error.strerror or error}."
            ) from None
        return content


def _index(path: Path, size: int) -> Members:
    names: list[bytes] = []
    offsets: list[int] = []
    sizes: list[int] = []
    console = Console(stderr=True)
    with (
        path.open("rb") as stream,
        # The official archive has 138 GB; its 1.3 million headers take minutes, once.
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        bar = progress.add_task(f"index of {path.name}", total=size)
        for name, offset, length in _walk(path, stream, 0, size, ""):
            names.append(name.encode())
            offsets.append(offset)
            sizes.append(length)
            if len(names) % 1000 == 0:
                progress.update(bar, completed=offset)
    return Members(
        np.array(names, dtype=np.bytes_),
        np.array(offsets, np.int64),
        np.array(sizes, np.int64),
    )


def _walk(
    path: Path, stream: IO[bytes], start: int, size: int, prefix: str
) -> Iterator[tuple[str, int, int]]:
    """(name, offset, size) of each file of the archive in the bytes from `start` on."""
    where = f" (in its member {prefix[:-1]})" if prefix else ""
    window = _Window(stream, start, size)
    position = 0
    try:
        archive = tarfile.TarFile(fileobj=window, mode="r")
        for member in archive:
            end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
            if member.isfile() and end > size:
                raise _cut_short(
                    path, start + size, f"{prefix}{member.name} needs bytes up to {start + end:,}"
                )
            position = end if member.isfile() else member.offset_data
            if not member.isfile() or PurePosixPath(member.name).name.startswith("."):
                continue
            name = member.name.removeprefix("./")
            if name.endswith(".tar"):
                begin = start + member.offset_data
                yield from _walk(path, stream, begin, member.size, f"{prefix}{name}/")
            else:
                yield prefix + name, start + member.offset_data, member.size
    except (tarfile.TarError, EOFError) as error:
        if position == 0:
            raise UserError(
                f"{path}{where} is no tar archive ({error}). Is it compressed, or another file? "
                "Fetch it again."
            ) from None
        raise _cut_short(path, start + position, str(error)) from None
    # tarfile takes the end of the file for the end of the archive; a whole one says where it ends.
    window.seek(position)
    if window.read(_BLOCK) != bytes(_BLOCK):
        raise _cut_short(path, start + position, f"the mark of its end is missing{where}")


class _Window(io.RawIOBase):
    """Some bytes of a seekable file, as a file."""

    def __init__(self, stream: IO[bytes], start: int, size: int):
        self._stream = stream
        self._start = start
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._position)
        size = left if size < 0 else min(size, left)
        self._stream.seek(self._start + self._position)  # the walk within moves it
        content = self._stream.read(size)
        self._position += len(content)
        return content


def _cut_short(path: Path, offset: int, why: str) -> UserError:
    return UserError(
        f"{path} is cut short or damaged at byte {offset:,}: {why}. Fetch it again (most "
        "downloaders go on where they stopped), or copy it anew; its index is then made afresh."
    )


def _cache_name(path: Path) -> str:
    told_apart = hashlib.blake2b(str(path.resolve()).encode(), digest_size=8).hexdigest()
    return f"{path.name}.{told_apart}.index.npz"


def _read_index(place: Path, stamp: Int64[np.ndarray, "3"]) -> Members | None:
    """What was kept of this very archive, else None; a damaged index counts as none."""
    try:
        with place.open("rb") as file, np.load(file) as kept:
            if not np.array_equal(kept["stamp"], stamp):
                return None
            return Members(kept["names"], kept["offsets"], kept["sizes"])
    except Exception:  # numpy and zipfile raise a dozen kinds; the archive itself is at hand
        return None


def _write_index(place: Path, stamp: Int64[np.ndarray, "3"], indexed: Members) -> bool:
    try:
        with written_aside(place) as file:
            np.savez_compressed(
                file,
                stamp=stamp,
                names=indexed.names,
                offsets=indexed.offsets,
                sizes=indexed.sizes,
            )
    except OSError:
        return False
    return True
