"""Where each parameter lives on the mesh, by rules over its name.

What the optimizer or the moving average keeps for a parameter goes to the same place. By
default ("auto") that is what most people would write down by hand: along `tensor` the layers of
transformers are cut as `imgrec.training.tensor_parallel` says, and along `fsdp` the largest axis
of every array that is left.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imgrec.errors import UserError
from imgrec.models.stacking import STACKED
from imgrec.training import rules, tensor_parallel
from imgrec.training.mesh import AXES
from imgrec.training.state import TrainState

Rules = Sequence[tuple[str, str]]
Axes = tuple[str | None, ...]
"""For each axis of an array the mesh axis that cuts it, if any."""

FIELD = "mesh.rules"


def state_shardings(state: TrainState, mesh: Mesh, placements: Rules) -> TrainState:
    """A sharding for each leaf of the state.

    Args:
      state: with shapes at its leaves.
      mesh: of `mesh.create`.
      placements: the rules of `MeshConfig`.

    Raises:
      UserError: an unknown placement, or one that does not fit a parameter's shape.
    """
    names = rules.names(state.params)
    shapes = {
        name: leaf.shape for name, leaf in zip(names, jax.tree.leaves(state.params), strict=True)
    }
    specs = {
        name: PartitionSpec(*_trimmed(_axes(placement, name, shapes[name], mesh)))
        for name, placement in decided(names, placements).items()
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


def decided(names: Sequence[str], placements: Rules) -> dict[str, str]:
    """The placement that the rules give each parameter, by its name."""
    found = rules.decide(placements, names, field=FIELD, default="auto")
    return dict(zip(names, found, strict=True))


def describe(params: Any, shardings: Any, mesh: Mesh) -> list[str]:
    """One line on what is cut and what stays whole, or none where the mesh cuts no parameters."""
    if mesh.shape["fsdp"] == mesh.shape["tensor"] == 1:
        return []
    sizes = dict.fromkeys(("fsdp", "tensor", "whole"), 0)
    whole: list[tuple[int, str]] = []
    leaves = zip(jax.tree.leaves(params), jax.tree.leaves(shardings), strict=True)
    for name, (leaf, sharding) in zip(rules.names(params), leaves, strict=True):
        size = leaf.size * leaf.dtype.itemsize
        for axis in ("fsdp", "tensor"):
            sizes[axis] += size * (axis in sharding.spec)
        if sharding.is_fully_replicated:
            whole.append((size, name))
            sizes["whole"] += size
    total = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    cut = [
        f"{axis} cuts {100 * sizes[axis] / total:.1f} % into {mesh.shape[axis]}"
        for axis in ("fsdp", "tensor")
        if mesh.shape[axis] > 1
    ]
    line = f"placement: of {total / 1e6:,.1f} MB of parameters {', '.join(cut)}"
    if whole:
        size, largest = max(whole)
        line += (
            f"; whole on every device: {sizes['whole'] / 1e6:,.2f} MB in {len(whole)} arrays, "
            f"the largest {largest} with {size / 1e6:,.2f} MB"
        )
    return [line]


def _axes(placement: str, name: str, shape: tuple[int, ...], mesh: Mesh) -> Axes:
    whole: Axes = (None,) * len(shape)
    if placement == "replicate":
        return whole
    if placement == "auto":
        axes = tensor_parallel.axes(name, shape, mesh.shape["tensor"])
        # A loop over blocks takes its turn's slice of the first axis.
        taken = 1 if name.split("/")[0] == STACKED else 0
        # A vector is nothing in memory, and yet a message of its own each time it is gathered.
        if sum(length > 1 for length in shape[taken:]) < 2:
            return axes
        return _cut_by_fsdp(axes, shape, mesh.shape["fsdp"], taken) or axes
    if placement == "fsdp":
        size = mesh.shape["fsdp"]
        axes_or_none = _cut_by_fsdp(whole, shape, size)
        if axes_or_none is None:
            raise _refuse_fsdp(name, shape, mesh)
        return axes_or_none
    return _written_out(placement, name, shape, mesh)


def _cut_by_fsdp(axes: Axes, shape: tuple[int, ...], size: int, taken: int = 0) -> Axes | None:
    """`axes` with the largest that is free and divides, the first `taken` left out; or None."""
    if size == 1:
        return axes
    free = [
        axis
        for axis in range(taken, len(shape))
        if axes[axis] is None and shape[axis] % size == 0 and shape[axis]
    ]
    if not free:
        return None
    largest = max(free, key=lambda axis: shape[axis])
    return (*axes[:largest], "fsdp", *axes[largest + 1 :])


def _written_out(placement: str, name: str, shape: tuple[int, ...], mesh: Mesh) -> Axes:
    axes = [part.strip() for part in placement.split(",")]
    if unknown_axes := [axis for axis in axes if axis not in (*AXES, "-")]:
        raise UserError(
            f"config.{FIELD}: {unknown_axes[0]!r} in {placement!r} is no placement. Write 'auto', "
            "'replicate', 'fsdp' or one of -, fsdp and tensor an array axis: '-,tensor'."
        )
    if len(axes) != len(shape):
        raise UserError(
            f"config.{FIELD}: {placement!r} places {len(axes)} axes, "
            f"but {name!r} has the shape {shape}."
        )
    used = [axis for axis in axes if axis != "-"]
    if len(set(used)) < len(used):
        raise UserError(
            f"config.{FIELD}: {placement!r} for {name!r} names a mesh axis twice; "
            "each can cut one array axis only."
        )
    for axis, length in zip(axes, shape, strict=True):
        if axis != "-" and length % mesh.shape[axis]:
            fitting = ", ".join(map(str, _sizes_that_divide((length,), mesh.devices.size)))
            raise UserError(
                f"config.{FIELD}: {placement!r} cuts {name!r} of shape {shape}, but "
                f"{mesh.shape[axis]} devices along {axis!r} do not divide {length}. Numbers of "
                f"devices that do: {fitting}; or keep it whole by a rule before: "
                f"({name!r}, 'replicate')."
            )
    return tuple(None if axis == "-" else axis for axis in axes)


def _refuse_fsdp(name: str, shape: tuple[int, ...], mesh: Mesh) -> UserError:
    fitting = ", ".join(map(str, _sizes_that_divide(shape, mesh.devices.size)))
    return UserError(
        f"config.{FIELD}: 'fsdp' cuts {name!r} of shape {shape}, but {mesh.shape['fsdp']} devices "
        f"along 'fsdp' divide none of its axes. Sizes of mesh.fsdp that do: {fitting}; or keep it "
        f"whole by a rule before: ({name!r}, 'replicate'); or write 'auto', which keeps whole what "
        "it cannot cut."
    )


def _sizes_that_divide(shape: tuple[int, ...], devices: int) -> list[int]:
    """Numbers of devices, of so many, that divide at least one of the axes."""
    return [n for n in range(1, devices + 1) if any(math.gcd(n, axis) == n for axis in shape)]


def _trimmed(axes: Axes) -> Axes:
    """Without what says nothing at the end, as JAX writes the same sharding itself."""
    last = max((i for i, axis in enumerate(axes) if axis), default=-1)
    return axes[: last + 1]
