"""Prepared data sets: sharded ArrayRecord files with checksums, written once and read at random.

A folder holds, for each split, `<split>-00003-of-00016.array_record` and `<split>.index.npz`
(labels and columns), and `dataset.json`, which says the rest. A record is

    4 bytes   length of the header, little-endian
    header    JSON: {"row": 17, "label": 3, "from": "n01440764_18.JPEG in ..."}
    the rest  the image file

A shard is a pure function of the source, the settings and its number: what was not finished,
or was damaged since, is written again by itself, and comes out the same to the byte.
"""

import dataclasses
import hashlib
import json
import os
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Int32, Shaped

from imgrec.data.dataset import Info, Official, channel_statistics
from imgrec.data.view import DecodedSource, View
from imgrec.errors import UserError

FORMAT = 1
DESCRIPTION = "dataset.json"
SPLITS = ("train", "validation", "test")
_STATISTICS_SAMPLE = 1_000
_LENGTH = struct.Struct("<I")
_CHUNK = 1 << 22


def load(folder: Path, channels: int = 0, name: str = "") -> Official:
    """Opens a prepared data set; of its shards only the sizes are looked at.

    Args:
      folder: that `imgrec.prepare` wrote.
      channels: 1 or 3 that images are converted to; 0 is what was prepared.
      name: of the data set, where it is not to be the one that was prepared.

    Raises:
      UserError: it is no such folder, is not finished, or a file is missing or of a wrong size.
    """
    description = describe(folder)
    if not description["complete"]:
        splits = description["splits"].values()
        shards = [shard for split in splits for shard in split["shards"]]
        done = sum(shard["blake2b"] is not None for shard in shards)
        raise UserError(
            f"{folder} is not finished: {done} of {len(shards)} shards are written. Go on with:\n"
            f"  {description['command']}"
        )
    sources = {
        part: PreparedImages(folder, part, split, description["command"])
        for part, split in description["splits"].items()
    }
    info = Info(
        name=name or description["name"],
        num_classes=len(description["class_names"]),
        class_names=tuple(description["class_names"]),
        image_shape=(*description["image_size"], description["channels"]),
        mean=tuple(description["mean"]),
        std=tuple(description["std"]),
        source=f"{folder}, prepared from: {description['source']}",
    )
    if channels and channels != info.image_shape[2]:
        seen = DecodedSource(sources["train"], View(size=0, channels=channels))
        mean, std = channel_statistics(seen, _STATISTICS_SAMPLE)
        shape = (info.image_shape[0], info.image_shape[1], channels)
        info = dataclasses.replace(info, image_shape=shape, mean=mean, std=std)
    return Official(sources["train"], sources["test"], info, sources.get("validation"))


def is_of(folder: Path, name: str) -> bool:
    """Whether the folder holds (or is to hold) the prepared data set of this name."""
    try:
        return bool(describe(folder)["name"] == name)
    except UserError:
        return False


