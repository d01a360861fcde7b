"""Latency of inference on the CPU beside PyTorch eager and ONNX Runtime.

    pip install -e '.[bench]'
    python scripts/bench_latency.py

EfficientNet-Lite0 and ResNet-50 at 224x224, batches of 1 and 32, in float32 with all cores. The
contestants take turns in one process: ours compiled by jit, a few images at a time; timm's
network in PyTorch eager (in both memory layouts, of which the faster counts); and the same
network exported to ONNX and run by ONNX Runtime. Each call is timed until its logits are there,
with the images already in memory. Ours also runs with its own two means undone: convolutions left
to XLA, and the batch as a whole. Writes `results/bench_latency.json`; a ratio above 1 means
that ours is the faster.
"""

import argparse
import functools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

# Idle threads that spin would slow the contestant that comes next.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import benchmark
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.models import inference, lowering

COMMAND = "python scripts/bench_latency.py"
NETWORKS = {"efficientnet_lite0": "tf_efficientnet_lite0", "resnet50": "resnet50"}  # ours: timm's
BATCHES = (1, 32)
SIDE = 224
Contestants = dict[str, Callable[[], object]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", default=str(benchmark.RESULTS / "bench_latency.json"))
    arguments = parser.parse_args()
    settings = {}
    for name in NETWORKS:
        for batch in BATCHES:
            settings[f"{name}, batch {batch}"] = compare(name, batch, arguments.rounds)
    eager = [setting["over_torch_eager"] for setting in settings.values()]
    result = {
        "claim": "speed of inference on the CPU over PyTorch eager's, EfficientNet-Lite0 and "
        "ResNet-50, batches of 1 and 32, the worst of the four",
        "metric": "ratio",
        "values": eager,
        "median": min(eager),
        "target": 1.0,
        "reached": min(eager) >= 1.0,
        "n": arguments.rounds,
        "settings": settings,
    }
    benchmark.write(result, arguments.out, COMMAND)
    return 0


def compare(name: str, batch: int, rounds: int) -> dict[str, object]:
    """Milliseconds a batch of every contestant, and ours beside the others."""
    images = np.random.default_rng(0).normal(size=(batch, SIDE, SIDE, 3)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        contestants = {"imgrec": ours(name, images), **theirs(name, images, Path(folder))}
        # What models/lowering.py and models/inference.py are worth.
        with mock.patch.object(lowering, "conv_general_dilated", lax.conv_general_dilated):
            contestants["imgrec_xla_convolutions"] = ours(name, images)
        if batch > inference.CPU_CHUNK:
            contestants["imgrec_whole_batch"] = ours(name, images, chunk=batch)
        times = take_turns(contestants, rounds, calls=20 if batch == 1 else 2)
    eager = [min(pair) for pair in zip(times["torch"], times["torch_channels_last"], strict=True)]
    over = functools.partial(benchmark.ratio, {**times, "eager": eager}, peer="imgrec")
    found = {
        "milliseconds": {key: 1e3 * statistics.median(value) for key, value in times.items()},
        "over_torch_eager": over("eager"),
        "over_torch_eager_default_layout": over("torch"),
        "over_onnx_runtime": over("onnxruntime"),
    }
    spoken = ", ".join(f"{key} {value:.1f} ms" for key, value in found["milliseconds"].items())
    print(
        f"{name}, batch {batch}: {spoken}; {found['over_torch_eager']:.2f} times PyTorch's speed, "
        f"{found['over_onnx_runtime']:.2f} times ONNX Runtime's",
        flush=True,
    )
    return found


def ours(name: str, images: np.ndarray, chunk: int = inference.CPU_CHUNK) -> Callable[[], object]:
    """The compiled forward pass of this project's network."""
    module = models.create(ModelConfig(name=name), 1000)
    variables = jax.jit(lambda: module.init(jax.random.key(0), jnp.asarray(images), train=False))()

    def logits(variables: object, images: jax.Array) -> jax.Array:
        forward = functools.partial(module.apply, variables, train=False)
        return inference.in_chunks(forward, images, chunk)

    compiled = jax.jit(logits).lower(variables, images).compile()
    return lambda: jax.block_until_ready(compiled(variables, images))


def theirs(name: str, images: np.ndarray, folder: Path) -> Contestants:
    """The network of timm in PyTorch eager, in both layouts, and in ONNX Runtime."""
    import onnxruntime
    import timm
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    network = timm.create_model(NETWORKS[name]).eval()
    tensor = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    path = folder / "network.onnx"
    torch.onnx.export(network, (tensor,), path, dynamo=False, input_names=["images"])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def eager(module: torch.nn.Module, batch: torch.Tensor) -> object:
        with torch.inference_mode():
            return module(batch)

    last = timm.create_model(NETWORKS[name]).eval().to(memory_format=torch.channels_last)
    tensor_last = tensor.to(memory_format=torch.channels_last)
    return {
        "torch": lambda: eager(network, tensor),
        "torch_channels_last": lambda: eager(last, tensor_last),
        "onnxruntime": lambda: session.run(None, {"images": tensor.numpy()}),
    }


def take_turns(contestants: Contestants, rounds: int, calls: int) -> dict[str, list[float]]:
    """Seconds a call of each contestant in each round: the median of its calls.

    One round is not counted. The order changes from round to round.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for i in range(rounds + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            seconds = []
            for _ in range(calls + 1):
                begin = time.perf_counter()
                contestants[name]()
                seconds.append(time.perf_counter() - begin)
            if i:
                # The first call finds the caches full of the contestant before.
                times[name].append(statistics.median(seconds[1:]))
    return times


if __name__ == "__main__":
    sys.exit(main())
