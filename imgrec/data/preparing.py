"""Writes any data set as the sharded ArrayRecord files that `imgrec.data.prepared` reads.

Every file is written aside, given a checksum and renamed, and `dataset.json` is brought up to
date after each: whenever it stops, what is there is whole, and the same call goes on from it.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL

import imgrec
from imgrec.data import prepared, reencode
from imgrec.data.dataset import Encoded, Official, Source
from imgrec.errors import UserError

_SAMPLE = 128  # images whose sizes decide how many shards are made
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Settings:
    """How a data set is written.

    Attributes:
      short_side: pixels that the shorter side is shrunk to, with antialiasing (bicubic); images
        that are not longer keep their file as it is. 0 keeps all.
      quality: of the JPEG files that shrunk images become, 1 to 100.
      shard_mb: size of a shard in MiB, about.
      workers: threads that read, decode and encode.
    """

    short_side: int = 0
    quality: int = 95
    shard_mb: int = 256
    workers: int = 2

    def __post_init__(self) -> None:
        limits = {"short_side": (0, 65_500), "quality": (1, 100)}
        limits |= {"shard_mb": (1, 1 << 20), "workers": (1, 1024)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"--{name}={value} is impossible; expected {low} to {high:,}.")


@dataclass(frozen=True)
class Outcome:
    """What a call did: files written now, files found whole, and bytes of all of them."""

    written: int
    kept: int
    total_bytes: int


def prepare(
    official: Official,
    folder: Path,
    settings: Settings,
    command: str,
    progress: Callable[[str, int, int], None] = lambda split, done, total: None,
) -> Outcome:
    """Writes what is missing or damaged in the folder; the rest is checked and kept.

    Args:
      official: what to write; image files are stored as they are, arrays as PNG.
      folder: to write to; new, empty, or of an earlier call with the same settings.
      settings: see there.
      command: that a person types to go on; it is kept in the folder for error messages.
      progress: called as images are stored, with the split, those done and those in all.

    Raises:
      UserError: the folder holds something else, is being written by another process or cannot
        be written; the disk is full; an image to be shrunk cannot be read.
    """
    array_record = prepared.import_array_record()
    if official.info.image_shape[2] not in (1, 3):
        raise UserError(
            f"The images of {official.info.name!r} have {official.info.image_shape[2]} channels; "
            "expected 1 (grey) or 3 (RGB), which image files can hold."
        )
    with _owned(folder):
        description = _open(official, folder, settings, command)
        for stale in folder.glob(".*.part"):
            stale.unlink()  # of a process that was killed; nobody else writes here
        found = _whole_files(folder, description)
        _check_space(folder, description, found)
        written = 0
        for name, split in description["splits"].items():
            part = getattr(official, name)
            for entry in (split["index"], *split["shards"]):
                done = entry.get("first", 0) + entry.get("examples", 0)
                if entry["file"] not in found:
                    first = entry.get("first", 0)
                    if "first" in entry:
                        rows = range(first, done)
                        records = _records(part, rows, settings, official.info.image_shape[2])
                        counted = _counted(records, name, first, split["examples"], progress)
                        write = _shard_writer(array_record, counted)
                    else:
                        write = _index_writer(part)
                    _write(folder, entry, write)
                    _save(folder, description)
                    written += 1
                progress(name, done, split["examples"])
        description["complete"] = True
        _save(folder, description)
    entries = list(_entries(description))
    return Outcome(written, len(entries) - written, sum(entry["bytes"] for entry in entries))


def _records(
    part: Source | Encoded, rows: range, settings: Settings, channels: int
) -> Iterator[bytes]:
    """The records of these rows, in order, made a little ahead by several threads."""
    labels = part.labels()

    def record(row: int) -> bytes:
        image, origin = _stored(part, row, settings, channels), _origin(part, row)
        return prepared.pack(row, int(labels[row]), origin, image)

    waiting: deque[Future[bytes]] = deque()
    pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="prepare")
    try:
        for row in rows:
            waiting.append(pool.submit(record, row))
            if len(waiting) >= 8 * settings.workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _stored(part: Source | Encoded, row: int, settings: Settings, channels: int) -> bytes:
    encoded = reencode.as_file(part, row)
    if not settings.short_side:
        return encoded
    try:
        return reencode.shrink(encoded, channels, settings.short_side, settings.quality)
    except UserError:
        raise
    except Exception as error:  # Pillow raises many kinds on damaged files
        raise UserError(
            f"Cannot shrink {_origin(part, row)}: {error}. Mend that image, or leave the size of "
            "all as it is (without --short_side). What was prepared before stays usable."
        ) from None


def _origin(part: Source | Encoded, row: int) -> str:
    return part.where(row) if isinstance(part, Encoded) else f"row {row}"


def _counted(
    records: Iterable[bytes],
    name: str,
    first: int,
    total: int,
    progress: Callable[[str, int, int], None],
) -> Iterator[bytes]:
    for done, record in enumerate(records, start=first + 1):
        yield record
        progress(name, done, total)


def _open(official: Official, folder: Path, settings: Settings, command: str) -> dict[str, Any]:
    """The folder's description: the one that is there if it is of this very call, else new."""
    identity = {
        "name": official.info.name,
        "short_side": settings.short_side,
        "quality": settings.quality,
        "shard_mb": settings.shard_mb,
        "channels": official.info.image_shape[2],
        "class_names": list(official.info.class_names),
    }
    parts = {
        name: part
        for name in prepared.SPLITS
        if (part := getattr(official, name)) is not None and len(part)
    }
    digests = {name: _digest(part) for name, part in parts.items()}
    if (folder / prepared.DESCRIPTION).exists():
        description = prepared.describe(folder)
        before = {name: split["source"] for name, split in description["splits"].items()}
        changes = [
            f"{name} was {description[name]!r}, is now {value!r}"
            for name, value in identity.items()
            if description[name] != value
        ]
        if not changes and before != digests:
            changes = ["the examples, labels or columns of the source have changed"]
        if changes:
            raise UserError(
                f"{folder} was prepared otherwise: {'; '.join(changes)}. Nothing in it was "
                "touched. Use the same settings to go on there, or another folder for --to."
            )
        description["complete"] = False
        return {**description, "command": command}
    strangers = sorted(path.name for path in folder.iterdir() if not path.name.endswith(".part"))
    if strangers:
        raise UserError(
            f"{folder} holds something else ({', '.join(strangers[:3])}); nothing in it was "
            "touched. Give a new or empty folder with --to=FOLDER."
        )
    height, width, _ = official.info.image_shape
    if height and settings.short_side:
        width, height = reencode.shrunk(width, height, settings.short_side)
    description = {
        "format": prepared.FORMAT,
        "complete": False,
        **identity,
        "image_size": [height, width],  # 0 where images differ
        "mean": list(official.info.mean),
        "std": list(official.info.std),
        "source": official.info.source,
        "command": command,
        "versions": {"imgrec": imgrec.__version__, "pillow": PIL.__version__},
        "splits": {
            name: _planned(name, part, settings, official.info.image_shape[2], digests[name])
            for name, part in parts.items()
        },
    }
    _save(folder, description)
    return description


