"""Parameters of equal blocks, each under its own name or all in one array.

A model with `scan_layers` keeps "block0/mlp/out/kernel", "block1/..." as one array
"blocks/mlp/out/kernel" with the blocks along its first axis. Both are the same network, so
weights of either are turned into the other's here.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import NamedSharding, PartitionSpec

Tree = Any

STACKED = "blocks"
"""The part of a name that stands for all blocks."""

_SINGLE = re.compile(r"block(\d+)")


def is_stacked(params: Mapping[str, Tree]) -> bool:
    """Whether these parameters are a loop's."""
    return STACKED in params


def portable(module: nn.Module) -> nn.Module:
    """The same network for whoever evaluates it, whatever it was trained on.

    Each block has its own name, and attention is computed by what is there.
    """
    if not hasattr(module, "scan_layers"):
        return module
    return module.clone(scan_layers=False, attention="auto")


def stacked(params: Mapping[str, Tree]) -> dict[str, Tree]:
    """Parameters of single blocks as those of a loop; what is stacked already stays.

    Args:
      params: arrays (those on the host stay there), or shapes, whose shardings follow, at the
        leaves.
    """
    numbers = {name: n for name in params if (n := block_number(name)) is not None}
    rest = {name: value for name, value in params.items() if name not in numbers}
    if not numbers:
        return rest
    blocks = [params[name] for name in sorted(numbers, key=lambda name: numbers[name])]
    return rest | {STACKED: jax.tree.map(_stack, *blocks)}


def unstacked(params: Mapping[str, Tree]) -> dict[str, Tree]:
    """Parameters of a loop as those of single blocks; what is not stacked stays."""
    rest = {name: value for name, value in params.items() if name != STACKED}
    return rest | (singles(params[STACKED]) if STACKED in params else {})


def singles(blocks: Tree) -> dict[str, Tree]:
    """What a loop has under "blocks", by the names of single blocks."""
    depth = jax.tree.leaves(blocks)[0].shape[0]
    return {f"block{i}": jax.tree.map(_pick(i), blocks) for i in range(depth)}


def block_number(part: str) -> int | None:
    """3 for "block3"; None for what is no single block."""
    match = _SINGLE.fullmatch(part)
    return int(match[1]) if match else None


def _stack(*leaves: Any) -> Any:
    first = leaves[0]
    if isinstance(first, jax.ShapeDtypeStruct):
        shape = (len(leaves), *first.shape)
        spec = None if first.sharding is None else (None, *first.sharding.spec)
        return _shape(shape, first, spec)
    return (np if isinstance(first, np.ndarray) else jnp).stack(leaves)


def _pick(i: int) -> Callable[[Any], Any]:
    def pick(leaf: Any) -> Any:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            spec = None if leaf.sharding is None else leaf.sharding.spec[1:]
            return _shape(leaf.shape[1:], leaf, spec)
        return leaf[i]

    return pick


def _shape(shape: tuple[int, ...], like: Any, spec: Sequence[Any] | None) -> jax.ShapeDtypeStruct:
    sharding = None if spec is None else NamedSharding(like.sharding.mesh, PartitionSpec(*spec))
    return jax.ShapeDtypeStruct(shape, like.dtype, sharding=sharding)
