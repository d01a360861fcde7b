"""What stands behind names: functions of ours alone, and views that stay in their storages."""

import numpy as np
import pytest

from imgrec.transfer import rebuilding
from imgrec.transfer.rebuilding import NAMES, Function, MalformedError, Storage, StorageType

FLOATS = StorageType(np.dtype(np.float32))
REBUILD = NAMES["torch._utils", "_rebuild_tensor_v2"].of


def storage(count=6, swapped=False):
    numbers = np.arange(count, dtype=np.float32)
    return Storage((numbers.byteswap() if swapped else numbers).view(np.uint8), FLOATS, swapped)


def test_nothing_of_pytorch_or_python_stands_behind_a_name():
    for value in NAMES.values():
        if isinstance(value, Function):
            assert value.of is tuple or value.of.__module__ == rebuilding.__name__
        else:
            assert isinstance(value, StorageType | np.dtype)


@pytest.mark.parametrize("swapped", [False, True])
def test_views(swapped):
    held = storage(swapped=swapped)
    first, second = REBUILD(held, 1, (2, 2), (2, 1), False, {}), REBUILD(held, 0, (), (), False, {})
    np.testing.assert_array_equal(first, [[1, 2], [3, 4]])
    assert second == 0
    assert np.shares_memory(first, REBUILD(held, 0, (6,), (1,), False, {}))
    assert not first.flags.writeable


@pytest.mark.parametrize(
    ("offset", "size", "stride", "message"),
    [
        (0, (7,), (1,), "reaches beyond"),
        (6, (1,), (1,), "reaches beyond"),
        (0, (2, 2), (5, 1), "reaches beyond"),
        (-1, (1,), (1,), "impossible shape"),
        (0, (-1,), (1,), "impossible shape"),
        (0, (3,), (-1,), "impossible shape"),
        (0, (2**40, 2**40), (0, 0), "impossible shape"),
        (0, (2, 3), (1,), "do not fit each other"),
        (0, (2.0,), (1,), "do not fit each other"),
        (True, (2,), (1,), "do not fit each other"),
        (0, (1,) * 33, (1,) * 33, "do not fit each other"),
    ],
)
def test_views_beyond_their_storages(offset, size, stride, message):
    with pytest.raises(MalformedError, match=message):
        REBUILD(storage(), offset, size, stride)


def test_a_tensor_without_a_type():
    untyped = Storage(np.zeros(8, np.uint8), StorageType(None))
    with pytest.raises(MalformedError, match="no element type"):
        REBUILD(untyped, 0, (1,), (1,))
    typed = NAMES["torch._utils", "_rebuild_tensor_v3"].of
    assert typed(untyped, 1, (3,), (1,), False, {}, np.dtype(np.uint16)).dtype == np.uint16
    with pytest.raises(MalformedError, match="no element type"):
        typed(untyped, 0, (1,), (1,), False, {}, "uint16")
