"""The dry run: what an experiment would do and cost, in seconds, with nothing trained."""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from clu import parameter_overview
from rich.console import Console

from imgrec.reporting import plots
from imgrec.training import resident
from imgrec.training.pictures import augmented_grid
from imgrec.training.plan import Plan


def report(plan: Plan, picture: Path, console: Console) -> None:
    """Prints data, parameters, FLOPs, memory and steps; writes a grid of augmented images.

    Args:
      plan: of the experiment.
      picture: PNG file to write.
      console: for people.
    """
    c = plan.experiment
    console.print(parameter_table(plan), highlight=False)
    with contextlib.closing(plan.feed()) as feed:
        batch = next(feed)
    flops = step_flops(plan, batch)
    memory = memory_bytes(plan, batch)
    for line in (
        *describe(plan),
        f"FLOPs: {flops:.4g} a step, {flops / c.data.batch_size:.4g} an image "
        "(forward, backward and update)",
        "memory on each device, estimated: "
        + ", ".join(f"{name} {size / 1e6:,.1f} MB" for name, size in memory.items())
        + f", total {sum(memory.values()) / 1e6:,.1f} MB",
    ):
        console.print(line, highlight=False)
    grid = augmented_grid(plan, batch)
    if jax.process_index() == 0:
        picture.parent.mkdir(parents=True, exist_ok=True)
        plots.save_png(grid, picture)
    console.print(f"augmented images: {picture}", highlight=False)
    console.print("Nothing was trained.")


def describe(plan: Plan) -> list[str]:
    """Data, steps and devices of a plan, one line each; the start of every run prints them."""
    c, info, dataset = plan.experiment, plan.dataset.info, plan.dataset
    sizes = {
        split.name: len(split)
        for split in (dataset.train, dataset.validation, dataset.test)
        if split is not None
    }
    height, width, channels = info.image_shape
    axes = " x ".join(f"{name} {size}" for name, size in plan.mesh.shape.items())
    device = plan.mesh.devices.flat[0]
    return [
        f"data: {info.name}, {height}x{width}x{channels}, {info.num_classes} classes, "
        + ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        + f" ({info.source})",
        f"steps: {plan.total_steps:,} of batch {c.data.batch_size} "
        f"({plan.total_steps / plan.steps_per_epoch:.4g} epochs of {plan.steps_per_epoch:.1f}); "
        f"log every {plan.log_every}, evaluate every {plan.eval_every}, "
        f"checkpoint every {plan.checkpoint_every}",
        f"feeding: {plan.feeding}",
        f"devices: {plan.mesh.devices.size} {device.platform} ({axes})",
        *plan.weights,
    ]


def parameter_table(plan: Plan) -> str:
    """CLU's overview of the parameters: name, shape, size."""
    return parameter_overview.get_parameter_overview(plan.state.params, include_stats=False)


def step_flops(plan: Plan, batch: Mapping[str, Any]) -> float:
    """Floating-point operations of one step by XLA's own count, before optimisation."""
    taught = None if plan.teacher is None else plan.teacher.variables
    lowered = jax.jit(
        lambda state, fed, teacher: plan.train_step(teacher)(state, plan.take(fed))
    ).lower(plan.state, batch, taught)
    analysis = lowered.cost_analysis()
    return float((analysis or {}).get("flops", math.nan))


def memory_bytes(plan: Plan, batch: Mapping[str, Any]) -> dict[str, int]:
    """Bytes each device needs: state as sharded, gradients, and what backward keeps.

    The activations are the residuals of differentiation, an upper bound: XLA fuses some away.
    """
    state = _bytes_on_one_device(plan.state, plan.shardings)
    gradients = _bytes_on_one_device(plan.state.params, plan.shardings.params)

    def residuals(params: object, model_state: object, batch: Mapping[str, Any]) -> object:
        key = jax.random.key(0)
        prepared = plan.task.prepare(plan.take(batch), key)
        _, backward, _ = jax.vjp(
            lambda p: plan.task.loss(p, model_state, prepared, key), params, has_aux=True
        )
        return backward

    kept = jax.eval_shape(residuals, plan.state.params, plan.state.model_state, batch)
    shards = plan.mesh.shape["data"] * plan.mesh.shape["fsdp"]
    parameters = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(plan.state.params))
    total = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))
    activations = max(0, total - parameters) // (shards * plan.experiment.train.accumulate)
    found = {"state": state, "gradients": gradients, "activations": activations}
    if plan.teacher is not None:
        leaves = jax.tree.leaves(plan.teacher.variables)
        found["teacher"] = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    return found | {"training set": resident.nbytes(plan.dataset)} if plan.resident else found


def _bytes_on_one_device(tree: object, shardings: object) -> int:
    sizes = jax.tree.map(
        lambda leaf, sharding: math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize,
        tree,
        shardings,
    )
    return sum(jax.tree.leaves(sizes))
