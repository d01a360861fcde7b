"""XLA's flags for GPUs: communication behind computation. Not measured: no GPU was at hand.

The flags are those that JAX's own guide to performance on GPUs names for training on several,
https://docs.jax.dev/en/latest/gpu_performance_tips.html.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import jaxlib

FLAGS = {
    "--xla_gpu_enable_latency_hiding_scheduler": "true",
    "--xla_gpu_enable_pipelined_all_gather": "true",
    "--xla_gpu_enable_pipelined_all_reduce": "true",
    "--xla_gpu_enable_pipelined_reduce_scatter": "true",
}
# XLA aborts the process on a flag that it does not know; these versions were tried.
KNOWN_TO = ("0.10.",)
_DRIVER = Path("/proc/driver/nvidia/version")
_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")


def gpu_flags(environment: Mapping[str, str]) -> tuple[list[str], str]:
    """The flags to add to XLA_FLAGS, none without a GPU, and one line on it ("" without one).

    To be called before JAX starts its backend. A flag that the user has set stays theirs.

    Args:
      environment: of the process, with JAX_PLATFORMS and XLA_FLAGS where they are set.
    """
    platforms = environment.get("JAX_PLATFORMS", "")
    wanted = not platforms or any(name in platforms for name in ("cuda", "gpu"))
    if not (wanted and _DRIVER.exists() and any(map(importlib.util.find_spec, _PLUGINS))):
        return [], ""
    if not jaxlib.__version__.startswith(KNOWN_TO):
        tried = ", ".join(f"{version}x" for version in KNOWN_TO)
        return [], f"GPU flags: none, since jaxlib {jaxlib.__version__} is not {tried}"
    theirs = environment.get("XLA_FLAGS", "")
    added = [f"{name}={value}" for name, value in FLAGS.items() if name not in theirs]
    return added, f"GPU flags: {' '.join(added) or 'as XLA_FLAGS says'}"
