"""Parameters that stand still: for ever (`optimizer.freeze`), or until their layer thaws.

What stands still is as it would be in evaluation: no gradient is computed for it, the optimizer
keeps no moments of the time, and a batch normalisation there uses its moving statistics and leaves
them alone. Frozen parameters, statistics and averages of both come out of training bit for bit
as they went in.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Int

from imgrec.config import OptimizerConfig
from imgrec.errors import UserError
from imgrec.models import stacking
from imgrec.models.depth import Layers, index_of
from imgrec.training import rules

Starts = Mapping[str, int | None]
"""By a parameter's name, the step from which it moves; None is never."""


def starts(
    config: OptimizerConfig, names: Sequence[str], layers: Layers, unfreeze_every: int
) -> dict[str, int | None]:
    """When each parameter begins to move.

    With `unfreeze_every` layers thaw from the top, one each time (gradual unfreezing; Howard &
    Ruder 2018, section 3.3): the head moves at once, the layer below it after so many steps.

    Args:
      config: whose `freeze` says which never move.
      names: of the parameters.
      layers: from `imgrec.models.depth`; needed by gradual unfreezing alone.
      unfreeze_every: steps between two layers; 0 for all at once.

    Raises:
      UserError: a regex decides for no parameter, or nothing is left to train.
    """
    frozen = rules.decide(
        [(regex, True) for regex in config.freeze], names, field="optimizer.freeze", default=False
    )
    if all(frozen):
        raise UserError(
            f"config.optimizer.freeze={config.freeze!r} holds all {len(names)} parameters still, "
            "so there is nothing to train. Leave the head out, as in 'stem/.*|stage.*'; or fit one "
            "without training by --config.head.name=probe."
        )
    if unfreeze_every and any(name.startswith(f"{stacking.STACKED}/") for name in names):
        raise UserError(
            f"config.optimizer.unfreeze_every={config.unfreeze_every!r} thaws one layer after the "
            "other, and config.model.options.scan_layers keeps all blocks in the same arrays. Set "
            "--config.model.options.scan_layers=False; weights of either kind can be read."
        )
    found: dict[str, int | None] = {}
    for name, still in zip(names, frozen, strict=True):
        below = len(layers) - 1 - index_of(layers, name) if unfreeze_every else 0
        found[name] = None if still else below * unfreeze_every
    return found


def held(params: Any, starts: Starts, step: Int[Array, ""]) -> Any:
    """The parameters, those that stand still at this step cut off from gradients."""

    def leaf(path: Any, value: Array) -> Array:
        start = starts.get(rules.name_of(path), 0)
        if start == 0:
            return value
        still = jax.lax.stop_gradient(value)
        return still if start is None else jnp.where(step >= start, value, still)

    return jax.tree_util.tree_map_with_path(leaf, params)


@contextlib.contextmanager
def norms_held(starts: Starts, step: Int[Array, ""]) -> Iterator[None]:
    """Within it, batch normalisations whose parameters stand still run as in evaluation."""

    def intercept(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        norm = context.module
        training = isinstance(norm, nn.BatchNorm) and not norm.use_running_average
        if not training or context.method_name != "__call__":
            return call(*args, **kwargs)
        start = _start_of(norm.path, starts)
        if start == 0:
            return call(*args, **kwargs)
        before = jax.tree.map(lambda leaf: leaf, norm.variables)  # a copy: the call writes to them
        evaluating = norm.clone(parent=None, name=None, use_running_average=True)
        as_evaluated: Any = evaluating.apply(before, *args, **kwargs)
        if start is None:
            return as_evaluated
        awake = step >= start
        as_trained = call(*args, **kwargs)
        for name, old in before["batch_stats"].items():
            now: Array = norm.get_variable("batch_stats", name)
            norm.put_variable("batch_stats", name, jnp.where(awake, now, old))
        return jnp.where(awake, as_trained, as_evaluated)

    if not any(start != 0 for start in starts.values()):
        yield
        return
    with nn.intercept_methods(intercept):
        yield


def asleep_until(inner: optax.GradientTransformation, start: int) -> optax.GradientTransformation:
    """`inner`, whose updates are 0 and whose state is that of the beginning until `start` steps.

    Its own counts begin when it wakes, as the bias corrections of Adam need them to.
    """

    def init(params: Any) -> Any:
        return {"step": jnp.zeros((), jnp.int32), "inner": inner.init(params)}

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        awake = state["step"] >= start
        moved, now = inner.update(updates, state["inner"], params)
        moved = jax.tree.map(lambda u: jnp.where(awake, u, jnp.zeros_like(u)), moved)
        kept = jax.tree.map(lambda new, old: jnp.where(awake, new, old), now, state["inner"])
        return moved, {"step": state["step"] + 1, "inner": kept}

    return optax.GradientTransformation(init, update)


def _start_of(path: tuple[str, ...], starts: Starts) -> int | None:
    """When a module begins to move: with the first of its parameters, or of its parent's."""
    prefix = "".join(f"{part}/" for part in path)
    inside = [start for name, start in starts.items() if name.startswith(prefix)]
    if not inside and path:
        return _start_of(path[:-1], starts)
    return min((start for start in inside if start is not None), default=None if inside else 0)
