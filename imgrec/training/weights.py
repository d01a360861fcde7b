"""Parameters from an earlier run: `init.weights=RUN_FOLDER` starts from its best variables."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from imgrec.errors import UserError
from imgrec.training import rules
from imgrec.training.state import TrainState


def check(source: str, state: TrainState) -> None:
    """Refuses weights that are not there or do not fit, before any work.

    Args:
      source: a run folder.
      state: of the new run, shapes only.

    Raises:
      UserError: no such run, or names or shapes differ; the first of them are listed.
    """
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


def load(source: str, state: TrainState, shardings: TrainState) -> TrainState:
    """The state with the source's parameters and statistics, at step 0.

    Args:
      source: a run folder that `check` has accepted.
      state: freshly initialised.
      shardings: where its leaves live.
    """
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
