"""How well the time of a run was spent: shares of activities, and of what the device can do.

Model FLOPs utilisation (Chowdhery et al. 2022, "PaLM", appendix B) is the rate of useful
operations over the device's peak. The peak here is measured, not read off a data sheet: the
rate of one big matrix product in the run's precision, which nobody's network exceeds by much.
"""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import jax.numpy as jnp

from imgrec.files import cache_folder, write_text
from imgrec.training import run_folder

_SIDES = {"cpu": 2048}  # of the matrices; a GPU needs bigger ones to be busy
_SIDE = 8192
_WORTH_ANOTHER = 100  # a run so many times longer than the measurement
_SECONDS = 0.4  # of measuring, about


@dataclass(frozen=True)
class Utilisation:
    """Operations a second of training, and of the device at its best.

    Attributes:
      flops_per_second: of the steps of a launch, waits for data included; log lines,
        evaluations, checkpoints and compilation are not.
      peak_flops_per_second: of all devices of the run.
      share: the former over the latter (MFU).
      peak: what the peak is, in words.
    """

    flops_per_second: float
    peak_flops_per_second: float
    share: float
    peak: str


def utilisation(
    flops_per_step: float, steps: int, seconds: Mapping[str, float], dtype: str, devices: int
) -> Utilisation:
    """Of a launch.

    Args:
      flops_per_step: as `models.cost.operations` counts them, recomputation included.
      steps: that the launch made.
      seconds: by activity.
      dtype: of the arithmetic.
      devices: of the run's mesh.
    """
    device = jax.local_devices()[0]
    # Simulated devices share the processor, whose cores one of them uses all.
    count = 1 if device.platform == "cpu" else devices
    spent = seconds["step"] + seconds.get("data wait", 0.0)
    rate = flops_per_step * steps / spent
    # Other work may have slowed the measurement that is remembered; a long run can afford one more.
    peak = count * measured_peak(dtype, again=spent > _WORTH_ANOTHER * _SECONDS)
    if rate > peak:
        peak = max(rate, count * measured_peak(dtype, again=True))
    side = _SIDES.get(device.platform, _SIDE)
    of = device.device_kind if device.platform != "cpu" else run_folder.processor()
    return Utilisation(
        flops_per_second=rate,
        peak_flops_per_second=peak,
        share=rate / peak,
        peak=f"measured: a product of two {side}x{side} matrices in {dtype} on {count} x {of}",
    )


def measured_peak(dtype: str, *, again: bool = False) -> float:
    """Operations a second of a big matrix product on one device, remembered for the machine.

    Args:
      dtype: of the operands; sums are in float32.
      again: measures although a rate is remembered; the higher one stays.
    """
    path = cache_folder() / "peak.json"
    device = jax.local_devices()[0]
    flags = os.environ.get("XLA_FLAGS", "")
    key = f"{run_folder.processor()}, {os.cpu_count()} cores, {device.device_kind}, {dtype}"
    key += f", jax {jax.__version__}, {flags}".rstrip(", ")
    try:
        known = json.loads(path.read_text())
        before = float(known.get(key, 0.0))
    except (OSError, ValueError, AttributeError, TypeError):
        known, before = {}, 0.0
    if before and not again:
        return before
    found = max(before, _measure(dtype, device))
    with contextlib.suppress(OSError):  # a home that takes no file costs the next run a second
        write_text(path, json.dumps({**known, key: found}, indent=2) + "\n")
    return found


def _measure(dtype: str, device: jax.Device) -> float:
    side = _SIDES.get(device.platform, _SIDE)
    matrix = jax.device_put(jnp.ones((side, side), dtype), device)
    product = jax.jit(lambda a: jnp.matmul(a, a, preferred_element_type=jnp.float32))
    jax.block_until_ready(product(matrix))
    times: list[float] = []
    while len(times) < 3 or sum(times) < _SECONDS:
        begin = time.perf_counter()
        jax.block_until_ready(product(matrix))
        times.append(time.perf_counter() - begin)
    return 2 * side**3 / min(times)


def shares(seconds: Mapping[str, float]) -> dict[str, float]:
    """Of the wall time, by activity, the largest first."""
    total = seconds["total"]
    parts = {name: spent / total for name, spent in seconds.items() if name != "total"}
    return dict(sorted(parts.items(), key=lambda part: -part[1]))


def describe(seconds: Mapping[str, float], found: Utilisation | None) -> list[str]:
    """Both in lines for people."""
    split = ", ".join(f"{name} {share:.1%}" for name, share in shares(seconds).items())
    lines = [f"goodput: {split} of {seconds['total']:.1f} s"]
    if found is not None:
        lines.append(
            f"utilisation: {found.flops_per_second / 1e9:,.1f} GFLOP/s while training, "
            f"{found.share:.1%} of {found.peak_flops_per_second / 1e9:,.1f} ({found.peak})"
        )
    return lines


def record(folder: Path, found: Utilisation) -> None:
    """Adds the latest launch's utilisation to `cost.json`."""
    path = folder / "cost.json"
    cost = json.loads(path.read_text())
    write_text(path, json.dumps({**cost, "utilisation": asdict(found)}, indent=2) + "\n")


def of_launch(
    folder: Path, seconds: Mapping[str, float], steps: int, dtype: str, devices: int
) -> list[str]:
    """Measures, records and describes how a launch that made so many steps spent its time."""
    found = None
    if steps:
        flops = json.loads((folder / "cost.json").read_text())["flops_per_step"]
        if flops:
            found = utilisation(flops, steps, seconds, dtype, devices)
            record(folder, found)
    return describe(seconds, found)
