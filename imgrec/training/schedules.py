"""Learning-rate schedules by name: pure functions of the step, so a resume needs no state.

Each is written as a factor in [0, 1] of the peak learning rate over the progress
t in [0, 1] of the run after its warm-up.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from imgrec import durations
from imgrec.config import ScheduleConfig
from imgrec.errors import UserError, unknown
from imgrec.options import keyword_options

Progress = Float[Array, ""]
Factor = Callable[[Progress], Float[Array, ""]]


def create(
    config: ScheduleConfig, peak: float, *, total_steps: int, batch_size: int, examples: int
) -> optax.Schedule:
    """The learning rate at each step.

    Args:
      config: name, warm-up and options.
      peak: optimizer.learning_rate, where the factor is 1.
      total_steps: length of the run.
      batch_size: examples per step, to read durations by.
      examples: size of the training split, to read durations by.

    Raises:
      UserError: an unknown name or option, or a warm-up as long as the run.
    """
    factor = check(config)
    warmup = durations.parse(config.warmup, "config.schedule.warmup").steps(
        batch_size=batch_size, examples=examples, total_steps=total_steps
    )
    if warmup and warmup >= total_steps:
        raise UserError(
            f"config.schedule.warmup={config.warmup!r} is {warmup} steps of a run of "
            f"{total_steps}; the warm-up must end before the run does."
        )

    def schedule(step: Any) -> Float[Array, ""]:
        step = jnp.asarray(step, jnp.float32)
        progress = jnp.clip((step - warmup) / max(1, total_steps - warmup), 0.0, 1.0)
        ramp = jnp.minimum(1.0, (step + 1) / (warmup + 1)) if warmup else 1.0
        return peak * ramp * factor(progress)

    return schedule


def check(config: ScheduleConfig) -> Factor:
    """The schedule's factor; refuses an unknown name, option, type or value."""
    if config.name not in SCHEDULES:
        raise unknown("schedule", config.name, SCHEDULES)
    options = keyword_options(SCHEDULES[config.name], config.options, "schedule")
    return SCHEDULES[config.name](**options)


def constant() -> Factor:
    """Always the peak."""
    return lambda t: jnp.ones_like(t)


def cosine(*, final: float = 0.0) -> Factor:
    """Half a cosine from 1 to `final` (Loshchilov & Hutter 2017, equation 5, one period)."""
    return lambda t: final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * t))


def linear(*, final: float = 0.0) -> Factor:
    """A straight line from 1 to `final`."""
    return lambda t: 1 + (final - 1) * t


def step(*, at: Sequence[str] = ("50%", "75%"), factor: float = 0.1) -> Factor:
    """Times `factor` at each share of the run after warm-up (He et al. 2015: "50%", "75%")."""
    boundaries = []
    for text in at:
        duration = durations.parse(text, "config.schedule.options.at")
        if duration.unit != "%":
            raise UserError(f"config.schedule.options.at={text!r} must be a share such as '50%'.")
        boundaries.append(duration.amount / 100)
    # XLA divides by multiplying with the reciprocal, which may round the progress at a boundary
    # to just below it; the margin is less than a step in runs of up to four million.
    edges = jnp.asarray(boundaries) * (1 - 2**-22)
    return lambda t: factor ** jnp.sum(t >= edges).astype(jnp.float32)


def one_cycle(*, peak_at: float = 0.3, start: float = 0.04, final: float = 0.0) -> Factor:
    """Linear from `start` up to 1 at `peak_at`, then linear down to `final` (Smith 2018)."""
    if not 0 < peak_at < 1:
        raise UserError(f"config.schedule.options.peak_at={peak_at} must lie between 0 and 1.")

    def factor(t: Progress) -> Float[Array, ""]:
        up = start + (1 - start) * t / peak_at
        down = 1 + (final - 1) * (t - peak_at) / (1 - peak_at)
        return jnp.where(t < peak_at, up, down)

    return factor


SCHEDULES: Mapping[str, Callable[..., Factor]] = {
    "constant": constant,
    "cosine": cosine,
    "linear": linear,
    "step": step,
    "one_cycle": one_cycle,
}
