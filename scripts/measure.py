"""Measures a claim: runs its experiment once a seed, and writes `results/NAME.json`.

    python scripts/measure.py                      # lists the claims
    python scripts/measure.py mnist_lenet --data_root=FOLDER
    python scripts/measure.py mnist_lenet --folders runs/a runs/b   # runs that are there already

Every number is read from what the runs wrote: accuracy on the whole test split, seconds,
images/s, and FLOPs by XLA's count. Runs that were cut go on where they stopped.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Claim:
    """What is run, and what it is to reach."""

    config: str
    target: float
    text: str
    seeds: tuple[int, ...] = (0, 1, 2)


CLAIMS = {
    "digits_lenet": Claim("digits_lenet.py", 0.975, "digits, LeNet-5"),
    "mnist_lenet": Claim("mnist_lenet.py", 0.9905, "MNIST, LeNet-5 as in the paper"),
    "mnist_lenet_modern": Claim("mnist_lenet.py:modern", 0.9905, "MNIST, LeNet-5 with ReLU"),
    "mnist_cnn": Claim("mnist_cnn.py", 0.993, "MNIST, small CNN"),
    "cifar10_resnet20_cpu": Claim(
        "cifar10_resnet.py:cpu", 0.90, "CIFAR-10, ResNet-20, 24 epochs", seeds=(0,)
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("claim", nargs="?", choices=sorted(CLAIMS))
    parser.add_argument("--data_root", default="", help="folder with the official files")
    parser.add_argument("--folders", nargs="*", help="finished runs, instead of running")
    arguments = parser.parse_args()
    if arguments.claim is None:
        for name, claim in CLAIMS.items():
            print(f"{name}: {claim.text}, at least {claim.target} (configs/{claim.config})")
        return 0
    claim = CLAIMS[arguments.claim]
    folders = [Path(folder) for folder in arguments.folders or ()]
    if not folders:
        folders = [run(arguments.claim, claim, seed, arguments.data_root) for seed in claim.seeds]
    result = collect(arguments.claim, claim, folders)
    path = ROOT / "results" / f"{arguments.claim}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    reached = "reached" if result["reached"] else "MISSED"
    print(f"{path}: {result['mean']:.4f} +- {result['std']}, {reached} {claim.target}")
    return 0


def run(name: str, claim: Claim, seed: int, data_root: str) -> Path:
    """One seed through the front door."""
    folder = ROOT / "runs" / "claims" / f"{name}_seed{seed}"
    # The root goes by the environment, so that the fingerprint names no one's folder.
    environment = {**os.environ, **({"IMGREC_DATA": data_root} if data_root else {})}
    subprocess.run(
        [sys.executable, "-m", "imgrec.main", *_flags(claim, seed), f"--workdir={folder}"],
        cwd=ROOT,
        env=environment,
        check=True,
    )
    return folder


def collect(name: str, claim: Claim, folders: list[Path]) -> dict:
    """The claim's result, from what its runs wrote."""
    configs = [json.loads((folder / "config.json").read_text()) for folder in folders]
    launches = [
        [json.loads(line) for line in (folder / "launches.jsonl").read_text().splitlines()]
        for folder in folders
    ]
    tests = [
        json.loads((folder / "evaluation" / "test" / "metrics.json").read_text())
        for folder in folders
    ]
    seconds = [json.loads((folder / "seconds.json").read_text()) for folder in folders]
    values = [test["accuracy"] for test in tests]
    first = launches[0][0]
    return {
        "claim": claim.text,
        "metric": "test accuracy",
        "values": values,
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "n": tests[0]["n"],
        "target": claim.target,
        "reached": statistics.fmean(values) >= claim.target,
        "seeds": [config["experiment"]["seed"] for config in configs],
        "seconds": [spent["total"] for spent in seconds],
        "launches": [len(each) for each in launches],
        "images_per_second": [_images_per_second(folder) for folder in folders],
        "steps": [test["step"] for test in tests],
        "flops": [_flops(folder) for folder in folders],
        "device": f"{first['processor']}, {first['cores']} cores, {first['backend']}",
        "packages": first["packages"],
        "git_revision": first["git_revision"],
        "git_dirty": first["git_dirty"],
        "xla_flags": first["xla_flags"],
        "command": f"python scripts/measure.py {name} --data_root=FOLDER",
        "fingerprint": configs[0]["fingerprint"],
        "config": configs[0]["experiment"],
    }


def _flags(claim: Claim, seed: int) -> list[str]:
    return [f"--config=configs/{claim.config}", f"--config.seed={seed}"]


def _images_per_second(folder: Path) -> float:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return statistics.median(
        line["time/images_per_second"] for line in lines if "time/images_per_second" in line
    )


def _flops(folder: Path) -> float | None:
    cost = folder / "cost.json"
    return json.loads(cost.read_text())["flops"] if cost.exists() else None


if __name__ == "__main__":
    sys.exit(main())
