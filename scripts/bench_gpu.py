"""Training steps on a GPU: images/s, utilisation and peak memory beside what others published.

    python scripts/bench_gpu.py                 # on the day a GPU is at hand
    python scripts/bench_gpu.py --tiny          # the same at toy size, to see that it works

For each network at 224x224 in bfloat16: the compiled step on images that stay on the device, with
the flags that a run sets. The published figures are their authors', on the hardware named with
each; they are printed for orientation, and no ratio to them is claimed. With `--against=torch`,
PyTorch eager runs on the same card. Not measured so far: no GPU was at hand. Writes
`results/bench_gpu.json` on a GPU, nothing with --tiny.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import jax

from imgrec import claims
from imgrec.benchmarking import step, turns
from imgrec.config import DataConfig, Experiment, ModelConfig, TrainConfig
from imgrec.training import goodput

COMMAND = "python scripts/bench_gpu.py"


class Published(NamedTuple):
    """Somebody's figure."""

    images_per_second: float
    what: str
    hardware: str
    source: str


_TIMM = "timm, results/benchmark-train-amp-nhwc"
_FLAX = "flax, examples/imagenet/README.md (steps x batch / time)"
# network: (batch, what others published of it)
NETWORKS: dict[str, tuple[int, tuple[Published, ...]]] = {
    "resnet50": (
        256,
        (
            Published(1218, "training, amp, channels last", "1 x RTX 3090", _TIMM),
            Published(2700, "training, float32, batch 512", "8 x V100", _FLAX),
            Published(8270, "training, mixed precision, batch 2048", "8 x V100", _FLAX),
        ),
    ),
    "vit_s16": (256, (Published(1058, "training, amp", "1 x RTX 3090", _TIMM),)),
    "vit_b16": (128, (Published(393, "training, amp", "1 x RTX 3090", _TIMM),)),
    "efficientnet_b0": (
        256,
        (Published(1752, "training, amp, channels last", "1 x RTX 3090", _TIMM),),
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default=",".join(NETWORKS), help="with commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--against", action="append", default=[], choices=tuple(step.PEERS))
    parser.add_argument("--tiny", action="store_true", help="2 images of 32x32, one round")
    parser.add_argument("--out", default=str(claims.root() / "results" / "bench_gpu.json"))
    arguments = parser.parse_args()
    if unknown := set(arguments.networks.split(",")) - set(NETWORKS):
        parser.error(f"no network {min(unknown)!r}; there are {', '.join(NETWORKS)}")

    found = {}
    for name in arguments.networks.split(","):
        found[name] = measure(name, arguments)
        print_beside(name, found[name])
    # Only now, since the steps ran in processes of their own and had the device to themselves.
    platform = jax.default_backend()
    peak = goodput.measured_peak(arguments.dtype)
    print(f"peak, by a big {arguments.dtype} product on one device: {peak / 1e12:.4g} TFLOP/s")
    for name, result in found.items():
        ours = result["contestants"]["imgrec"]
        rate = ours["flops"] / (min(result["milliseconds"]["imgrec"]) / 1e3)
        result["utilisation"] = rate / (peak * (1 if platform == "cpu" else ours["devices"]))
        print(f"{name}: {rate / 1e12:.4g} TFLOP/s, {result['utilisation']:.1%} of the peak (MFU)")
    if arguments.tiny or platform == "cpu":
        print(f"on {platform}: a trial of this script, not a measurement; nothing is written")
        return 0
    first = next(iter(found.values()))
    result = {
        "claim": f"training step on the GPU, {arguments.dtype}: utilisation of {next(iter(found))}",
        "metric": "share of the measured peak",
        "values": [r["utilisation"] for r in found.values()],
        "median": first["utilisation"],
        "target": None,
        "reached": True,
        "n": arguments.rounds,
        "networks": found,
        "published": {name: [p._asdict() for p in NETWORKS[name][1]] for name in found},
    }
    turns.write(result, Path(arguments.out), COMMAND)
    return 0


def measure(name: str, arguments: argparse.Namespace) -> dict:
    """What `imgrec.bench --what=step` finds of a network."""
    batch, _ = NETWORKS[name]
    experiment = Experiment(
        name=name,
        data=DataConfig(dataset="imagenet", image_size=224, batch_size=batch),
        model=ModelConfig(name=name),
        train=TrainConfig(compute_dtype=arguments.dtype),
    )
    seconds = 3.0
    if arguments.tiny:
        experiment.data.batch_size, experiment.data.image_size, seconds = 2, 32, 0.0
        experiment.mesh.data = 1
    rounds = 1 if arguments.tiny else arguments.rounds
    return step.measure(experiment, arguments.against, rounds=rounds, seconds=seconds)


def print_beside(name: str, result: dict) -> None:
    """Ours, and what others say of theirs."""
    for contestant, rate in result["images_per_second"].items():
        device = result["contestants"][contestant]["device"]
        print(
            f"{name}, batch {result['batch_size']}, {contestant} on {device}: {rate:,.1f} images/s"
        )
    for theirs in NETWORKS[name][1]:
        print(
            f"  published, not ours: {theirs.images_per_second:,.0f} images/s, {theirs.what}, "
            f"{theirs.hardware} ({theirs.source})"
        )


if __name__ == "__main__":
    sys.exit(main())
