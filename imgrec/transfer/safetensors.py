"""Files of the safetensors format: a JSON header, then the arrays' bytes, and nothing to run.

https://github.com/huggingface/safetensors describes it. It is read and written here, since the
format is smaller than the package, which knows bfloat16 only through a framework.
"""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from imgrec.errors import UserError
from imgrec.files import written_aside

# The limit of the format's own reader.
MAX_HEADER_BYTES = 100_000_000

_DTYPES: dict[str, np.dtype] = {
    name: np.dtype(dtype)
    for name, dtype in {
        "F64": np.float64,
        "F32": np.float32,
        "F16": np.float16,
        "BF16": ml_dtypes.bfloat16,
        "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "F8_E5M2": ml_dtypes.float8_e5m2,
        "C64": np.complex64,
        "I64": np.int64,
        "I32": np.int32,
        "I16": np.int16,
        "I8": np.int8,
        "U64": np.uint64,
        "U32": np.uint32,
        "U16": np.uint16,
        "U8": np.uint8,
        "BOOL": np.bool_,
    }.items()
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name, in the file's order.

    Raises:
      UserError: the file is cut, or its header does not describe exactly the bytes that follow.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= MAX_HEADER_BYTES or 8 + length > size:
            raise _damaged(path, f"its header would have {length:,} bytes")
        header = _header(path, file.read(length))
        # Offsets are checked before the numbers are read.
        places = {name: _place(path, name, value) for name, value in header.items()}
        end = 0
        for name, (_, _, begin, stop) in sorted(places.items(), key=lambda item: item[1][2:]):
            if begin != end:
                raise _damaged(path, f"{name!r} begins at byte {begin:,} and not at {end:,}")
            end = stop
        if end != size - 8 - length:
            raise _damaged(path, f"its arrays have {end:,} bytes, and {size - 8 - length:,} follow")
        data = np.fromfile(file, np.uint8)
    return {
        name: data[begin:stop].view(dtype).reshape(shape)
        for name, (dtype, shape, begin, stop) in places.items()
    }


def write(path: Path, arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Writes arrays by name; the file appears under its name when it is whole.

    Args:
      path: the file; its folder is made where it lacks.
      arrays: numpy or JAX arrays; their order is kept by `read` where sizes of elements allow.
      metadata: short texts that the format keeps beside them.

    Raises:
      UserError: an array is of a type that the format lacks.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    # The widest elements come first, so that each array begins at a multiple of its own.
    ordered = sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize)
    offset = 0
    for name, array in ordered:
        if np.dtype(array.dtype) not in _NAMES:
            raise UserError(
                f"safetensors has no arrays of {array.dtype}, as {name!r} is; "
                f"it has {', '.join(str(dtype) for dtype in _NAMES)}."
            )
        stop = offset + array.size * array.dtype.itemsize
        header[name] = {
            "dtype": _NAMES[np.dtype(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [offset, stop],
        }
        offset = stop
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with written_aside(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, array in ordered:
            file.write(np.ascontiguousarray(array).tobytes())


def _header(path: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError("a name twice")
        return dict(pairs)

    try:
        header = json.loads(text.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is no JSON ({error})") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no JSON object")
    header.pop("__metadata__", None)
    return header


def _place(path: Path, name: str, value: Any) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """Type, shape, first byte and end of an array, checked against each other."""
    try:
        kind, shape, (begin, stop) = value["dtype"], value["shape"], value["data_offsets"]
        known = kind in _DTYPES
        whole = all(type(n) is int and n >= 0 for n in (*shape, begin, stop))
    except (TypeError, KeyError, ValueError):
        raise _damaged(path, f"its header does not say where {name!r} is") from None
    if not known:
        raise UserError(
            f"{path}: the array {name!r} is of the type {kind!r}; known: {', '.join(_DTYPES)}."
        )
    if not whole or stop - begin != math.prod(shape) * _DTYPES[kind].itemsize:
        raise _damaged(path, f"{name!r}, {kind} of shape {shape}, has bytes {begin} to {stop}")
    return _DTYPES[kind], tuple(shape), begin, stop


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is no whole safetensors file: {why}. It has {path.stat().st_size:,} bytes; "
        "compare that with where it came from, and fetch it again."
    )
