"""Optax optimizers by name, with regex rules for decay, learning rate and freezing.

Every optimizer is one chain: clip the gradient, turn it into a direction, add weight decay,
multiply by each parameter's learning-rate multiplier, and step against it by the schedule. What
lies between the clipping and the schedule sleeps for parameters that have yet to thaw.

With `state_dtype` bfloat16 every optimizer keeps its momentum in half the memory: what a step adds
to it is a tenth or a hundredth of it, and the arithmetic stays in float32. Adam's second moment
stays in float32 too: it moves by a thousandth of itself, less than bfloat16's eight bits tell.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from imgrec.config import OptimizerConfig
from imgrec.errors import UserError, unknown
from imgrec.models import stacking
from imgrec.models.depth import Layers, indices_of
from imgrec.options import keyword_options
from imgrec.training import freezing, rules

Params = Any


def create(
    config: OptimizerConfig,
    schedule: optax.Schedule,
    params: Params,
    *,
    layers: Layers = (),
    unfreeze_every: int = 0,
) -> optax.GradientTransformation:
    """The optimizer of an experiment.

    `update` also takes the global norm of the gradient as `gradient_norm`, for the clipping, from
    whoever has computed it.

    Args:
      config: name, options and rules.
      schedule: the learning rate as a function of the step.
      params: the parameters, or their shapes; only names and ranks are read.
      layers: of the model, which `layer_decay` and gradual unfreezing need.
      unfreeze_every: as `freezing.starts` takes it.

    Raises:
      UserError: an unknown name or option, a rule that decides for no parameter, or an
        optimizer of whole layers for blocks that share an array.
    """
    options = check(config)
    direction, decay_is_coupled = OPTIMIZERS[config.name]
    names = rules.names(params)
    if config.name == "lamb" and any(_is_stacked(name) for name in names):
        raise UserError(
            "config.optimizer.name='lamb' scales the step of each layer by its norm, and "
            "config.model.options.scan_layers keeps all blocks in the same arrays. Set "
            "--config.model.options.scan_layers=False, or --config.optimizer.name=adamw."
        )
    if "adam_names" in options:  # muon's default may match nothing, a choice of one's own not
        own = [(options["adam_names"], True)]
        rules.decide(own, names, field="optimizer.options.adam_names", default=False)

    def tree(values: Sequence[Any]) -> Params:
        return jax.tree.unflatten(jax.tree.structure(params), values)

    decay = _add_weighted_decay(
        config.weight_decay,
        tree(
            rules.decide(
                config.weight_decay_rules,
                names,
                field="optimizer.weight_decay_rules",
                default=1.0,
            )
        ),
    )
    multipliers = rules.decide(
        config.learning_rate_rules, names, field="optimizer.learning_rate_rules", default=1.0
    )
    if config.layer_decay != 1:
        by_depth = layer_multipliers(config.layer_decay, layers, names)
        multipliers = [
            m * (d.reshape(-1, *(1,) * (leaf.ndim - 1)) if isinstance(d, np.ndarray) else d)
            for m, d, leaf in zip(multipliers, by_depth, jax.tree.leaves(params), strict=True)
        ]
    starts = freezing.starts(config, names, layers, unfreeze_every)

    turn = direction(jnp.dtype(config.state_dtype), **options)
    if not config.weight_decay:
        stages = [turn]
    elif decay_is_coupled:
        stages = [decay, turn]
    else:
        stages = [turn, decay]
    if config.name == "lamb":
        stages += [optax.scale_by_trust_ratio()]
    if any(np.any(multiplier != 1) for multiplier in multipliers):
        stages += [_multiply(tree(multipliers))]
    clip = [_clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    if any(starts.values()):
        stages = [_thawing(optax.chain(*stages), starts)]
    optimizer = optax.chain(*clip, *stages, optax.scale_by_learning_rate(schedule))
    if None not in starts.values():
        return optimizer
    # Frozen parameters get no optimizer state, and no part in the clipped norm.
    return optax.partition(
        {"train": optimizer, "freeze": optax.set_to_zero()},
        tree(["freeze" if starts[name] is None else "train" for name in names]),
    )


def layer_multipliers(
    decay: float, layers: Layers, names: Sequence[str]
) -> list[float | np.ndarray]:
    """What layer-wise decay multiplies the learning rate of each parameter by.

    One number a parameter, or one a block where blocks share an array.

    1 in the head's layer and `decay` times less in each layer below: ELECTRA's (Clark et al.
    2020, appendix B), BEiT's (Bao et al. 2021) and, with 1/2.6, ULMFiT's (Howard & Ruder 2018,
    section 3.2) discriminative fine-tuning.
    """

    def multiplier(name: str) -> float | np.ndarray:
        found = [decay ** (len(layers) - 1 - number) for number in indices_of(layers, name)]
        return found[0] if len(found) == 1 else np.array(found)

    return [multiplier(name) for name in names]


def check(config: OptimizerConfig) -> dict[str, Any]:
    """The options of the optimizer; refuses an unknown name, option or type."""
    if config.name not in OPTIMIZERS:
        raise unknown("optimizer", config.name, OPTIMIZERS)
    return keyword_options(OPTIMIZERS[config.name][0], config.options, "optimizer")


def sgd(
    state: DTypeLike = jnp.float32, *, momentum: float = 0.9, nesterov: bool = True
) -> optax.GradientTransformation:
    """Momentum in the form of Sutskever et al. 2013; with momentum 0 the plain gradient."""
    if not momentum:
        return optax.identity()
    return optax.trace(momentum, nesterov=nesterov, accumulator_dtype=state)


def adamw(
    state: DTypeLike = jnp.float32, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015, algorithm 1) with decoupled decay (Loshchilov & Hutter 2019)."""
    return optax.scale_by_adam(b1=b1, b2=b2, eps=eps, mu_dtype=state)


