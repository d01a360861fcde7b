"""The .npz files of big_vision: what is taken, what is bfloat16, and what is refused."""

import io
import zipfile

import ml_dtypes
import numpy as np
import pytest

from imgrec.errors import UserError
from imgrec.transfer import bigvision


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def lying(path, header_shape):
    """A file whose one member announces more than it holds."""
    stream = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": header_shape}
    np.lib.format.write_array_header_1_0(stream, header)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", stream.getvalue() + bytes(16))
    return path


def test_the_parameters_of_a_training_state_are_taken_alone(tmp_path):
    kernel = np.arange(6.0).reshape(2, 3)
    path = save(
        tmp_path / "a.npz",
        **{"params/embedding/kernel": kernel, "opt/0/mu/embedding/kernel": kernel + 1},
    )
    found = bigvision.read(path)
    assert list(found) == ["params/embedding/kernel"]
    np.testing.assert_array_equal(found["params/embedding/kernel"], kernel)


def test_files_without_a_prefix_and_in_any_layout(tmp_path):
    arrays = {
        "cls": np.ones((1, 1, 4), np.float16),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "scalar": np.float32(3),
        "empty": np.zeros((0, 2)),
    }
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    found = bigvision.read(tmp_path / "a.npz")
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_two_bytes_without_a_meaning_are_bfloat16(tmp_path):
    values = np.arange(5).astype(ml_dtypes.bfloat16)
    found = bigvision.read(save(tmp_path / "a.npz", a=values))["a"]
    assert found.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found, values)


def test_blocks_under_a_scan_are_taken_apart(tmp_path):
    stacked = np.arange(24.0).reshape(2, 3, 4)
    name = "params/Transformer/encoderblock/MlpBlock_0/Dense_0/kernel"
    found = bigvision.read(save(tmp_path / "a.npz", **{name: stacked}))
    assert list(found) == [name.replace("block/", f"block_{i}/") for i in range(2)]
    np.testing.assert_array_equal(found[name.replace("block/", "block_1/")], stacked[1])


def test_python_objects_are_refused_unread(tmp_path):
    class Executed:
        def __reduce__(self):
            return (print, ("executed",))

    path = save(tmp_path / "a.npz", a=np.array([Executed()], object))
    with pytest.raises(UserError, match=r"a\.npy holds Python objects"):
        bigvision.read(path)


def test_sizes_that_lie(tmp_path):
    with pytest.raises(UserError, match="another size than its header says"):
        bigvision.read(lying(tmp_path / "a.npz", (5,)))
    with pytest.raises(UserError, match="another size than its header says"):
        bigvision.read(lying(tmp_path / "a.npz", (3,)))
    with pytest.raises(UserError, match="another size than its header says"):
        bigvision.read(lying(tmp_path / "a.npz", (10**12,)))
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(10_000_000, np.uint8))
    with pytest.raises(UserError, match="over a hundred times the file's size"):
        bigvision.read(tmp_path / "bomb.npz")


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = save(tmp_path / "a.npz", a=np.arange(5.0), b=np.ones(3))
    whole = path.read_bytes()
    for length in range(0, len(whole), 11):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"no whole \.npz file"):
            bigvision.read(path)
