"""Safetensors: files made by hand read, files written read by hand, and lies refused."""

import json
import struct

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from imgrec.errors import UserError
from imgrec.transfer import safetensors


def by_hand(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype, shape, begin, stop):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, stop]}


def test_a_file_made_by_hand(tmp_path):
    # 1.5 as bfloat16 is 0x3FC0; the offsets are in another order than the names.
    data = struct.pack("<3f", 1, 2, 3) + b"\xc0\x3f" + struct.pack("<q", -7)
    header = {
        "__metadata__": {"format": "pt"},
        "b": entry("BF16", [1], 12, 14),
        "a": entry("F32", [3, 1], 0, 12),
        "count": entry("I64", [], 14, 22),
        "none": entry("F16", [0, 5], 22, 22),
    }
    found = safetensors.read(by_hand(tmp_path / "a.safetensors", header, data))
    assert list(found) == ["b", "a", "count", "none"]
    np.testing.assert_array_equal(found["a"], [[1], [2], [3]])
    assert found["a"].dtype == np.float32
    assert found["b"].dtype == ml_dtypes.bfloat16
    assert float(found["b"][0]) == 1.5
    assert found["count"] == -7
    assert found["none"].shape == (0, 5)


@pytest.mark.parametrize("dtype", safetensors._NAMES, ids=str)
def test_every_type_comes_back_bit_for_bit(dtype, tmp_path):
    bits = np.arange(96, dtype=np.uint8)
    array = (bits % 2 if dtype == np.bool_ else bits).view(dtype).reshape(2, -1)
    safetensors.write(tmp_path / "a.safetensors", {"odd": np.bool_([True]), "a": array})
    found = safetensors.read(tmp_path / "a.safetensors")["a"]
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()


def test_what_is_written_is_the_format(tmp_path):
    path = tmp_path / "folder" / "a.safetensors"
    arrays = {
        "half": jnp.float16([1, 2, 3]),
        "turned": np.arange(6.0, dtype=np.float32).reshape(2, 3).T,
    }
    safetensors.write(path, arrays, {"made": "here"})
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    assert (8 + length) % 8 == 0
    header = json.loads(content[8 : 8 + length])
    assert header == {
        "__metadata__": {"made": "here"},
        "turned": entry("F32", [3, 2], 0, 24),
        "half": entry("F16", [3], 24, 30),
    }
    assert content[8 + length :] == struct.pack("<6f3e", 0, 3, 1, 4, 2, 5, 1, 2, 3)
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]


def test_a_type_without_a_name_is_refused(tmp_path):
    with pytest.raises(UserError, match="no arrays of complex128, as 'a' is"):
        safetensors.write(tmp_path / "a", {"a": np.ones(2, np.complex128)})
    assert not list(tmp_path.iterdir())


FOUR = bytes(4)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": entry("F32", [1], 0, 4)}, b"123", "its arrays have 4 bytes, and 3 follow"),
        ({"a": entry("F32", [1], 0, 4)}, bytes(5), "its arrays have 4 bytes, and 5 follow"),
        ({"a": entry("F32", [2], 0, 4)}, FOUR, r"F32 of shape \[2\], has bytes 0 to 4"),
        ({"a": entry("F32", [1], 4, 8)}, bytes(8), "begins at byte 4 and not at 0"),
        (
            {"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 0, 4)},
            FOUR,
            "'b' begins at byte 0 and not at 4",
        ),
        ({"a": entry("F32", [2**62], 0, 2**64)}, FOUR, r"its arrays have [\d,]+ bytes, and 4"),
        ({"a": entry("F32", [-1], 4, 0)}, FOUR, "has bytes 4 to 0"),
        ({"a": entry("F32", [True], 0, 4)}, FOUR, "shape"),
        ({"a": entry("F32", [1.0], 0, 4)}, FOUR, "shape"),
        ({"a": entry("F32", "1", 0, 4)}, FOUR, "has bytes"),
        ({"a": entry("F32", 1, 0, 4)}, FOUR, "does not say where 'a' is"),
        ({"a": {"dtype": "F32"}}, FOUR, "does not say where 'a' is"),
        ({"a": 3}, FOUR, "does not say where 'a' is"),
        ({"a": entry("F12", [1], 0, 4)}, FOUR, "of the type 'F12'; known: F64, F32"),
        ({"a": entry(["F32"], [1], 0, 4)}, FOUR, "does not say where 'a' is"),
        (b'{"a": 1, "a": 2}', b"", "a name twice"),
        (b"[1, 2]", b"", "no JSON object"),
        (b"{]", b"", "no JSON"),
        (b"\xff\xff", b"", "no JSON"),
        (b"[" * 100_000, b"", "no JSON"),
    ],
)
def test_headers_that_lie(header, data, message, tmp_path):
    with pytest.raises(UserError, match=message):
        safetensors.read(by_hand(tmp_path / "a.safetensors", header, data))


@pytest.mark.parametrize("content", [b"", b"1234", struct.pack("<Q", 2**63), struct.pack("<Q", 50)])
def test_a_header_beyond_the_file(content, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"its header would have .* It has {len(content)} bytes"):
        safetensors.read(path)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.write(path, {"a": np.arange(5.0), "b": np.ones(3, np.float32)})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="no whole safetensors file"):
            safetensors.read(path)
