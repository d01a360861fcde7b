"""The dry run: what an experiment would do and cost, in seconds, with nothing trained."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
from clu import parameter_overview
from rich.console import Console

from imgrec.errors import UserError
from imgrec.reporting import plots
from imgrec.training import fitting, memory, placement
from imgrec.training.memory import Need
from imgrec.training.pictures import augmented_grid
from imgrec.training.plan import Plan


def report(
    plan: Plan,
    picture: Path,
    console: Console,
    *,
    limit: int | None = None,
    simulated: bool = False,
) -> None:
    """Prints data, parameters, FLOPs, memory and steps; writes a grid of augmented images.

    Args:
      plan: of the experiment.
      picture: PNG file to write.
      console: for people.
      limit: bytes of memory that a device is to have; by default those of the devices here.
      simulated: the devices are not those that the run is meant for, so theirs tell nothing.
    """
    c = plan.experiment
    console.print(parameter_table(plan), highlight=False)
    need = memory.of_step(plan)
    if limit is None and not simulated:
        limit = memory.of_device(plan)
    for line in (
        *describe(plan),
        f"FLOPs: {need.flops:.4g} a step, {need.flops / c.data.batch_size:.4g} an image "
        "(forward and backward)",
        f"memory on each device, by the compiler for {plan.mesh.devices.flat[0].platform}: {need}",
        *fit(plan, need, limit),
    ):
        console.print(line, highlight=False)
    with contextlib.closing(plan.feed()) as feed:
        batch = next(feed)
    picture.parent.mkdir(parents=True, exist_ok=True)
    plots.save_png(augmented_grid(plan, batch), picture)
    console.print(f"augmented images: {picture}", highlight=False)
    console.print("Nothing was trained.")


def fit(plan: Plan, need: Need, limit: int | None) -> Iterator[str]:
    """Whether a step fits into a device's memory; if not, what would make it fit, and how well.

    Args:
      plan: of the experiment.
      need: of its step.
      limit: bytes of a device; None where nobody knows.
    """
    if limit is None:
        yield "  --memory_limit=40GB would say whether that fits"
        return
    size = memory.megabytes(limit)
    if need.total <= limit:
        yield f"  fits: {need.total / limit:.0%} of {size}"
        return
    yield f"  DOES NOT FIT into {size}. By the compiler's count these do:"
    yield from advice(plan, need, limit)


def advice(plan: Plan, need: Need, limit: int) -> Iterator[str]:
    """One line for each change with which a step fits, as it is to be typed."""
    found = fitting.remedies(plan, need, limit)
    for remedy in found:
        yield f"    {remedy.flags}: {memory.megabytes(remedy.need.total)}"
    if not found:
        yield (
            "    none of batch, accumulation, remat and fsdp, nor all of them together; take a "
            "smaller model or smaller images, or more devices"
        )


def simulate(devices: int) -> None:
    """Makes this process believe in so many CPU devices; to be called before any is asked for.

    Raises:
      UserError: less than one.
    """
    if devices < 1:
        raise UserError(f"--simulate={devices}: a dry run needs at least 1 device.")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)


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
        *placement.describe(plan.state.params, plan.shardings.params, plan.mesh),
        *plan.weights,
    ]


def parameter_table(plan: Plan) -> str:
    """CLU's overview of the parameters: name, shape, size."""
    return parameter_overview.get_parameter_overview(plan.state.params, include_stats=False)
