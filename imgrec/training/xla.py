"""How a CPU computes: XLA's flags, set before the backend starts, convolutions of our own, memory.

Measured on two cores with jaxlib 0.10.2. The C++ kernels of `imgrec.native` take half the time of
XLA's convolutions in a training step (ResNet-20: 484 ms of CPU time instead of 687). Where they
cannot be had, handing element-wise work, products and reductions to XLA's CPU kernel library
makes nets of dense convolutions 1.5 times faster; it makes transformers, nets of depthwise
convolutions and what the C++ kernels leave to do slower. Either changes the last bits of
results, so the run folder records it.

XLA asks the system for the memory of a step's activations anew in every step, and each page of
it is a trip into the kernel: a quarter of the time of a step. It is kept instead.
"""

import ctypes
import importlib.util
import math
import os
import platform
import re

import jax
import jaxlib
from jax.sharding import Mesh

from imgrec import models
from imgrec.config import Experiment
from imgrec.errors import UserError
from imgrec.native import build
from imgrec.training import xla_gpu

FUSION_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
FUSION_KINDS = ("ELTWISE", "DOT", "REDUCE")
# XLA aborts the process on a flag it does not know, and this one is experimental.
KNOWN_TO = "0.10."
# Each holds the parameters and the optimizer's state; more were not measured.
MOST_CPU_DEVICES = 4
# Parameters of mallopt, as malloc.h of the GNU C library numbers them.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def configure(experiment: Experiment, processes: int = 1) -> str:
    """Decides on devices, convolutions and XLA_FLAGS for the CPU; says so in one line.

    To be called before anything computes; a flag that the user has set already stays.

    Args:
      experiment: asks by `mesh.cpu_devices`, `train.cpu_convolutions` and `train.cpu_fusion`.
      processes: that run it together.

    Raises:
      UserError: an unknown model, or kernels that are insisted on and cannot be had.
    """
    _mallopt((_M_ARENA_MAX, 1))  # before threads have heaps of their own; for `keep_memory`
    devices = _share_cores(experiment, processes)
    native, convolutions = native_convolutions(experiment)
    wanted = experiment.train.cpu_fusion
    if wanted == "auto":
        dense = models.describe(experiment.model.name).dense_convolutions
        wanted = "on" if dense and not native else "off"
    added, gpus = xla_gpu.gpu_flags(os.environ)
    if added:
        os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *added]).strip()
    said = _set_fusion(wanted)
    return "; ".join(line for line in (said, convolutions, devices, gpus) if line)


def _share_cores(experiment: Experiment, processes: int) -> str:
    """Has a CPU appear as several devices where that pays, each with a part of every batch.

    XLA cuts a transformer's many small operations over two cores 1.7 times as fast as over one;
    a device for each core computes them twice as fast. Nets of convolutions gain nothing.
    """
    if not _one_cpu_device():
        return ""  # or whoever simulates some has decided
    devices = experiment.mesh.cpu_devices or _best_cpu_devices(experiment, processes)
    if devices == 1:
        return ""
    try:
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError:  # something has been computed before
        return ""
    return f"CPU devices: {devices}, each with a part of a batch (--config.mesh.cpu_devices=1: one)"


def _best_cpu_devices(experiment: Experiment, processes: int) -> int:
    c = experiment
    axes = (c.mesh.data, c.mesh.fsdp, c.mesh.tensor)
    products = models.describe(c.model.name).matrix_products
    if not products or processes > 1 or axes != (-1, 1, 1):
        return 1
    most = min(_cores(), MOST_CPU_DEVICES)
    rows = math.gcd(c.data.batch_size // c.train.accumulate, c.eval.batch_size)
    return max(n for n in range(1, most + 1) if rows % n == 0)


def _cores() -> int:
    """That this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def keep_memory(step_bytes: int, host_bytes: int) -> bool:
    """Has memory that is freed stay with the process, where the C library is GNU's.

    After `configure`, blocks of any size come from one heap, which grows as it has to and never
    shrinks. As it may come to hold twice what is in use, nothing is done where a step needs much
    of the host's memory.

    Args:
      step_bytes: that a step takes for a while.
      host_bytes: that the host has.

    Returns:
      Whether it was done.
    """
    if 4 * step_bytes > host_bytes:
        return False
    return _mallopt((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, 2**26))


def _mallopt(*settings: tuple[int, int]) -> bool:
    """Sets parameters of malloc; whether there are such."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    taken = [mallopt(*setting) for setting in settings]
    return all(taken)


def uses_native_convolutions(experiment: Experiment, mesh: Mesh) -> bool:
    """Whether steps and passes on this mesh have their convolutions from the C++ kernels."""
    one = mesh.devices.size == 1 and mesh.devices.flat[0].platform == "cpu"
    return one and native_convolutions(experiment)[0]


def native_convolutions(experiment: Experiment) -> tuple[bool, str]:
    """Whether one CPU device is to have its convolutions from the C++ kernels, and why (not).

    Raises:
      UserError: they are insisted on and cannot be had.
    """
    field, wanted = "--config.train.cpu_convolutions", experiment.train.cpu_convolutions
    if wanted == "xla":
        return False, f"CPU convolutions: XLA's ({field}=auto for faster ones)"
    if not models.describe(experiment.model.name).dense_convolutions:
        return False, f"CPU convolutions: XLA's, as {experiment.model.name} has few dense ones"
    if wanted == "auto" and not _one_cpu_device():
        return False, "CPU convolutions: XLA's, which can be cut over devices"
    try:
        build.load()
    except build.UnavailableError as error:
        if wanted == "native":
            raise UserError(
                f"config.train.cpu_convolutions='native', but {error}. Install a C++ compiler "
                f"(Debian: apt install g++), name one by the variable CXX, or set {field}=auto."
            ) from None
        return False, f"CPU convolutions: XLA's, which are slower, since {error}"
    halved = experiment.train.compute_dtype == "bfloat16" and build.multiplies_bfloat16()
    unit = " and its matrix unit" if halved else ""
    return True, (
        f"CPU convolutions: our own, compiled for this processor{unit} ({field}=xla: without)"
    )


def _one_cpu_device() -> bool:
    """Whether this process will see one CPU device and no other, told without starting JAX."""
    simulated = re.search(r"host_platform_device_count=(\d+)", os.environ.get("XLA_FLAGS", ""))
    count = int(simulated[1]) if simulated else 1
    platforms = jax.config.values["jax_platforms"] or ""
    cuda = any(importlib.util.find_spec(f"jax_cuda{n}_plugin") for n in (12, 13))
    return max(count, jax.config.values["jax_num_cpu_devices"]) == 1 and (
        platforms == "cpu" or not cuda
    )


def _set_fusion(wanted: str) -> str:
    flags = os.environ.get("XLA_FLAGS", "")
    if FUSION_FLAG in flags:
        return f"CPU library fusion: as XLA_FLAGS says ({flags})"
    if wanted == "off":
        return "CPU library fusion: off (--config.train.cpu_fusion=on to try it)"
    if not jaxlib.__version__.startswith(KNOWN_TO):
        return f"CPU library fusion: off, since jaxlib {jaxlib.__version__} is not {KNOWN_TO}x"
    kinds = ",".join(f"LIBRARY_FUSION_TYPE_{kind}" for kind in FUSION_KINDS)
    os.environ["XLA_FLAGS"] = f"{flags} {FUSION_FLAG}={kinds}".strip()
    return "CPU library fusion: on (--config.train.cpu_fusion=off to do without)"
