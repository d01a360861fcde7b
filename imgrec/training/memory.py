"""What a step takes of a device's memory, by the compiler's own count.

Nothing is put on a device for it: the step is compiled for shapes, and the compiler says what its
arguments, results and intermediates take. The run that follows finds the program among the
compiled ones that are kept on disk.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from imgrec.errors import UserError
from imgrec.training import mesh as meshes
from imgrec.training import resident
from imgrec.training.plan import Plan


@dataclass(frozen=True)
class Need:
    """Bytes that one step takes on each device.

    Attributes:
      state: parameters, statistics, optimizer state and their average.
      data: a batch or the whole training set, and a teacher.
      work: gradients, activations and all else that the program writes on its way.
      flops: of the step, on all devices together.
    """

    state: int
    data: int
    work: int
    flops: float = math.nan

    @property
    def total(self) -> int:
        """All of it."""
        return self.state + self.data + self.work

    def __str__(self) -> str:
        parts = {
            "state": self.state,
            "data": self.data,
            "gradients and activations": self.work,
            "total": self.total,
        }
        return ", ".join(f"{name} {megabytes(size)}" for name, size in parts.items())


def of_step(plan: Plan) -> Need:
    """What a plan's step takes on each device, as it is compiled for them."""
    state, steps = placed(plan), plan.experiment.train.steps_per_call
    run, cost = plan.compile_step(state, batch_shapes(plan), steps)
    program: Any = run
    found = program.func.memory_analysis()
    held = sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(state)
    )
    # Donated arguments are counted among the results too.
    results = found.output_size_in_bytes - found.alias_size_in_bytes
    return Need(
        state=held,
        data=max(0, found.argument_size_in_bytes - held),
        work=found.temp_size_in_bytes + results,
        flops=cost["flops"],
    )


def of_device(plan: Plan) -> int:
    """Bytes of memory that one of the plan's devices has for this process."""
    local = plan.mesh.local_devices
    stats = local[0].memory_stats() or {}
    # Devices that are simulated share the host's.
    return stats.get("bytes_limit") or resident.host_memory() // len(local)


def placed(plan: Plan) -> Any:
    """Shapes of the state, with where they live."""
    return jax.tree.map(
        lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at),
        plan.state,
        plan.shardings,
    )


def batch_shapes(plan: Plan) -> Mapping[str, Any]:
    """Shapes of what the plan's feed hands out, with where they live; nothing is read."""
    c, image = plan.experiment, plan.dataset.info.image_shape

    def shape(spec: PartitionSpec, kind: Any, *axes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(axes, kind, sharding=NamedSharding(plan.mesh, spec))

    if not plan.resident:
        n, cut = c.data.batch_size, meshes.BATCH
        return {
            "image": shape(cut, jnp.uint8, n, *image),
            "label": shape(cut, jnp.int32, n),
            "index": shape(cut, jnp.int32, n),
            "mask": shape(cut, jnp.bool_, n),
        }
    n, whole, epoch = len(plan.dataset.train), PartitionSpec(), len(plan.dataset.sampling)
    epochs = resident.epochs_held(c.data.batch_size, c.train.steps_per_call, epoch)
    return {
        "source": {
            "image": shape(whole, jnp.uint8, n, *image),
            "label": shape(whole, jnp.int32, n),
        },
        "order": shape(whole, jnp.int32, epochs * epoch),
        "offset": shape(whole, jnp.int32),
    }


def megabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 1e6:,.1f} MB"


_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_size(text: str, name: str) -> int:
    """Bytes from "40GB", "80GiB" or a plain number.

    Args:
      text: what somebody typed.
      name: of what it was typed for, named in errors.

    Raises:
      UserError: it is no size above nothing.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None or not float(match[1]):
        raise UserError(f"{name}={text!r} is no size of memory; write for example {name}=40GB.")
    return int(float(match[1]) * unit)