def lamb(
    state: DTypeLike = jnp.float32, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6
) -> optax.GradientTransformation:
    """LAMB (You et al. 2020, algorithm 2); `create` adds the layer-wise trust ratio."""
    return optax.scale_by_adam(b1=b1, b2=b2, eps=eps, mu_dtype=state)


def lion(
    state: DTypeLike = jnp.float32, *, b1: float = 0.9, b2: float = 0.99
) -> optax.GradientTransformation:
    """Lion (Chen et al. 2023, program 1): the sign of an interpolated momentum."""
    return optax.scale_by_lion(b1=b1, b2=b2, mu_dtype=state)


def muon(
    state: DTypeLike = jnp.float32,
    *,
    beta: float = 0.95,
    nesterov: bool = True,
    adam_scale: float = 0.1,
    adam_names: str = "(head|stem|embedding)/.*|positions|cls",
) -> optax.GradientTransformation:
    """Muon (Jordan 2024): hidden weights step along their orthogonalised momentum.

    Vectors, and the first and last layers that `adam_names` matches, follow Adam at
    `adam_scale` times the learning rate. A convolution kernel counts as the matrix from
    its receptive field to its output channels; blocks that share an array are matrices each.
    """

    def kind(path: Any, leaf: Any) -> str:
        name = rules.name_of(path)
        is_matrix = leaf.ndim - _is_stacked(name) >= 2
        return "matrix" if is_matrix and not re.fullmatch(adam_names, name) else "other"

    def kinds(params: Params) -> Params:
        return jax.tree_util.tree_map_with_path(kind, params)

    def dimensions(matrices: Params) -> Params:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: optax.contrib.MuonDimensionNumbers(
                tuple(range(_is_stacked(rules.name_of(path)), leaf.ndim - 1)), leaf.ndim - 1
            ),
            matrices,
        )

    # optax.contrib.muon ends in a step of minus its learning rate; minus one leaves the
    # direction, which this module's chain scales as it does all others.
    orthogonalised = optax.contrib.muon(
        -1.0,
        beta=beta,
        nesterov=nesterov,
        mu_dtype=state,
        muon_weight_dimension_numbers=dimensions,
    )
    adam = optax.chain(optax.scale_by_adam(mu_dtype=state), optax.scale(adam_scale))
    return optax.partition({"matrix": orthogonalised, "other": adam}, kinds)


# name: (direction, whether decay is part of the gradient, as in L2 regularisation)
OPTIMIZERS: Mapping[str, tuple[Callable[..., optax.GradientTransformation], bool]] = {
    "sgd": (sgd, True),
    "adamw": (adamw, False),
    "lamb": (lamb, False),
    "lion": (lion, False),
    "muon": (muon, False),
}


def _is_stacked(name: str) -> bool:
    """Whether a parameter is that of all blocks of a loop, which lie along its first axis."""
    return name.startswith(f"{stacking.STACKED}/")


def _thawing(
    inner: optax.GradientTransformation, starts: freezing.Starts
) -> optax.GradientTransformation:
    """`inner`, asleep for each parameter until its start."""

    def labels(params: Params) -> Params:
        # By name, since frozen parameters are not among those that `partition` passes on.
        return jax.tree_util.tree_map_with_path(
            lambda path, _: f"from_step_{starts[rules.name_of(path)]}", params
        )

    distinct = {start for start in starts.values() if start is not None}
    groups = {f"from_step_{n}": freezing.asleep_until(inner, n) for n in sorted(distinct)}
    return optax.partition(groups, labels)


def _clip_by_global_norm(limit: float) -> optax.GradientTransformationExtraArgs:
    """Clips as optax's own does (Pascanu et al. 2012), to a norm that may be known already.

    Over devices the squares of each array that is cut are one more number to sum, and XLA does
    not see that two norms of one gradient are the same.
    """

    def update(
        updates: Params,
        state: optax.OptState,
        params: Params | None = None,
        *,
        gradient_norm: Float[Array, ""] | None = None,
        **_: Any,
    ) -> tuple[Params, optax.OptState]:
        del params
        norm = optax.tree.norm(updates) if gradient_norm is None else gradient_norm
        clipped = jax.tree.map(
            lambda u: jnp.where(norm < limit, u, u / norm.astype(u.dtype) * limit), updates
        )
        return clipped, state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def _add_weighted_decay(rate: float, multipliers: Params) -> optax.GradientTransformation:
    """Adds rate x multiplier x parameter; optax's own knows masks but no multipliers."""

    def update(updates: Params, params: Params) -> Params:
        return jax.tree.map(
            lambda m, u, p: u + jnp.asarray(rate * m, u.dtype) * p if m else u,
            _like(multipliers, updates),
            updates,
            params,
        )

    return optax.stateless(update)


def _multiply(multipliers: Params) -> optax.GradientTransformation:
    def update(updates: Params, params: Params) -> Params:
        del params
        return jax.tree.map(lambda m, u: m * u, _like(multipliers, updates), updates)

    return optax.stateless(update)


def _like(multipliers: Params, updates: Params) -> Params:
    """The multipliers of the parameters that are there: `partition` masks the frozen ones."""
    by_name = dict(zip(rules.names(multipliers), jax.tree.leaves(multipliers), strict=True))
    masked = jax.tree.structure(updates)
    return jax.tree.unflatten(masked, [by_name[name] for name in rules.names(updates)])
