"""Files of weights by their content, not their name, and what people fetch by mistake."""

import numpy as np
import pytest

from imgrec.errors import UserError
from imgrec.transfer import safetensors, sources

A = np.arange(3, dtype=np.float32)


def test_the_format_is_in_the_content(tmp_path):
    torch = pytest.importorskip("torch")
    tensor = {"a": torch.from_numpy(A)}
    torch.save(tensor, tmp_path / "zip.bin")
    torch.save(tensor, tmp_path / "legacy.th", _use_new_zipfile_serialization=False)
    safetensors.write(tmp_path / "model.bin", {"a": A})
    np.savez(tmp_path / "big.npz", a=A)
    (tmp_path / "big.npz").rename(tmp_path / "big.weights")
    for name in ("zip.bin", "legacy.th", "model.bin", "big.weights"):
        found = sources.read(tmp_path / name)
        assert list(found.arrays) == ["a"], name
        np.testing.assert_array_equal(found.arrays["a"], A)
        assert found.said == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\n<html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1f\x8b\x08", "gunzip"),
        (b"\x80\x04\x95", "a pickle that torch.save did not write"),
        (b"\xff\xd8\xff\xe0", r"begins with b'\\xff\\xd8"),
        (b"PK\x03\x04 and no more", "has no table of contents at its end"),
    ],
)
def test_what_is_no_checkpoint(content, message, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        sources.read(path)


def test_a_half_downloaded_npz_is_called_that(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(UserError, match=r"no whole \.npz file"):
        sources.read(tmp_path / "a.npz")


def test_a_file_that_is_not_there(tmp_path):
    (tmp_path / "resnet20.th").touch()
    with pytest.raises(UserError, match=r"no file .*resnet2\.th\. Did you mean .*resnet20\.th\?"):
        sources.read(tmp_path / "resnet2.th")
    with pytest.raises(UserError, match=r"There is no file .*b\.pth\.$"):
        sources.read(tmp_path / "nowhere" / "b.pth")


def test_arrays_are_found_where_checkpoints_keep_them(tmp_path):
    for tree, said in [
        ({"a": A}, ()),
        ({"a": A, "version": 3}, ("left out, as no arrays: 'version'",)),
        ({"state_dict": {"a": A}}, ("taken from 'state_dict'",)),
        (
            {"epoch": 3, "state_dict": {"a": A}, "best_prec1": np.float32(91)},
            ("taken from 'state_dict'; beside it and left out: 'epoch', 'best_prec1'",),
        ),
        (
            {"state_dict": {"a": A + 1}, "state_dict_ema": {"a": A}},
            ("taken from 'state_dict_ema'; beside it and left out: 'state_dict'",),
        ),
        (
            {"model": {"state_dict": {"a": A}}, "lr": 0.1},
            ("taken from 'model'; beside it and left out: 'lr'", "taken from 'state_dict'"),
        ),
    ]:
        found = sources.unwrap(tree, tmp_path)
        assert list(found.arrays) == ["a"]
        np.testing.assert_array_equal(found.arrays["a"], A)
        assert found.said == said


def test_trees_without_arrays_are_refused(tmp_path):
    nested = {}
    nested["model"] = nested
    for tree, message in [
        ([A], "no named arrays: a list"),
        (A, "no named arrays: a ndarray"),
        ({"epoch": 3, "arch": "vit"}, "no named arrays: a dict with 'epoch', 'arch'"),
        ({"state_dict": {"a": 1}}, "no named arrays: a dict with 'a'"),
        (nested, "no named arrays: a dict with 'model'"),
    ]:
        with pytest.raises(UserError, match=message):
            sources.unwrap(tree, tmp_path)
