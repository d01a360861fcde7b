import re

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from imgrec.config import MeshConfig
from imgrec.errors import UserError
from imgrec.training import mesh as meshes


def make_mesh(data=-1, fsdp=1, tensor=1):
    return meshes.create(MeshConfig(data=data, fsdp=fsdp, tensor=tensor))


@pytest.mark.parametrize(
    ("asked", "sizes"),
    [
        ((-1, 1, 1), (8, 1, 1)),
        ((-1, 2, 2), (2, 2, 2)),
        ((2, -1, 1), (2, 4, 1)),
        ((1, 2, -1), (1, 2, 4)),
        ((2, 2, 2), (2, 2, 2)),
        ((1, 1, 1), (1, 1, 1)),
        ((3, 1, 1), (3, 1, 1)),
        ((-1, 8, 1), (1, 8, 1)),
    ],
)
def test_sizes(asked, sizes):
    mesh = make_mesh(*asked)
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert tuple(mesh.shape.values()) == sizes
    assert len(set(mesh.devices.flat)) == mesh.devices.size
    assert set(mesh.devices.flat) == set(jax.devices()[: mesh.devices.size])


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(UserError, match=re.escape("(data=4, fsdp=4, tensor=1) asks for 16 devi")):
        make_mesh(4, 4)
    with pytest.raises(UserError, match=r"asks for 16 devices; .* 8 cpu devices"):
        make_mesh(-1, 16)


def test_a_rest_that_does_not_divide_is_refused():
    with pytest.raises(
        UserError, match=r"8 cpu devices cannot be shared out evenly over 3.*1, 2, 4, 8"
    ):
        make_mesh(-1, 3)


def test_several_processes_must_use_all_devices(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match=r"uses 4 of 8 cpu devices; .* Set one axis to -1"):
        make_mesh(4)


@pytest.mark.parametrize(
    ("sizes", "accumulate", "batch_size", "nearest"),
    [
        ((4, 1, 1), 1, 30, "28 or 32"),
        ((2, 2, 2), 1, 30, "28 or 32"),  # the tensor axis does not cut the batch
        ((8, 1, 1), 4, 100, "96 or 128"),
        ((8, 1, 1), 1, 7, "8"),
        ((1, 1, 1), 3, 128, "126 or 129"),
    ],
)
def test_a_batch_that_cannot_be_cut_is_refused_with_the_nearest(
    sizes, accumulate, batch_size, nearest
):
    mesh = make_mesh(*sizes)
    with pytest.raises(UserError) as refusal:
        meshes.check_batch(mesh, batch_size, accumulate, "data.batch_size")
    message = str(refusal.value)
    assert message.startswith(f"config.data.batch_size={batch_size} cannot be cut evenly over ")
    assert message.endswith(f"Nearest that can: {nearest}.")
    assert (f"train.accumulate={accumulate}" in message) == (accumulate > 1)
    for fitting in map(int, nearest.split(" or ")):
        meshes.check_batch(mesh, fitting, accumulate, "data.batch_size")


def test_a_batch_is_cut_over_data_and_fsdp():
    mesh = make_mesh(2, 2, 2)
    batch = {
        "image": np.arange(8 * 4, dtype=np.uint8).reshape(8, 2, 2, 1),
        "label": np.arange(8, dtype=np.int32),
        "index": np.arange(100, 108, dtype=np.int64),
        "mask": np.ones(8, np.bool_),
    }
    placed = meshes.put_batch(mesh, batch)
    assert {name: value.dtype for name, value in placed.items()} == {
        "image": np.uint8,
        "label": np.int32,
        "index": np.int32,  # what JAX has
        "mask": np.bool_,
    }
    for name, value in placed.items():
        assert value.sharding.spec == PartitionSpec(("data", "fsdp"))
        np.testing.assert_array_equal(value, batch[name])
        for shard in value.addressable_shards:
            data, fsdp, _ = np.argwhere(mesh.devices == shard.device)[0]
            first = 2 * (2 * data + fsdp)
            np.testing.assert_array_equal(shard.data, batch[name][first : first + 2])


@pytest.mark.parametrize(
    ("owners", "shares"),
    [
        ([{0}] * 4, {0: (0, 1)}),
        ([{0}, {0}, {1}, {1}], {0: (0, 2), 1: (1, 2)}),
        ([{0, 1}], {0: (0, 1), 1: (0, 1)}),  # tensor over both: each holds all rows
        ([{0, 1}, {2, 3}], {0: (0, 2), 1: (0, 2), 2: (1, 2), 3: (1, 2)}),
        ([{0, 1}, {1, 2}], {0: (0, 2), 1: (0, 1), 2: (1, 2)}),
        ([{0}, {0, 1}, {1}], {0: None, 1: None}),
        ([{0}, {1}, {0}, {1}], {0: None, 1: None}),
    ],
)
def test_a_process_reads_the_rows_that_its_devices_hold(owners, shares):
    assert {process: meshes.share_of(process, owners) for process in shares} == shares


def test_one_process_reads_all_rows():
    assert meshes.share_of_batch(meshes.create(MeshConfig(data=2, tensor=4))) == (0, 1)