def _planned(
    name: str, part: Source | Encoded, settings: Settings, channels: int, digest: str
) -> dict[str, Any]:
    examples = len(part)
    sample = np.unique(np.linspace(0, examples - 1, min(_SAMPLE, examples)).astype(int))
    sizes = [len(_stored(part, int(row), settings, channels)) + 128 for row in sample]
    estimate = float(np.mean(sizes)) * examples
    count = min(examples, max(1, round(estimate / (settings.shard_mb << 20))))
    bounds = [examples * i // count for i in range(count + 1)]
    return {
        "examples": examples,
        "source": digest,
        "columns": sorted(part.columns()),
        "index": {"file": f"{name}.index.npz", "bytes": 0, "blake2b": None},
        "estimated_bytes": round(estimate),
        "shards": [
            {
                "file": f"{name}-{i:05d}-of-{count:05d}.array_record",
                "first": bounds[i],
                "examples": bounds[i + 1] - bounds[i],
                "bytes": 0,
                "blake2b": None,
            }
            for i in range(count)
        ],
    }


def _digest(part: Source | Encoded) -> str:
    """Tells sources apart by all that can be known without reading an image."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.ascontiguousarray(part.labels()).tobytes())
    for name, values in sorted(_plain_columns(part).items()):
        digest.update(f"{name}:{values.dtype}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _plain_columns(part: Source | Encoded) -> Mapping[str, np.ndarray]:
    # Arrays of objects cannot be kept without pickle, which runs whatever a file says.
    return {
        name: values.astype(np.str_) if values.dtype == object else values
        for name, values in part.columns().items()
    }


def _index_writer(part: Source | Encoded) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        columns = {f"column.{name}": values for name, values in _plain_columns(part).items()}
        with path.open("wb") as file:
            np.savez_compressed(file, labels=part.labels(), **columns)  # type: ignore[arg-type]

    return write


def _shard_writer(array_record: Any, records: Iterable[bytes]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        # A group of one record is the quickest to read at random; images are compressed already.
        writer = array_record.ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        try:
            for record in records:
                writer.write(record)
        except BaseException:
            with contextlib.suppress(RuntimeError):
                writer.close()
            raise
        writer.close()

    return write


def _write(folder: Path, entry: dict[str, Any], write: Callable[[Path], None]) -> None:
    """Writes one file aside, sees that it is what it was before if it was, and renames it."""
    path = folder / entry["file"]
    aside = path.with_name(f".{path.name}.part")
    try:
        write(aside)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        digest = prepared.checksum(aside)
        if entry["blake2b"] not in (None, digest):
            raise UserError(
                f"{path} is damaged, and the source no longer gives what it held: an image in it "
                "has changed, or Pillow was updated since. The damaged file was left as it is; "
                "prepare the data set anew into another folder."
            )
        entry["bytes"], entry["blake2b"] = aside.stat().st_size, digest
        aside.replace(path)
    except (OSError, RuntimeError) as error:
        # The package array_record has no kind of error of its own.
        full = getattr(error, "errno", None) in _FULL or "No space left" in str(error)
        if not full and not isinstance(error, OSError):
            raise
        reason = "the disk is full" if full else getattr(error, "strerror", None) or error
        raise UserError(
            f"Cannot write {path}: {reason}. What was prepared before is whole; free some space "
            "or mend the cause, and the same command goes on from there."
        ) from None
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


def _save(folder: Path, description: Mapping[str, Any]) -> None:
    path = folder / prepared.DESCRIPTION
    aside = path.with_name(f".{path.name}.part")
    try:
        with aside.open("w") as file:
            file.write(json.dumps(description, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}. What was prepared before is whole, "
            "and the same command goes on from there."
        ) from None


def _entries(description: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for split in description["splits"].values():
        yield split["index"]
        yield from split["shards"]


def _whole_files(folder: Path, description: Mapping[str, Any]) -> set[str]:
    """Names of the files that are there with the size and checksum that were written down."""
    whole = set()
    for entry in _entries(description):
        path = folder / entry["file"]
        if (
            entry["blake2b"]
            and path.is_file()
            and path.stat().st_size == entry["bytes"]
            and prepared.checksum(path) == entry["blake2b"]
        ):
            whole.add(entry["file"])
    return whole


def _check_space(folder: Path, description: Mapping[str, Any], found: set[str]) -> None:
    needed = 0.0
    for split in description["splits"].values():
        missing = [shard for shard in split["shards"] if shard["file"] not in found]
        share = sum(shard["examples"] for shard in missing) / split["examples"]
        needed += split["estimated_bytes"] * share
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"The disk of {folder} has {free / 1e9:,.1f} GB free, and about {needed / 1e9:,.1f} GB "
            "are still to be written. Free some space, give another folder with --to=FOLDER, or "
            "shrink the images with --short_side=256."
        )


@contextlib.contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Makes the folder, and keeps other processes from preparing in it meanwhile."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"Cannot write to {folder}: {error.strerror or error}.") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"Another process is preparing in {folder}; wait for it, or give another folder."
            ) from None
        yield
    finally:
        os.close(descriptor)
