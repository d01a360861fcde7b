"""The mesh of devices, and how a batch is laid over it.

Three axes: `data` and `fsdp` both cut the batch, `fsdp` and `tensor` cut parameters, which is the
subject of `imgrec.training.placement`.
"""

import math
from collections.abc import Mapping, Sequence, Set

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from imgrec.config import MeshConfig
from imgrec.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))


def create(config: MeshConfig) -> Mesh:
    """The mesh of an experiment over the devices at hand.

    A single process may ask for fewer devices than it has, and gets the first ones.

    Raises:
      UserError: more devices asked for than there are, or a rest that does not divide.
    """
    devices = jax.devices()
    sizes = [config.data, config.fsdp, config.tensor]
    asked = math.prod(size for size in sizes if size != -1)
    shape = f"data={sizes[0]}, fsdp={sizes[1]}, tensor={sizes[2]}"
    there = f"{len(devices)} {devices[0].platform} device{'s' * (len(devices) > 1)}"
    if asked > len(devices):
        simulate = f"; or simulate more on the CPU by JAX_NUM_CPU_DEVICES={asked}"
        raise UserError(
            f"config.mesh ({shape}) asks for {asked} devices; there: {there}. Set one axis to -1 "
            "for all that the others leave"
            + (simulate if devices[0].platform == "cpu" else "")
            + "."
        )
    if -1 in sizes:
        if len(devices) % asked:
            fitting = [n for n in range(1, len(devices) + 1) if len(devices) % n == 0]
            raise UserError(
                f"config.mesh ({shape}): {there} cannot be shared out evenly over {asked}. The "
                f"axes that are not -1 have to multiply to one of {', '.join(map(str, fitting))}."
            )
        sizes[sizes.index(-1)] = len(devices) // asked
    elif asked < len(devices) and jax.process_count() > 1:
        raise UserError(
            f"config.mesh ({shape}) uses {asked} of {there}; with several processes it must "
            "use them all. Set one axis to -1."
        )
    count = math.prod(sizes)
    return jax.make_mesh(
        tuple(sizes), AXES, devices=devices[:count], axis_types=(AxisType.Auto,) * len(AXES)
    )


def shards(mesh: Mesh) -> int:
    """Parts that a batch is cut into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_batch(mesh: Mesh, batch_size: int, accumulate: int, field: str) -> None:
    """Refuses a batch that the mesh and the accumulation cannot cut evenly."""
    unit = shards(mesh) * accumulate
    if batch_size % unit == 0:
        return
    below, above = batch_size // unit * unit, (batch_size // unit + 1) * unit
    parts = f"{shards(mesh)} devices along data and fsdp"
    if accumulate > 1:
        parts += f" times train.accumulate={accumulate}"
    near = f"{below} or {above}" if below else f"{above}"
    raise UserError(
        f"config.{field}={batch_size} cannot be cut evenly over {parts}. Nearest that can: {near}."
    )


def share_of_batch(mesh: Mesh) -> tuple[int, int]:
    """(i, n): this process reads the i-th of n equal runs of rows of each global batch.

    That is one run for each process, but where `tensor` reaches over several processes, these
    hold, and so read, the same rows.

    Raises:
      UserError: the rows of a process are no such run.
    """
    holders = mesh.devices.reshape(-1, mesh.shape["tensor"])  # of each shard of the batch
    owners = [{device.process_index for device in shard} for shard in holders]
    share = share_of(jax.process_index(), owners)
    if share is None:
        raise UserError(
            f"config.mesh: tensor={mesh.shape['tensor']} cuts across processes of "
            f"{len(mesh.local_devices)} devices unevenly; set mesh.tensor to a divisor or a "
            f"multiple of {len(mesh.local_devices)}."
        )
    return share


def share_of(process: int, owners: Sequence[Set[int]]) -> tuple[int, int] | None:
    """`share_of_batch` by which processes hold each shard; None where there is none."""
    mine = [i for i, owner in enumerate(owners) if process in owner]
    first, rows = mine[0], len(mine)
    if mine != list(range(first, first + rows)) or first % rows or len(owners) % rows:
        return None
    return first // rows, len(owners) // rows


def put_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """This process's rows of a batch, as part of the global batch on the devices."""
    sharding = NamedSharding(mesh, BATCH)
    _, shares = share_of_batch(mesh)

    def put_rows(value: np.ndarray) -> jax.Array:
        value = value.astype(np.int32) if value.dtype == np.int64 else value
        return put(value, sharding, (len(value) * shares, *value.shape[1:]))

    return {name: put_rows(value) for name, value in batch.items()}


def put(value: np.ndarray, sharding: NamedSharding, shape: tuple[int, ...]) -> jax.Array:
    """This process's part of an array of this shape, where it belongs on the devices."""
    # With several processes JAX takes this for a transfer that nobody meant.
    with jax.transfer_guard("allow"):
        return jax.make_array_from_process_local_data(sharding, value, shape)
