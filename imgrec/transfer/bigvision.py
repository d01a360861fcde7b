"""The .npz files of big_vision and of google-research/vision_transformer, as flat dicts.

A member is an array, its name a path ("params/Transformer/encoderblock_0/..."). big_vision's
files of whole training states have "opt/..." beside "params/..."; the older project's files
hold parameters only, and their paths begin without "params/".
"""

import io
import math
import struct
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np

from imgrec.errors import UserError

# Weights hardly compress; a file that claims to have shrunk more than this is a trap.
_MAX_COMPRESSION = 100


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name, the parameters alone where it holds more.

    Blocks that are stacked along a leading axis ("encoderblock/...", as a scan over the blocks
    keeps them) are taken apart into "encoderblock_0/..." and so on.

    Raises:
      UserError: the file is cut or damaged, holds Python objects, or claims more bytes than
        its size allows.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(info.file_size for info in members) > _MAX_COMPRESSION * path.stat().st_size:
                raise ValueError("its members claim to be over a hundred times the file's size")
            arrays = {}
            for info in members:
                name = info.filename.removesuffix(".npy")
                arrays[name] = _array(info.filename, archive.read(info))
    except (zipfile.BadZipFile, ValueError, RuntimeError, EOFError, struct.error) as error:
        raise UserError(
            f"{path} is no whole .npz file: {error}. It has {path.stat().st_size:,} bytes; "
            "compare that with where it came from, and fetch it again."
        ) from None
    params = {name: array for name, array in arrays.items() if name.startswith("params/")}
    return _unstacked(params or arrays)


def _array(name: str, content: bytes) -> np.ndarray:
    """One member, made an array once its header agrees with its size."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    headers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in headers:
        raise ValueError(f"{name} is of the unknown version {version}")
    shape, fortran_order, dtype = headers[version](file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, and only numbers are read")
    if len(content) - file.tell() != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} has another size than its header says")
    # numpy's files have no name for bfloat16 and keep it as two bytes without a meaning.
    if dtype == np.dtype("V2"):
        dtype = np.dtype(ml_dtypes.bfloat16)
    flat = np.frombuffer(content, dtype, offset=file.tell())
    return flat.reshape(shape, order="F" if fortran_order else "C")


def _unstacked(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {}
    for name, array in arrays.items():
        before, stacked, after = name.partition("encoderblock/")
        if not stacked or array.ndim == 0:
            found[name] = array
            continue
        for block, part in enumerate(array):
            found[f"{before}encoderblock_{block}/{after}"] = part
    return found
