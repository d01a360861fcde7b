"""Parameters from elsewhere: `init.weights=SOURCE`.

A run folder gives its best variables; a file (safetensors, PyTorch, .npz) gives what
`imgrec.transfer` makes of it.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import linen as nn

from imgrec.errors import UserError
from imgrec.models import ImageShape
from imgrec.training import rules
from imgrec.training.state import TrainState, Tree
from imgrec.transfer import mapping, sources, tables

# Of files that are not there, and so cannot be looked into.
_SUFFIXES = {".safetensors", ".pth", ".pt", ".bin", ".npz", ".th", ".tar", ".ckpt"}


def check(
    source: str, state: TrainState, module: nn.Module, image_shape: ImageShape
) -> tuple[str, ...]:
    """Refuses weights that are not there or do not fit, before any work.

    Args:
      source: a run folder, or a file of weights.
      state: of the new run, shapes only.
      module: the model.
      image_shape: that it is given.

    Returns:
      What will be taken and what not, in lines for people.

    Raises:
      UserError: no such source, or names or shapes differ; the first of them are listed.
    """
    if _is_file(source):
        _, _, said = _converted(source, state, module, image_shape)
        return said
    path = _best(source)
    with ocp.StandardCheckpointer() as checkpointer:
        found = _shapes(checkpointer.metadata(path).item_metadata.tree)
    expected = _shapes(state.variables)
    problems = [
        f"{name}: {found.get(name, 'missing')} there, {expected.get(name, 'missing')} here"
        for name in sorted(found.keys() | expected.keys(), reverse=True)  # params come first
        if found.get(name) != expected.get(name)
    ]
    if problems:
        shown = "\n  ".join(problems[:10])
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise UserError(
            f"config.init.weights={source!r} holds another model; {len(problems)} of "
            f"{len(expected)} arrays differ:\n  {shown}{more}\n"
            "Set config.model and config.data as that run did (its config.json says how)."
        )
    return (f"weights: all {len(expected)} arrays of {path}",)


def load(
    source: str,
    state: TrainState,
    shardings: TrainState,
    module: nn.Module,
    image_shape: ImageShape,
) -> TrainState:
    """The state with the source's parameters and statistics, at step 0.

    Args:
      source: a run folder or a file that `check` has accepted.
      state: freshly initialised; what a file does not give (a head) stays.
      shardings: where its leaves live.
      module: the model.
      image_shape: that it is given.
    """
    if _is_file(source):
        params, model_state, _ = _converted(source, state, module, image_shape)
        params = jax.tree.map(_placed, params, shardings.params)
        variables = jax.tree.map(_placed, model_state, shardings.model_state)
    else:
        like = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            state.variables,
            shardings.variables,
        )
        with ocp.StandardCheckpointer() as checkpointer:
            variables = dict(checkpointer.restore(_best(source), like))
        params = variables.pop("params")
    average = state.average
    if average is not None:
        copies = jax.tree.map(lambda leaf: leaf.copy(), {"params": params, "state": variables})
        average = {"params": copies["params"], "model_state": copies["state"]}
    return dataclasses.replace(state, params=params, model_state=variables, average=average)


def _is_file(source: str) -> bool:
    path = Path(source)
    return path.is_file() or (not path.is_dir() and path.suffix in _SUFFIXES)


def _converted(
    source: str, state: TrainState, module: nn.Module, image_shape: ImageShape
) -> tuple[Tree, Tree, tuple[str, ...]]:
    """Parameters and statistics from a file of weights, and what is to be said of them."""
    found = sources.read(Path(source))
    try:
        table = mapping.choose(found.arrays, tables.known(module, image_shape))
        params, model_state, accounting = mapping.convert(
            found.arrays, table, state.params, state.model_state
        )
    except UserError as error:
        raise UserError(f"config.init.weights={source!r}: {error}") from None
    first, *others = accounting.lines()
    differ = [
        f"networks of this naming have {name}={value!r}, and this model has "
        f"{getattr(module, name)!r}; for their logits set --config.model.options.{name}={value}"
        for name, value in table.made_with.items()
        if getattr(module, name) != value
    ]
    said = [f"weights: {source}: {first}"]
    lines = (*found.said, *others, *differ, *table.remarks)
    return params, model_state, (*said, *(f"  {line}" for line in lines))


def _placed(value: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    """A host's array where it belongs; what lives there already stays."""
    if isinstance(value, jax.Array):
        return value
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def _best(source: str) -> Path:
    folder = Path(source).absolute() / "checkpoints" / "best"
    steps = sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())
    if not steps:
        raise UserError(
            f"config.init.weights={source!r} is no run folder with a checkpoint: there is "
            f"nothing in {folder}. Give the folder of a finished run, for example "
            "runs/digits_lenet."
        )
    return folder / str(steps[-1]) / "variables"


def _shapes(variables: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree.leaves(variables)
    shapes = [tuple(leaf.shape) for leaf in leaves]
    return dict(zip(rules.names(variables), shapes, strict=True))
