"""Parameters from elsewhere: `init.weights=SOURCE`.

A run folder gives its best variables; a file (safetensors, PyTorch, .npz), or the installed file
that a name stands for, gives what `imgrec.transfer` makes of it.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import linen as nn
from jax.sharding import NamedSharding, PartitionSpec

from imgrec.errors import UserError, nearest
from imgrec.models import ImageShape, stacking
from imgrec.training import rules
from imgrec.training.state import TrainState, Tree
from imgrec.transfer import mapping, pretrained, sources, tables

# Of files that are not there, and so cannot be looked into.
_SUFFIXES = {".safetensors", ".pth", ".pt", ".bin", ".npz", ".th", ".tar", ".ckpt"}


def check(
    source: str,
    state: TrainState,
    module: nn.Module,
    image_shape: ImageShape,
    *,
    new_head: bool = False,
) -> tuple[str, ...]:
    """Refuses weights that are not there or do not fit, before any work.

    Args:
      source: a run folder, a file of weights, or the name of published ones.
      state: of the new run, shapes only.
      module: the model.
      image_shape: that it is given.
      new_head: the head starts afresh, even where there is one for as many classes.

    Returns:
      What will be taken and what not, in lines for people.

    Raises:
      UserError: no such source, or names or shapes differ; the first of them are listed.
    """
    file = _file(source)
    if file is not None:
        _, _, said = _converted(source, file, state, module, image_shape, new_head)
        return said
    path = _best(source)
    looped = stacking.is_stacked(state.params)
    found, expected = shapes(_laid(_saved(path), looped)), shapes(state.variables)
    head, why = _fresh_head(found, expected, new_head)
    problems = [
        f"{name}: {found.get(name, 'missing')} there, {expected.get(name, 'missing')} here"
        for name in sorted(found.keys() | expected.keys(), reverse=True)  # params come first
        if found.get(name) != expected.get(name) and name not in head
    ]
    if problems:
        shown = "\n  ".join(problems[:10])
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise UserError(
            f"config.init.weights={source!r} holds another model; {len(problems)} of "
            f"{len(expected)} arrays differ:\n  {shown}{more}\n"
            "Set config.model and config.data as that run did (its config.json says how)."
        )
    if not head:
        return (f"weights: all {len(expected)} arrays of {path}",)
    return (
        f"weights: {len(expected) - len(head)} of the {len(found)} arrays of {path}",
        f"  NEW HEAD: {', '.join(sorted(head))} start afresh: {why}",
    )


def load(
    source: str,
    state: TrainState,
    shardings: TrainState,
    module: nn.Module,
    image_shape: ImageShape,
    *,
    new_head: bool = False,
) -> TrainState:
    """The state with the source's parameters and statistics, at step 0.

    Args:
      source: that `check` has accepted.
      state: freshly initialised; what the source does not give (a head) stays.
      shardings: where its leaves live.
      module: the model.
      image_shape: that it is given.
      new_head: as `check` took it.
    """
    file = _file(source)
    if file is not None:
        params, model_state, _ = _converted(source, file, state, module, image_shape, new_head)
        params = jax.tree.map(_placed, params, shardings.params)
        variables = jax.tree.map(_placed, model_state, shardings.model_state)
    else:
        variables = restored(_best(source), state.variables, shardings.variables, new_head=new_head)
        params = variables.pop("params")
    average = state.average
    if average is not None:
        copies = jax.tree.map(lambda leaf: leaf.copy(), {"params": params, "state": variables})
        average = {"params": copies["params"], "model_state": copies["state"]}
    return dataclasses.replace(state, params=params, model_state=variables, average=average)


def restored(path: Path, fresh: Any, shardings: Any, *, new_head: bool = False) -> dict[str, Any]:
    """The variables saved in a run's checkpoint, and the fresh ones of a head that is replaced.

    Args:
      path: of the saved variables.
      fresh: variables of the same names, or their shapes where no head is replaced.
      shardings: where they are to live.
      new_head: as `check` took it.
    """
    saved, looped = _saved(path), stacking.is_stacked(fresh["params"])
    if stacking.is_stacked(saved["params"]) != looped:
        # Read as they lie there, and laid out anew.
        like = jax.tree.map(
            lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at),
            fresh,
            shardings,
        )
        places = jax.tree.map(lambda leaf: leaf.sharding, _laid(like, not looped))
        read = restored(path, _laid(fresh, not looped), places, new_head=new_head)
        laid: dict[str, Any] = jax.jit(
            lambda variables: _laid(variables, looped), out_shardings=shardings
        )(read)
        return laid
    head, _ = _fresh_head(shapes(saved), shapes(fresh), new_head)

    def target(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(tuple(leaf.shape), leaf.dtype, sharding=sharding)

    # Orbax restores whole trees: a head that is not wanted is read in its own shape, and dropped.
    whole = NamedSharding(jax.tree.leaves(shardings)[0].mesh, PartitionSpec())
    like = {
        name: target(there, whole) if name in head else target(here, sharding)
        for (name, there), here, sharding in zip(
            _flat(saved).items(), jax.tree.leaves(fresh), jax.tree.leaves(shardings), strict=True
        )
    }
    structure = jax.tree.structure(fresh)
    with ocp.StandardCheckpointer() as checkpointer:
        found = checkpointer.restore(path, jax.tree.unflatten(structure, like.values()))
    kept = {name: leaf for name, leaf in _flat(fresh).items() if name in head}
    return dict(jax.tree.unflatten(structure, (_flat(found) | kept).values()))


def best_variables(folder: str, name: str) -> Path:
    """Where a run folder keeps its best variables.

    Raises:
      UserError: it has none; `name` is that of the setting that named the folder.
    """
    path = Path(folder).absolute() / "checkpoints" / "best"
    steps = sorted(int(found.name) for found in path.glob("*") if found.name.isdigit())
    if not steps:
        raise UserError(
            f"{name}={folder!r} is no run folder with a checkpoint: there is "
            f"nothing in {path}. Give the folder of a finished run, for example "
            "runs/digits_lenet."
        )
    return path / str(steps[-1]) / "variables"


def shapes_there(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by name of the variables saved in a run's checkpoint; nothing else is read.

    Blocks have their own names, whether or not the run had them in a loop.
    """
    return shapes(_laid(_saved(path), False))


