"""The mesh of devices, and where batches and parameters live on it.

Three axes: `data` and `fsdp` both cut the batch, `fsdp` and `tensor` cut parameters. Where a
parameter goes is decided by regex rules over its name; what the optimizer or the moving
average keeps for it goes to the same place.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from imgrec.config import MeshConfig
from imgrec.errors import UserError
from imgrec.training import rules
from imgrec.training.state import TrainState

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
        raise UserError(f"config.mesh ({shape}) asks for {asked} devices; there: {there}.")
    if -1 in sizes:
        if len(devices) % asked:
            raise UserError(
                f"config.mesh ({shape}): {there} cannot be shared out evenly over {asked}."
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


def check_batch(mesh: Mesh, batch_size: int, accumulate: int, field: str) -> None:
    """Refuses a batch that the mesh and the accumulation cannot cut evenly."""
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % (shards * accumulate) == 0:
        return
    unit = shards * accumulate
    below, above = batch_size // unit * unit, (batch_size // unit + 1) * unit
    parts = f"{shards} devices along data and fsdp"
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
    mine = [i for i, owner in enumerate(owners) if jax.process_index() in owner]
    first, rows = mine[0], len(mine)
    run = mine == list(range(first, first + rows))
    if not run or first % rows or len(owners) % rows:
        raise UserError(
            f"config.mesh: tensor={mesh.shape['tensor']} cuts across processes of "
            f"{len(mesh.local_devices)} devices unevenly; set mesh.tensor to a divisor or a "
            f"multiple of {len(mesh.local_devices)}."
        )
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


def state_shardings(
    state: TrainState, mesh: Mesh, placements: Sequence[tuple[str, str]]
) -> TrainState:
    """A sharding for each leaf of the state.

    Args:
      state: with shapes at its leaves.
      mesh: of `create`.
      placements: the rules of `MeshConfig`.

    Raises:
      UserError: an unknown placement, or one that does not fit a parameter's shape.
    """
    names = rules.names(state.params)
    shapes = {
        name: leaf.shape for name, leaf in zip(names, jax.tree.leaves(state.params), strict=True)
    }
    decided = rules.decide(placements, names, field="mesh.rules", default="replicate")
    specs = {
        name: _spec(placement, name, shapes[name], mesh)
        for name, placement in zip(names, decided, strict=True)
    }

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        # "opt_state/0/trace/stem/conv/kernel" ends in the name of the parameter it is kept for.
        parts = rules.name_of(path).split("/")
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            if shapes.get(name) == leaf.shape:
                return NamedSharding(mesh, specs[name])
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(place, state)


def _spec(placement: str, name: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    if placement == "replicate":
        return PartitionSpec()
    if placement == "fsdp":
        size = mesh.shape["fsdp"]
        divisible = [axis for axis, length in enumerate(shape) if length % size == 0]
        if size == 1 or not divisible:
            return PartitionSpec()
        largest = max(divisible, key=lambda axis: shape[axis])
        return PartitionSpec(*(None,) * largest, "fsdp")
    axes = [part.strip() for part in placement.split(",")]
    if unknown_axes := [axis for axis in axes if axis not in (*AXES, "-")]:
        raise UserError(
            f"config.mesh.rules: {unknown_axes[0]!r} in {placement!r} is no placement. "
            "Write 'replicate', 'fsdp' or one of -, fsdp and tensor an array axis: '-,tensor'."
        )
    if len(axes) != len(shape):
        raise UserError(
            f"config.mesh.rules: {placement!r} places {len(axes)} axes, "
            f"but {name!r} has the shape {shape}."
        )
    used = [axis for axis in axes if axis != "-"]
    if len(set(used)) < len(used):
        raise UserError(
            f"config.mesh.rules: {placement!r} for {name!r} names a mesh axis twice; "
            "each can cut one array axis only."
        )
    for axis, length in zip(axes, shape, strict=True):
        if axis != "-" and length % mesh.shape[axis]:
            raise UserError(
                f"config.mesh.rules: {placement!r} cuts {name!r} of shape {shape}, but "
                f"{mesh.shape[axis]} devices along {axis!r} do not divide {length}."
            )
    return PartitionSpec(*(None if axis == "-" else axis for axis in axes))
