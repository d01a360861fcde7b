"""What a PyTorch pickle may name, and what stands here in the place of each name.

Functions get what a stranger wrote, of any type, and answer with plain values and arrays.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np


class MalformedError(Exception):
    """The pickle is cut, damaged or contradicts itself; how."""


@dataclass(frozen=True)
class StorageType:
    """A class of storages, and what its elements are; None where tensors say it themselves."""

    dtype: np.dtype | None


@dataclass(frozen=True)
class Storage:
    """Bytes that tensors share.

    Attributes:
      raw: uint8, all of the storage.
      type: what its elements are.
      swapped: whether they are in the other byte order than this machine's.
    """

    raw: np.ndarray
    type: StorageType
    swapped: bool = False
    _ordered: dict[int, np.ndarray] = field(default_factory=dict)

    def ordered(self, unit: int) -> np.ndarray:
        """The bytes in this machine's order, for numbers of so many bytes."""
        if not self.swapped:
            return self.raw
        # Once for all tensors: a copy for each of thousands would be more than the memory holds.
        if unit not in self._ordered:
            self._ordered[unit] = self.raw.reshape(-1, unit)[:, ::-1].reshape(-1)
        return self._ordered[unit]


@dataclass(frozen=True)
class Function:
    """One of our own functions, under the name of the one it stands in for."""

    of: Callable[..., Any]


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """A tensor whose storage knows its type."""
    if storage.type.dtype is None:
        raise MalformedError("a tensor has no element type")
    return _view(storage, storage.type.dtype, offset, size, stride)


def _typed_tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    _grad: Any,
    _hooks: Any,
    dtype: Any,
    *_: Any,
) -> np.ndarray:
    """A tensor that brings its own type (version 3)."""
    if not isinstance(dtype, np.dtype):
        raise MalformedError("a tensor has no element type")
    return _view(storage, dtype, offset, size, stride)


def _view(storage: Any, dtype: np.dtype, offset: Any, size: Any, stride: Any) -> np.ndarray:
    """The elements that a shape, strides and an offset choose of a storage, read-only."""
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or len(size) > 32 or any(type(n) is not int for n in numbers):
        raise MalformedError("a tensor's shape and strides do not fit each other")
    if min(numbers) < 0 or math.prod(size) * dtype.itemsize >= 2**62:
        raise MalformedError(f"a tensor has the impossible shape {tuple(size)}")
    if 0 in size:
        return np.zeros(size, dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    raw = storage.raw
    if last >= raw.nbytes // dtype.itemsize or raw.nbytes % dtype.itemsize:
        raise MalformedError(
            f"a tensor of shape {tuple(size)} reaches beyond its storage of {raw.nbytes} bytes"
        )
    # A complex number is two, each in its own byte order.
    ordered = storage.ordered(dtype.itemsize // (2 if dtype.kind == "c" else 1))
    steps = [step * dtype.itemsize for step in stride]
    view = np.ndarray(tuple(size), dtype, ordered.data, offset * dtype.itemsize, steps)
    view.flags.writeable = False
    return view


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _of_type(function: Any, _type: Any, arguments: Any, _state: Any) -> Any:
    """A tensor wrapped in a subclass (a parameter with attributes); the wrapping goes."""
    if not isinstance(function, Function) or function.of is _of_type:
        raise MalformedError("a tensor is made by no function")
    return function.of(*arguments)


def _dict(items: Any = ()) -> dict[Any, Any]:
    """A dict of pairs or a copy of one."""
    if type(items) is dict:
        return dict(items)
    return pairs([part for key, value in items for part in (key, value)])


def _complex(real: Any, imaginary: Any) -> complex:
    return complex(*plain([real, imaginary]))


def _device(kind: Any, index: Any = None) -> str:
    return ":".join(str(part) for part in plain([kind, index]) if part is not None)


def _encoded(text: Any, encoding: Any) -> bytes:
    """Bytes, which old protocols write as text."""
    if type(text) is not str or encoding != "latin1":
        raise MalformedError("its bytes are encoded in a way that pickles never do")
    return text.encode("latin1")


def pairs(items: list[Any]) -> dict[Any, Any]:
    """A dict of keys and values that come by turns."""
    return dict(zip(plain(items[::2]), items[1::2], strict=True))


def plain(keys: Iterable[Any]) -> list[Any]:
    """Keys of a dict or items of a set, which have to be single values."""
    keys = list(keys)
    for key in keys:
        if key is not None and type(key) not in (str, bytes, int, float, bool):
            raise TypeError(f"a {type(key).__name__} is no key")
    return keys


_DTYPES: dict[str, Any] = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
    "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "complex64": np.complex64,
    "complex128": np.complex128,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint64": np.uint64,
    "uint32": np.uint32,
    "uint16": np.uint16,
    "uint8": np.uint8,
    "bool": np.bool_,
}
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_REBUILD = Function(_tensor)
# Everything that a pickle may name. Python 2 called `builtins` otherwise, and protocol 2,
# which PyTorch writes, still does.
NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Function(_dict),
    ("collections", "Counter"): Function(_dict),
    ("_codecs", "encode"): Function(_encoded),
    **{
        (module, name): Function(function)
        for module in ("builtins", "__builtin__")
        for name, function in (
            ("set", lambda items: set(plain(items))),
            ("frozenset", lambda items: frozenset(plain(items))),
            ("complex", _complex),
        )
    },
    ("torch", "Size"): Function(tuple),
    ("torch", "device"): Function(_device),
    ("torch", "Tensor"): StorageType(None),
    ("torch.nn.parameter", "Parameter"): StorageType(None),
    ("torch._utils", "_rebuild_tensor"): _REBUILD,
    ("torch._utils", "_rebuild_tensor_v2"): _REBUILD,
    ("torch._utils", "_rebuild_tensor_v3"): Function(_typed_tensor),
    ("torch._utils", "_rebuild_parameter"): Function(_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): Function(_parameter),
    ("torch._tensor", "_rebuild_from_type_v2"): Function(_of_type),
    **{("torch", name): np.dtype(dtype) for name, dtype in _DTYPES.items()},
    **{
        (module, name): StorageType(np.dtype(_DTYPES[dtype]))
        for module in ("torch", "torch.cuda")
        for name, dtype in _STORAGES.items()
    },
    ("torch", "UntypedStorage"): StorageType(None),
    ("torch.storage", "UntypedStorage"): StorageType(None),
}
