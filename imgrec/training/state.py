"""What a training step changes: parameters, statistics, optimizer state and their average."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

Tree = Any


@flax.struct.dataclass
class TrainState:
    """The whole of training's state; everything else is a function of it and the seed.

    Its leaves are arrays, or in a plan their shapes, or their shardings.

    Attributes:
      step: optimizer steps taken, an int32 scalar.
      params: trainable parameters, float32.
      model_state: what the model keeps beside them (batch statistics), possibly empty.
      opt_state: the optimizer's.
      average: moving averages of params and model_state, or None when EMA is off.
    """

    step: Any
    params: Tree
    model_state: Tree
    opt_state: Tree
    average: Tree | None

    @property
    def variables(self) -> dict[str, Tree]:
        """The module's variables as trained."""
        return {"params": self.params, **self.model_state}

    @property
    def averaged_variables(self) -> dict[str, Tree]:
        """The module's variables as evaluated: the averaged ones where EMA is on."""
        if self.average is None:
            return self.variables
        return {"params": self.average["params"], **self.average["model_state"]}


def create(
    params: Tree, model_state: Tree, optimizer: optax.GradientTransformation, *, ema: bool
) -> TrainState:
    """The state before the first step."""
    average = None
    if ema:
        average = jax.tree.map(jnp.copy, {"params": params, "model_state": model_state})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        average=average,
    )
