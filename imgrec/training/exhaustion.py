"""A device that has no memory left: what the run needed, and what would fit."""

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