def describe(folder: Path) -> dict[str, Any]:
    """What `dataset.json` says.

    Raises:
      UserError: it is not there, or is none that this version reads.
    """
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text())
        version = description["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"it cannot be read ({error})" if path.exists() else f"it lacks {DESCRIPTION}"
        raise UserError(
            f"{folder} is no prepared data set: {reason}. One is made with: python -m "
            f"imgrec.prepare DATASET --from=FOLDER --to={folder}"
        ) from None
    if version != FORMAT:
        raise UserError(
            f"{folder} has the format {version} of prepared data; this version of imgrec reads "
            f"{FORMAT}. Prepare it again into another folder."
        )
    return description


class PreparedImages:
    """The image files of one split, as they were stored."""

    def __init__(self, folder: Path, name: str, split: Mapping[str, Any], command: str):
        """Opens the index and looks at the sizes of the shards.

        Args:
          folder: of the prepared data set.
          name: of the split.
          split: what `dataset.json` says of it.
          command: that writes a damaged file again.

        Raises:
          UserError: a file is missing or of a wrong size.
        """
        self._command = command
        self._array_record = import_array_record()
        self._paths = [folder / shard["file"] for shard in split["shards"]]
        self._starts = np.cumsum([0, *(shard["examples"] for shard in split["shards"])])
        for path, shard in zip(self._paths, split["shards"], strict=True):
            size = path.stat().st_size if path.is_file() else None
            if size != shard["bytes"]:
                found = "is missing" if size is None else f"has {size:,} bytes"
                raise damaged(path, f"it {found}, expected {shard['bytes']:,}", command)
        index = folder / split["index"]["file"]
        try:
            with index.open("rb") as file, np.load(file) as kept:
                self._labels = kept["labels"]
                self._columns = {
                    key.removeprefix("column."): kept[key]
                    for key in kept.files
                    if key.startswith("column.")
                }
        except Exception as error:  # numpy and zipfile raise a dozen kinds
            raise damaged(index, f"it cannot be read ({error})", command) from None
        if len(self._labels) != split["examples"]:
            raise damaged(index, f"it has {len(self._labels):,} rows", command)
        self._lock = threading.Lock()
        self._readers: dict[tuple[int, int], Any] = {}
        self.name = name

    def __len__(self) -> int:
        return len(self._labels)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}, "_lock": None, "_array_record": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
        self._array_record = import_array_record()

    def encoded(self, row: int) -> bytes:
        """The image file of one row.

        Raises:
          UserError: the shard is damaged there.
        """
        return self._record(row)[1]

    def labels(self) -> Int32[np.ndarray, "rows"]:
        """The labels of all rows, from the index."""
        return self._labels

    def columns(self) -> Mapping[str, Shaped[np.ndarray, "rows"]]:
        """What the source knew of each row, from the index."""
        return self._columns

    def where(self, row: int) -> str:
        """The shard, the record in it, and where its image came from."""
        shard = self._shard(row)
        place = f"record {row - self._starts[shard]} of {self._paths[shard]}"
        try:
            return f"{place} (from {self._record(row)[0]['from']})"
        except UserError:
            return place

    def _shard(self, row: int) -> int:
        return int(np.searchsorted(self._starts, row, side="right")) - 1

    def _record(self, row: int) -> tuple[dict[str, Any], bytes]:
        shard = self._shard(row)
        position = row - int(self._starts[shard])
        try:
            (record,) = self._reader(shard).read([position])
            header, image = unpack(record)
        except (RuntimeError, IndexError, ValueError, struct.error) as error:
            raise damaged(
                self._paths[shard], f"record {position}: {_one_line(error)}", self._command
            ) from None
        if (header["row"], header["label"]) != (row, self._labels[row]):
            raise damaged(
                self._paths[shard],
                f"record {position} is row {header['row']} of label {header['label']}, expected "
                f"row {row} of label {self._labels[row]}",
                self._command,
            )
        return header, image

    def _reader(self, shard: int) -> Any:
        # A process that was forked off must not share its parent's file positions.
        key = (os.getpid(), shard)
        reader = self._readers.get(key)
        if reader is None:
            with self._lock:
                if key not in self._readers:
                    self._readers[key] = self._array_record.ArrayRecordReader(
                        str(self._paths[shard]), "readahead_buffer_size:0,max_parallelism:0"
                    )
                reader = self._readers[key]
        return reader


def pack(row: int, label: int, origin: str, image: bytes) -> bytes:
    """A record, as this module's docstring has it."""
    header = json.dumps({"row": row, "label": label, "from": origin}).encode()
    return _LENGTH.pack(len(header)) + header + image


def unpack(record: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the image file of a record.

    Raises:
      ValueError: the header is no JSON.
      struct.error: the record is shorter than its first field.
    """
    (length,) = _LENGTH.unpack_from(record)
    end = _LENGTH.size + length
    return json.loads(record[_LENGTH.size : end]), record[end:]


def checksum(path: Path) -> str:
    """The file's BLAKE2b, 32 bytes long, in hexadecimal digits.

    Raises:
      UserError: it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=32)
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from None
    return digest.hexdigest()


def damaged_files(folder: Path) -> list[str]:
    """Every file whose checksum is not the one that was written down, with the remedy."""
    description = describe(folder)
    found = []
    for split in description["splits"].values():
        for file in (split["index"], *split["shards"]):
            path = folder / file["file"]
            if file["blake2b"] is None:
                continue
            if not path.is_file():
                found.append(str(damaged(path, "it is missing", description["command"])))
            elif checksum(path) != file["blake2b"]:
                what = "its checksum is not the one written down"
                found.append(str(damaged(path, what, description["command"])))
    return found


def damaged(path: Path, what: str, command: str) -> UserError:
    """The error for a file of a prepared data set that is not as it was written."""
    return UserError(
        f"{path} is damaged: {what}. The same command as before writes just the damaged files "
        f"again:\n  {command}"
    )


def import_array_record() -> ModuleType:
    """The package that reads and writes ArrayRecord.

    Raises:
      UserError: it is not installed.
    """
    # Here, because only prepared data needs it, and it is not built for every machine.
    try:
        from array_record.python import array_record_module
    except ImportError as error:
        raise UserError(
            f"Prepared data needs the package array_record, which cannot be imported ({error}). "
            "Install it with: pip install array-record"
        ) from None
    return array_record_module


def _one_line(error: Exception) -> str:
    text = str(error).split(";")[0].strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
