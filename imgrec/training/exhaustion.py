"""A device that has no memory left: what the run needed, and what would fit."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from jax.errors import JaxRuntimeError

from imgrec.training import dry_run, memory
from imgrec.training.plan import Plan


def is_exhausted(error: JaxRuntimeError) -> bool:
    """Whether an error of the device is that its memory was not enough."""
    text = str(error)
    return "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()


def explain(error: JaxRuntimeError, plan: Plan, folder: Path) -> Iterator[str]:
    """Lines for people, the last ones with what to type.

    Args:
      error: of which `is_exhausted` is true.
      plan: of the run that it ended.
      folder: of the run.
    """
    yield f"a device has no memory left ({str(error).strip().splitlines()[0]})."
    try:
        need, limit = memory.of_step(plan), memory.of_device(plan)
        yield f"  a step takes on each device, by the compiler's count: {need}"
        if need.total <= limit:
            # The rest is somebody else's, or it is cut into pieces too small.
            yield (
                f"  that would fit into {memory.megabytes(limit)}, so something else holds some: "
                "another process, an evaluation (--config.eval.batch_size), batches that wait "
                "(--config.data.prefetch). These take less:"
            )
            limit = need.total * 3 // 4
        else:
            yield f"  a device has {memory.megabytes(limit)}. These fit:"
        yield from dry_run.advice(plan, need, limit)
    except JaxRuntimeError:  # there may be no room even to compile
        yield "  The same command with --dry_run says what would fit."
    yield (
        f"What was saved before in {folder} is whole; with one of these and --allow_config_change, "
        "since the folder has the old setting, the same command goes on from there."
    )


@contextlib.contextmanager
def noted(plan: Plan) -> Iterator[None]:
    """Notes on the error of a device without memory with which command to find what would fit.

    Of several processes, the one that fails ends all at once with its error: the others stand in
    the middle of a step, and nobody is to wait while what would fit is compiled.
    """
    try:
        yield
    except JaxRuntimeError as error:
        if is_exhausted(error):
            limit = memory.of_device(plan) // 10**6
            error.add_note(
                "A device has no memory left. What would fit is compiled by the same command in "
                f"one process with --dry_run --simulate={plan.mesh.devices.size} "
                f"--memory_limit={limit}MB."
            )
        raise
