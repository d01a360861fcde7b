"""The train step: (state, batch) -> (state, metrics), one pure function, jitted once."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int

from imgrec import randomness
from imgrec.tasks import Task
from imgrec.training import freezing, gathering, per_device_norm
from imgrec.training.freezing import Starts
from imgrec.training.state import TrainState

Batch = Mapping[str, Any]
Metrics = dict[str, Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def create(
    task: Task,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    *,
    seed: int,
    accumulate: int = 1,
    ema: float = 0.0,
    starts: Starts | None = None,
    norm_devices: Mesh | None = None,
    shardings: Any = None,
) -> TrainStep:
    """The step as a pure function; the caller jits it over its mesh.

    Args:
      task: what a batch means.
      optimizer: whose state the train state holds; it may take the global norm of the gradient,
        which is one of the metrics, as `gradient_norm`.
      schedule: the learning rate, reported with the metrics.
      seed: of the experiment; the keys of a step are folded from it and the step.
      accumulate: parts the batch is cut into; their gradients and metrics are averaged, so
        the result differs from a whole batch only where a model mixes examples (batch norm).
      ema: decay of the moving average, 0 for none. The decay warms up as
        min(ema, (1 + step) / (10 + step)), so that early averages forget the initialisation.
      starts: of `freezing`, where parameters stand still; by default all move from the start.
      norm_devices: each of which normalises its own rows in batch norm (`per_device_norm`); by
        default batch norm sees all rows, wherever they lie.
      shardings: of the parameters, which are gathered along `fsdp` where they are used
        (`gathering`); by default they are taken as they lie.
    """
    starts = starts or {}
    optimizer = optax.with_extra_args_support(optimizer)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = randomness.at_step(seed, state.step)
        batch = task.prepare(batch, randomness.named(key, "augment"))
        keys = [jax.random.fold_in(randomness.named(key, "model"), i) for i in range(accumulate)]
        model_state = state.model_state
        if norm_devices is not None:
            model_state = per_device_norm.spread(model_state, norm_devices)
        loss = _loss(task, starts, state.step, norm_devices, shardings)
        grads, model_state, metrics = _gradients(loss, state.params, model_state, batch, keys)
        if norm_devices is not None:
            model_state = per_device_norm.averaged(model_state)
        norm = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, gradient_norm=norm
        )
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if average is not None:
            now = {"params": params, "model_state": model_state}
            average = _moving_average(average, now, ema, state.step)
        metrics |= {"gradient_norm": norm, "learning_rate": schedule(state.step)}
        state = TrainState(state.step + 1, params, model_state, opt_state, average)
        return state, metrics

    return train_step


def _loss(
    task: Task,
    starts: Starts,
    step: Int[Array, ""],
    norm_devices: Mesh | None,
    shardings: Any,
) -> Callable[..., Any]:
    """(params, model_state, batch, key) -> (loss, (model_state, metrics)), as the step means it."""

    def loss(params: Any, model_state: Any, batch: Batch, key: Any) -> Any:
        with contextlib.ExitStack() as stack:
            # Whether a norm stands still is decided first, by its name in the model.
            stack.enter_context(freezing.norms_held(starts, step))
            if norm_devices is not None:
                stack.enter_context(per_device_norm.within_devices(norm_devices))
            if shardings is not None:
                stack.enter_context(gathering.by_layers(shardings))
                params = gathering.gathered(params, shardings)
            return task.loss(freezing.held(params, starts, step), model_state, batch, key)

    return loss


def _gradients(
    loss: Callable[..., Any], params: Any, model_state: Any, batch: Batch, keys: list[Any]
) -> tuple[Any, Any, Metrics]:
    """Gradients and metrics averaged over `len(keys)` parts of the batch, one after the other."""
    differentiate = jax.grad(loss, has_aux=True)
    parts = len(keys)
    if parts == 1:
        grads, (model_state, metrics) = differentiate(params, model_state, batch, keys[0])
        return grads, model_state, metrics

    # Part i takes every parts-th example, so that each device cuts up what it holds.
    def cut(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0)

    def accumulate(carry: Any, part_and_key: Any) -> tuple[Any, None]:
        total, model_state = carry
        part, key = part_and_key
        grads, (model_state, metrics) = differentiate(params, model_state, part, key)
        total = jax.tree.map(lambda a, b: a + b / parts, total, (grads, metrics))
        return (total, model_state), None

    shapes = jax.eval_shape(
        differentiate,
        params,
        model_state,
        jax.tree.map(lambda x: cut(x)[0], batch),
        keys[0],
    )
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (shapes[0], shapes[1][1]))
    (total, model_state), _ = jax.lax.scan(
        accumulate,
        (zeros, model_state),
        (jax.tree.map(cut, batch), jnp.stack(keys)),
    )
    grads, metrics = total
    return grads, model_state, metrics


def _moving_average(average: Any, now: Any, decay: float, step: Int[Array, ""]) -> Any:
    rate = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    # Written as a step from the average, which leaves alone what has not moved, to the bit.
    return jax.tree.map(
        lambda a, x: (
            (a + (1 - rate) * (x - a)).astype(a.dtype)
            if jnp.issubdtype(a.dtype, jnp.floating)
            else x
        ),
        average,
        now,
    )
