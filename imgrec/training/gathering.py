"""Parameters cut along `fsdp`, made whole where they are used, and their gradients cut again.

Rajbhandari et al. 2019, "ZeRO", stage 3, https://arxiv.org/abs/1910.02054: each device keeps its
part of every parameter, and has the whole of it while a layer computes, once in the forward and
once more in the backward pass. XLA finds such a program by itself only where the arrays are large
beside the batch; elsewhere it cuts the activations as the parameters are, and sends these to and
fro: a ViT of two blocks on eight devices took 101 messages a step instead of the 15 and 2 of one
for each array and two sums.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from imgrec.models.stacking import STACKED
from imgrec.training import rules
from imgrec.training.mesh import shards

Axes = tuple[str | None, ...]

# Layers that are gathered one by one; what other modules own is small beside their kernels.
_LAYERS = (nn.Dense, nn.Conv)


def gathered(params: Any, shardings: Any) -> Any:
    """The parameters whole along `fsdp`, but for kernels, which `by_layers` gathers.

    To be called by what is differentiated: gradients leave with the parameters' shardings.

    Args:
      params: arrays.
      shardings: of each.
    """

    def leaf(path: Any, param: Array, sharding: NamedSharding) -> Array:
        if rules.name_of(path).split("/")[-1] == "kernel":
            return param
        return _gathered(param, sharding.mesh, tuple(sharding.spec))

    return jax.tree_util.tree_map_with_path(leaf, params, shardings)


@contextlib.contextmanager
def by_layers(shardings: Any) -> Iterator[None]:
    """Within it, dense and convolutional layers gather their kernels when they are called.

    Each device then computes the layer for its own rows, and sends what its rows say of the
    kernel's gradient to those that keep its parts. The backward pass gathers the kernel anew, so
    that no device ever holds all of them.

    Args:
      shardings: of the model's parameters.
    """
    cut = {
        # Within a loop over blocks a layer sees its own slice of the stacked kernels.
        name: (sharding.mesh, tuple(sharding.spec)[name.split("/")[0] == STACKED :])
        for name, sharding in zip(rules.names(shardings), jax.tree.leaves(shardings), strict=True)
        if "fsdp" in sharding.spec and name.endswith("/kernel")
    }

    def intercept(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        layer = context.module
        name = "/".join((*layer.path, "kernel"))
        known = isinstance(layer, _LAYERS) and context.method_name == "__call__" and name in cut
        if not known or len(args[0]) % shards(cut[name][0]):
            return call(*args, **kwargs)
        return _apply(
            layer.clone(parent=None, name=None), layer.variables["params"], args[0], *cut[name]
        )

    if not cut:
        yield
        return
    with nn.intercept_methods(intercept):
        yield


def _apply(layer: nn.Module, params: Any, x: Array, mesh: Mesh, axes: Axes) -> Array:
    """The layer, of which `axes` say how the kernel is cut, for each device's rows."""
    if mesh.shape["tensor"] > 1:
        # Inside of `shard_map` a gathering would gather along `tensor` too.
        def whole(params: Any, x: Array) -> Any:
            kernel = _gathered(params["kernel"], mesh, axes)
            return layer.apply({"params": {**params, "kernel": kernel}}, x)

        return jax.checkpoint(whole)(dict(params), x)
    along = axes.index("fsdp")
    # An axis of one device would still send, to itself, and wait for the others' turn to do so.
    sharing = tuple(axis for axis in ("data", "fsdp") if mesh.shape[axis] > 1)
    others = tuple(axis for axis in sharing if axis != "fsdp")
    rows = PartitionSpec(sharing)

    def on_one_device(params: Any, x: Array) -> Any:
        # Said before the gathering, it makes gradients be cut before they are summed over `data`.
        kernel = jax.lax.pcast(params["kernel"], others, to="varying")
        kernel = jax.lax.all_gather(kernel, "fsdp", axis=along, tiled=True)
        return layer.apply({"params": {**params, "kernel": kernel}}, x)

    kept = {name: PartitionSpec() for name in params}
    kept["kernel"] = PartitionSpec(*(None,) * along, "fsdp")
    return jax.checkpoint(
        jax.shard_map(
            on_one_device,
            mesh=mesh,
            in_specs=(kept, rows),
            out_specs=rows,
            axis_names=frozenset(sharing),
        )
    )(dict(params), x)


def _gathered(param: Array, mesh: Any, axes: Axes) -> Array:
    if "fsdp" not in axes:
        return param
    as_kept = NamedSharding(mesh, PartitionSpec(*axes))
    whole = NamedSharding(mesh, PartitionSpec(*(None if axis == "fsdp" else axis for axis in axes)))

    @jax.custom_vjp
    def gather(cut: Array) -> Array:
        return jax.lax.with_sharding_constraint(cut, whole)

    def forward(cut: Array) -> tuple[Array, None]:
        return gather(cut), None

    def backward(_: None, gradient: Array) -> tuple[Array]:
        return (jax.lax.with_sharding_constraint(gradient, as_kept),)

    gather.defvjp(forward, backward)
    return gather(param)
