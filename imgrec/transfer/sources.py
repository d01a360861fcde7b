"""A file of weights, of whatever format, as named arrays.

The format is read off the file's first bytes, since names deceive: .pth, .pt, .bin, .th and
.ckpt have all been given to files of both of PyTorch's formats.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imgrec.errors import UserError, nearest
from imgrec.transfer import bigvision, pickles, safetensors

# Where checkpoints keep their weights. Averaged ones come first: they are what the projects
# that keep them evaluate.
_WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "params",
    "weights",
)


@dataclass(frozen=True)
class Source:
    """A file's arrays by name, and what to say of how they were found."""

    arrays: Mapping[str, np.ndarray]
    said: tuple[str, ...] = ()


def read(path: Path) -> Source:
    """The arrays of a .safetensors, .npz or PyTorch file.

    Raises:
      UserError: there is no such file, it is of no known format, or it is damaged.
    """
    if not path.is_file():
        beside = [other.name for other in path.parent.glob("*")] if path.parent.is_dir() else []
        guess = nearest(path.name, beside)
        meant = f" Did you mean {path.parent / guess}?" if guess else ""
        raise UserError(f"There is no file {path}.{meant}")
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(pickles.ZIP_START) and _is_npz(path):
        return Source(bigvision.read(path))
    if start.startswith((pickles.ZIP_START, pickles.LEGACY_START)):
        return unwrap(pickles.read(path), path)
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return Source(safetensors.read(path))
    raise UserError(
        f"{path} ({path.stat().st_size:,} bytes) holds no weights: {_looks_like(start)}. Known are "
        "safetensors, PyTorch's checkpoints, and the .npz files of big_vision."
    )


def unwrap(tree: Any, path: Path) -> Source:
    """The arrays of a checkpoint, which often lie in a dict among other things.

    Args:
      tree: what the checkpoint holds.
      path: its file, for the messages.

    Raises:
      UserError: no dict of arrays is found.
    """
    said: list[str] = []
    node = tree
    # A wrapper in a wrapper is the deepest there is in practice; a pickle can nest for ever.
    for _ in range(4):
        if not isinstance(node, dict):
            break
        inside = [key for key in _WRAPPERS if isinstance(node.get(key), dict)]
        if not inside:
            arrays = {str(k): v for k, v in node.items() if isinstance(v, np.ndarray)}
            if not arrays:
                break
            others = [str(key) for key in node if str(key) not in arrays]
            if others:
                said.append(f"left out, as no arrays: {_some(others)}")
            return Source(arrays, tuple(said))
        chosen = inside[0]
        others = [str(key) for key in node if key != chosen]
        beside = f"; beside it and left out: {_some(others)}" if others else ""
        said.append(f"taken from {chosen!r}{beside}")
        node = node[chosen]
    kind = type(node).__name__
    keys = f" with {_some([str(key) for key in node])}" if isinstance(node, dict) else ""
    raise UserError(
        f"{path} holds no named arrays: a {kind}{keys}. Expected what model.state_dict() returns, "
        f"itself or under one of {', '.join(_WRAPPERS)}."
    )


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, OSError, RuntimeError):
        return path.suffix == ".npz"


def _looks_like(start: bytes) -> str:
    """What people find in place of the file they meant to fetch."""
    if not start:
        return "it is empty"
    if start.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        return "it is a web page, perhaps the one that a download link leads to"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS; fetch the file itself with git lfs pull"
    if start.startswith(b"\x89HDF"):
        return "it is HDF5, as Keras writes it"
    if start.startswith(b"\x1f\x8b"):
        return "it is compressed; unpack it with gunzip"
    if start[:1] == b"\x80":
        return "it is a pickle that torch.save did not write"
    return f"it begins with {start[:8]!r}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(repr(name) for name in names[:6]) + more
