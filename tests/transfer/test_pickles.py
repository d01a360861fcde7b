"""PyTorch's files against PyTorch itself: every type and layout, cut files, false sizes."""

import argparse
import collections
import io
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from imgrec.errors import UserError
from imgrec.transfer import pickles

torch = pytest.importorskip("torch")

FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INTS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
OTHERS = [torch.complex64, torch.complex128, torch.uint16, torch.uint32, torch.uint64]
OTHERS += [torch.float8_e4m3fn, torch.float8_e5m2]


def save(value, path, legacy):
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    return path


def rewritten(source, target, change):
    """A copy of a zip file with members changed: change(name, content) -> content or None."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            content = change(info.filename, old.read(info))
            if content is not None:
                new.writestr(info.filename, content)
    return target


@FORMATS
@pytest.mark.parametrize("dtype", FLOATS + INTS + OTHERS, ids=str)
def test_every_type_bit_for_bit(dtype, legacy, tmp_path):
    bits = torch.arange(96, dtype=torch.uint8)
    tensor = (bits % 2).bool() if dtype == torch.bool else bits.view(dtype)
    array = pickles.read(save({"a": tensor}, tmp_path / "a.pth", legacy))["a"]
    assert str(array.dtype) == str(dtype).removeprefix("torch.")
    assert array.shape == tensor.shape
    np.testing.assert_array_equal(
        np.ascontiguousarray(array).view(np.uint8), tensor.view(torch.uint8).numpy()
    )


@FORMATS
def test_layouts(legacy, tmp_path):
    base = torch.arange(120.0).reshape(4, 5, 6)
    tensors = {
        "whole": base,
        "transposed": base.permute(2, 0, 1),
        "offset": base[1:, ::2, 3],
        "channels_last": base[None, 1:].to(memory_format=torch.channels_last),
        "expanded": torch.arange(3.0)[:, None].expand(3, 1000),
        "scalar": torch.tensor(7.0),
        "empty": torch.zeros(0, 3),
    }
    found = pickles.read(save(tensors, tmp_path / "a.pth", legacy))
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor.numpy(), err_msg=name)
        assert found[name].size == 0 or not found[name].flags.writeable
    assert np.shares_memory(found["whole"], found["offset"])


@FORMATS
def test_what_training_scripts_save_beside_tensors(legacy, tmp_path):
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5])
    parameter = torch.nn.Parameter(torch.ones(2))
    annotated = torch.nn.Parameter(torch.ones(3))
    annotated.decay = False
    found = pickles.read(
        save(
            {
                "state_dict": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "milestones": scheduler.state_dict()["milestones"],
                "parameters": [parameter, annotated],
                "epoch": 3,
                "size": torch.Size([1, 2]),
                "device": torch.device("cuda:1"),
                "dtype": torch.float16,
            },
            tmp_path / "a.pth.tar",
            legacy,
        )
    )
    assert list(found["state_dict"]) == list(network.state_dict())
    for name, tensor in network.state_dict().items():
        np.testing.assert_array_equal(found["state_dict"][name], tensor.numpy())
    assert found["state_dict"]["1.num_batches_tracked"] == 1
    assert found["milestones"] == collections.Counter([2, 5])
    assert [p.shape for p in found["parameters"]] == [(2,), (3,)]
    assert (found["epoch"], found["size"], found["dtype"]) == (3, (1, 2), np.float16)
    assert found["device"] == "cuda:1"


def test_the_other_byte_order_as_torch_reads_it(tmp_path):
    tensors = {"a": torch.arange(6.0)[1:], "b": torch.tensor([1 + 2j]), "c": torch.arange(5)}
    tensors["d"] = torch.arange(4.0).bfloat16()
    widths = iter([4, 4, 8, 2])  # of the units of storages 0 to 3

    def swap(name, content):
        if name.endswith("/byteorder"):
            return b"big"
        if "/data/" in name:
            units = np.frombuffer(content, np.uint8).reshape(-1, next(widths))
            return units[:, ::-1].tobytes()
        return content

    little = save(tensors, tmp_path / "little.pth", False)
    big = rewritten(little, tmp_path / "big.pth", swap)
    found = pickles.read(big)
    for name, tensor in torch.load(big, weights_only=True).items():
        assert tensor.equal(tensors[name])
        expected = tensor.float().numpy() if name == "d" else tensor.numpy()
        np.testing.assert_array_equal(found[name].astype(expected.dtype), expected)
    assert found["d"].dtype == ml_dtypes.bfloat16


class Executed:
    def __reduce__(self):
        return (print, ("executed",))


@FORMATS
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (argparse.Namespace(lr=0.1), "argparse.Namespace"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        (Executed(), "print"),
        (torch.eye(2).to_sparse(), "torch._utils._rebuild_sparse_tensor"),
    ],
    ids=["namespace", "network", "attack", "sparse"],
)
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_other_classes_are_refused_by_name(value, name, legacy, tmp_path, capsys):
    path = save({"state_dict": {"a": torch.ones(2)}, "args": value}, tmp_path / "a.pth", legacy)
    with pytest.raises(UserError, match=rf"asks for [\w.]*{name}\b.*Nothing in it was executed"):
        pickles.read(path)
    assert capsys.readouterr().out == ""


@FORMATS
def test_a_file_cut_anywhere_is_refused(legacy, tmp_path):
    network = torch.nn.Linear(3, 4)
    whole = save(network.state_dict(), tmp_path / "whole.pth", legacy).read_bytes()
    cut = tmp_path / "cut.pth"
    # The zip's last bytes and the old format's first are those that tell what it is.
    for length in [*range(16, len(whole), 7), len(whole) - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cannot be read.*fetch it again"):
            pickles.read(cut)
    cut.write_bytes(whole)
    assert set(pickles.read(cut)) == {"weight", "bias"}


def test_flipped_bytes_never_crash_the_reader(tmp_path):
    """Whatever byte is wrong, the file is read or refused; it raises nothing else."""
    rng = np.random.default_rng(0)
    for legacy in (False, True):
        whole = save({"a": torch.ones(3, 2)}, tmp_path / "whole.pth", legacy).read_bytes()
        for _ in range(300):
            content = bytearray(whole)
            for place in rng.integers(0, len(whole), 3):
                content[place] = rng.integers(256)
            (tmp_path / "a.pth").write_bytes(content)
            try:
                pickles.read(tmp_path / "a.pth")
            except UserError:
                continue


def test_a_storage_that_claims_more_than_the_file_is_refused_before_memory_is_asked(tmp_path):
    path = save({"a": torch.ones(3)}, tmp_path / "a.pth", True)
    content = path.read_bytes()
    # The number of elements is the last number before the tensor's None.
    assert content.count(b"K\x03N") == 1
    path.write_bytes(content.replace(b"K\x03N", b"\x8a\x06\xff\xff\xff\xff\xff\x00N"))
    with pytest.raises(UserError, match="claim more bytes than the file has"):
        pickles.read(path)


@pytest.mark.parametrize("number", [b"\x8a\x05\xff\xff\xff\xff\x00", b"J\xff\xff\xff\xff"])
def test_a_tensor_beyond_its_storage_is_refused(number, tmp_path):
    plain = save({"a": torch.ones(7)}, tmp_path / "plain.pth", False)

    def longer(name, content):
        # The shape (7,) is the only tuple of one number before the strides (1,).
        return content.replace(b"K\x07\x85", number + b"\x85") if name.endswith("pkl") else content

    path = rewritten(plain, tmp_path / "a.pth", longer)
    with pytest.raises(UserError, match=r"reaches beyond its storage|impossible shape"):
        pickles.read(path)


def test_a_zip_whose_members_lie(tmp_path):
    plain = save({"a": torch.ones(7)}, tmp_path / "plain.pth", False)
    path = tmp_path / "a.pth"

    rewritten(plain, path, lambda name, content: None if "/data/" in name else content)
    with pytest.raises(UserError, match=r"lacks the member '.*data/0'"):
        pickles.read(path)

    rewritten(plain, path, lambda name, content: content[:-4] if "/data/" in name else content)
    with pytest.raises(UserError, match="24 bytes, and 7 elements of 4 bytes were announced"):
        pickles.read(path)

    rewritten(plain, path, lambda name, content: None if name.endswith("pkl") else content)
    with pytest.raises(UserError, match=r"not one that torch.save wrote"):
        pickles.read(path)

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("a/data.pkl", bytes(10_000_000))
    with pytest.raises(UserError, match="is compressed, which PyTorch never does"):
        pickles.read(path)

    content = plain.read_bytes()
    ones = struct.pack("<7f", *[1.0] * 7)
    path.write_bytes(content.replace(ones, struct.pack("<7f", *[2.0] * 7)))
    with pytest.raises(UserError, match="damaged"):
        pickles.read(path)


def test_torchscript_is_refused_with_what_to_do(tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("net/data.pkl", b"\x80\x02}.")
        archive.writestr("net/constants.pkl", b"\x80\x02).")
    path = tmp_path / "a.pt"
    path.write_bytes(stream.getvalue())
    with pytest.raises(UserError, match=r"TorchScript program; save the state_dict\(\)"):
        pickles.read(path)


def test_parts_of_storages_as_the_oldest_files_name_them():
    kind = pickles.StorageType(np.dtype(np.float32))
    storage = pickles.Storage(np.arange(6, dtype=np.float32).view(np.uint8), kind)
    part = pickles._part(storage, ("storage", kind, "0", "cpu", 6, ("1", 2, 3)))
    np.testing.assert_array_equal(part.raw.view(np.float32), [2, 3, 4])
    with pytest.raises(pickles.MalformedError, match="reaches beyond"):
        pickles._part(storage, ("storage", kind, "0", "cpu", 6, ("1", 4, 3)))
