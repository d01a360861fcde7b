"""Batch normalisation over each device's own rows: what `jax.pmap` did, by `jax.shard_map`.

By definition batch norm sees the global batch (`train.bn_sync="global"`), and so a sum over the
devices waits in front of every such layer. With "per_device" each device normalises what it
holds, and nothing waits for another device before the gradients do. What is learned then depends
on how many devices share the batch: Ioffe & Szegedy 2015, algorithm 1, on a smaller batch.

During a step each device moves its own statistics, which are averaged at the step's end, as codes
with `pmap` do before they evaluate; the average being linear, it comes to the same as if they had
been averaged after every part.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from imgrec.errors import UserError
from imgrec.training.mesh import BATCH, shards

_STATISTICS = "batch_stats"
_AXES = frozenset({"data", "fsdp"})


def check(model_state: Any, model: str) -> None:
    """Refuses a model that has nothing to normalise that way.

    Raises:
      UserError: there is no batch normalisation in it.
    """
    if _STATISTICS not in model_state:
        raise UserError(
            f"config.train.bn_sync='per_device' is about batch normalisation, and {model} has "
            "none. Set --config.train.bn_sync=global, the default."
        )


def spread(model_state: Any, mesh: Mesh) -> Any:
    """The model's state with a copy of the statistics for each device, [devices, ...]."""
    everywhere = NamedSharding(mesh, BATCH)

    def copies(leaf: Array) -> Array:
        copied = jnp.broadcast_to(leaf, (shards(mesh), *leaf.shape))
        return jax.lax.with_sharding_constraint(copied, everywhere)

    return {**model_state, _STATISTICS: jax.tree.map(copies, model_state[_STATISTICS])}


def averaged(model_state: Any) -> Any:
    """The state that `spread` spread, with the mean of the devices' statistics."""
    mean = jax.tree.map(lambda leaf: leaf.mean(axis=0), model_state[_STATISTICS])
    return {**model_state, _STATISTICS: mean}


@contextlib.contextmanager
def within_devices(mesh: Mesh) -> Iterator[None]:
    """Within it, batch normalisations whose statistics are spread see their device's rows alone."""
    rows, everything = BATCH, PartitionSpec()

    def intercept(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        norm = context.module
        if not isinstance(norm, nn.BatchNorm) or context.method_name != "__call__":
            return call(*args, **kwargs)
        variables = jax.tree.map(lambda leaf: leaf, norm.variables)
        if jax.tree.leaves(variables[_STATISTICS])[0].ndim == 1:  # a device's own, below
            return call(*args, **kwargs)
        alone = norm.clone(parent=None, name=None)

        def on_one_device(params: Any, statistics: Any, x: Array) -> tuple[Array, Any]:
            own = jax.tree.map(lambda leaf: leaf[0], statistics)
            y, changed = alone.apply(
                {"params": params, _STATISTICS: own}, x, *args[1:], **kwargs, mutable=[_STATISTICS]
            )
            return y, jax.tree.map(lambda leaf: leaf[None], changed[_STATISTICS])

        y, statistics = jax.shard_map(
            on_one_device,
            mesh=mesh,
            in_specs=(everything, rows, rows),
            out_specs=(rows, rows),
            axis_names=_AXES,
        )(variables.get("params", {}), variables[_STATISTICS], args[0])
        for name, value in statistics.items():
            norm.put_variable(_STATISTICS, name, value)
        return y

    with nn.intercept_methods(intercept):
        yield
