"""PyTorch's checkpoint files, both formats, read without PyTorch and without trust.

Since version 1.6, `torch.save` writes a zip archive: a pickle beside one stored file a storage.
Before, and still on request, it wrote pickles one after the other with the storages behind
them. Nothing that a file says is believed before it is checked against the file's own size.
"""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from imgrec.errors import UserError
from imgrec.transfer import unpickling
from imgrec.transfer.rebuilding import MalformedError, Storage, StorageType
from imgrec.transfer.unpickling import ForeignNameError, PersistentId

# The first pickle of the old format is a number, and these are its bytes.
LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
ZIP_START = b"PK\x03\x04"

# What `zipfile` raises of archives that are damaged, encrypted or in a way it does not know.
_ZIP_ERRORS = (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, OSError, struct.error)


def read(path: Path) -> Any:
    """What a checkpoint holds: containers, numbers and text, tensors as read-only arrays.

    Args:
      path: a file that `torch.save` wrote.

    Raises:
      UserError: the file is none, is cut or damaged, or holds or calls for anything else
        than containers, numbers, text and tensors. Nothing in it was executed.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(LEGACY_START))
            file.seek(0)
            if start.startswith(ZIP_START):
                return _zip(file, path.stat().st_size)
            if start == LEGACY_START:
                return _legacy(file, path.stat().st_size)
    except ForeignNameError as error:
        raise UserError(
            f"{path} asks for {error}, and only tensors, numbers, text and containers of them "
            "are read from a checkpoint. Nothing in it was executed. If you trust the file, save "
            "its tensors alone where PyTorch is installed: "
            "torch.save(model.state_dict(), 'weights.pth')."
        ) from None
    except MalformedError as error:
        raise UserError(
            f"{path} cannot be read: {error}. Nothing in it was executed. It has "
            f"{path.stat().st_size:,} bytes; compare that with where it came from, and "
            "fetch it again."
        ) from None
    raise UserError(f"{path} is no checkpoint of PyTorch.")


def _zip(file: io.BufferedReader, size: int) -> Any:
    """The newer format."""
    try:
        archive = zipfile.ZipFile(file)
    except _ZIP_ERRORS:
        raise MalformedError(
            "it begins as an archive and has no table of contents at its end, "
            "so it was probably not downloaded to its end"
        ) from None
    members = {info.filename: info for info in archive.infolist()}
    roots = [name.removesuffix("data.pkl") for name in members if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise MalformedError("it is an archive, but not one that torch.save wrote")
    (root,) = roots
    if f"{root}constants.pkl" in members:
        raise MalformedError(
            "it is a TorchScript program; save the state_dict() of the model it was made from"
        )
    if sum(info.compress_size for info in members.values()) > size:
        raise MalformedError("its members claim more bytes than the file has")

    def content(name: str) -> bytes:
        if name not in members:
            raise MalformedError(f"it lacks the member {name!r}")
        info = members[name]
        # PyTorch never compresses, and what is stored as it is cannot grow.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise MalformedError(f"its member {name!r} is compressed, which PyTorch never does")
        try:
            return archive.read(info)
        except _ZIP_ERRORS as error:
            raise MalformedError(f"its member {name!r} is damaged ({error})") from None

    big = f"{root}byteorder" in members and content(f"{root}byteorder") == b"big"
    loaded: dict[str, np.ndarray] = {}
    known: dict[tuple[str, StorageType], Storage] = {}

    def storage(identity: PersistentId) -> Storage:
        kind, key, count = _identity(identity)
        if key not in loaded:
            loaded[key] = np.frombuffer(content(f"{root}data/{key}"), np.uint8)
        if loaded[key].nbytes != count * _itemsize(kind):
            raise MalformedError(
                f"its storage {key} has {loaded[key].nbytes} bytes, and {count} elements of "
                f"{_itemsize(kind)} bytes were announced"
            )
        return known.setdefault((key, kind), Storage(loaded[key], kind, swapped=big))

    return unpickling.load(io.BytesIO(content(f"{root}data.pkl")), storage)


def _legacy(file: io.BufferedReader, size: int) -> Any:
    """The older format: four pickles, then the storages in the order of the last."""
    announced: dict[str, Storage] = {}
    counts: dict[str, int] = {}

    def no_storage(identity: PersistentId) -> Storage:
        raise MalformedError("a storage comes before the tensors")

    def storage(identity: PersistentId) -> Storage:
        kind, key, count = _identity(identity)
        if key not in announced:
            total = sum(known.raw.nbytes for known in announced.values())
            if total + count * _itemsize(kind) > size:
                raise MalformedError(
                    "its storages claim more bytes than the file has, so it was probably not "
                    "downloaded to its end"
                )
            # Filled below: their bytes come after the pickle.
            announced[key] = Storage(np.empty(count * _itemsize(kind), np.uint8), kind)
            counts[key] = count
        if announced[key].type != kind or counts[key] != count:
            raise MalformedError(f"its storage {key} is announced twice, differently")
        return _part(announced[key], identity)

    for expected in ("magic number", "version", "system"):
        found = unpickling.load(file, no_storage)
        if expected == "version" and found != 1001:
            raise MalformedError("it is of another version than 1001, the one known")
    tree = unpickling.load(file, storage)
    keys = unpickling.load(file, no_storage)
    texts = type(keys) is list and all(type(key) is str for key in keys)
    if not texts or sorted(keys) != sorted(announced):
        raise MalformedError("its list of storages is not of those that its tensors use")
    for key in keys:
        # Counts and elements are little-endian whatever machine wrote them.
        count = int.from_bytes(file.read(8), "little")
        if counts[key] != count:
            raise MalformedError(f"its storage {key} has another size than was announced")
        raw = announced[key].raw
        content = file.read(raw.nbytes)
        if len(content) < raw.nbytes:
            raise MalformedError(f"it ends inside its storage {key}, so it was probably cut")
        raw[:] = np.frombuffer(content, np.uint8)
    return tree


def _identity(identity: PersistentId) -> tuple[StorageType, str, int]:
    """Type, key and number of elements of a storage, as its persistent id gives them."""
    if len(identity) not in (5, 6):
        raise MalformedError("a storage is named in an unknown way")
    _, kind, key, _, count = identity[:5]
    if not isinstance(kind, StorageType) or type(key) is not str or type(count) is not int:
        raise MalformedError("a storage is named in an unknown way")
    if count < 0:
        raise MalformedError(f"its storage {key} has {count} elements")
    return kind, key, count


def _part(storage: Storage, identity: PersistentId) -> Storage:
    """The part of a storage that the oldest files name by (key, offset, elements)."""
    if len(identity) < 6 or identity[5] is None:
        return storage
    _, offset, count = identity[5]
    itemsize = _itemsize(storage.type)
    if type(offset) is not int or type(count) is not int:
        raise MalformedError("a part of a storage is named in an unknown way")
    if min(offset, count) < 0 or (offset + count) * itemsize > storage.raw.nbytes:
        raise MalformedError("a part of a storage reaches beyond it")
    return Storage(storage.raw[offset * itemsize : (offset + count) * itemsize], storage.type)


def _itemsize(kind: StorageType) -> int:
    return 1 if kind.dtype is None else kind.dtype.itemsize