def shapes(variables: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of variables by name ("params/head/kernel")."""
    return {name: tuple(leaf.shape) for name, leaf in _flat(variables).items()}


def _saved(path: Path) -> Any:
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.metadata(path).item_metadata.tree
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(tuple(leaf.shape), leaf.dtype), tree)


def _laid(variables: Mapping[str, Any], looped: bool) -> dict[str, Any]:
    """The variables with the parameters of equal blocks in one array each, or in their own."""
    lay = stacking.stacked if looped else stacking.unstacked
    return {**variables, "params": lay(variables["params"])}


def _fresh_head(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], new_head: bool
) -> tuple[set[str], str]:
    """Names of the head's arrays that a run's weights do not give, and why."""
    head = {name for name in expected if name.startswith("params/head/")}
    if not head or head != {name for name in found if name.startswith("params/head/")}:
        return set(), ""
    others = {name for name in head if found[name][:-1] != expected[name][:-1]}
    counts = {(found[name][-1], expected[name][-1]) for name in head if expected[name]}
    if others or len(counts) != 1:
        return set(), ""
    ((there, here),) = counts
    if there != here:
        return head, f"{there} classes there, {here} here"
    return (head, "as config.init.new_head asks") if new_head else (set(), "")


def _flat(variables: Any) -> dict[str, Any]:
    return dict(zip(rules.names(variables), jax.tree.leaves(variables), strict=True))


def _file(source: str) -> Path | None:
    """The file that a source is or stands for; None for the folder of a run."""
    published = pretrained.named(source)
    if published is not None:
        return pretrained.find(published)
    path = Path(source)
    is_file = path.is_file() or (not path.is_dir() and path.suffix in _SUFFIXES)
    return path if is_file else None


def _converted(
    source: str,
    file: Path,
    state: TrainState,
    module: nn.Module,
    image_shape: ImageShape,
    new_head: bool,
) -> tuple[Tree, Tree, tuple[str, ...]]:
    """Parameters and statistics from a file of weights, and what is to be said of them."""
    found = sources.read(file)
    single = stacking.portable(module)  # elsewhere, each block has its own name
    try:
        table = mapping.choose(found.arrays, tables.known(single, image_shape))
        params, model_state, accounting = mapping.convert(
            found.arrays,
            table,
            stacking.unstacked(state.params),
            state.model_state,
            new_head=new_head,
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
    if stacking.is_stacked(state.params):
        params = stacking.stacked(params)
    return params, model_state, (*said, *(f"  {line}" for line in lines))


def _placed(value: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    """A host's array where it belongs; what lives there already stays."""
    if isinstance(value, jax.Array):
        return value
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def _best(source: str) -> Path:
    if not Path(source).exists() and Path(source).name == source:  # perhaps a name, mistyped
        guess = nearest(source, pretrained.names())
        meant = f" Did you mean {guess!r}?" if guess else ""
        raise UserError(
            f"config.init.weights={source!r} is neither the folder of a run, nor a file, nor the "
            f"name of published weights.{meant} Known: {', '.join(pretrained.names())}."
        )
    return best_variables(source, "config.init.weights")
