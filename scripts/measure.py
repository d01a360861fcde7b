"""Measures a claim: runs its experiment once a seed, and writes `results/NAME.json`.

    python scripts/measure.py                      # lists the claims
    python scripts/measure.py mnist_lenet --data_root=FOLDER
    python scripts/measure.py mnist_lenet --folders runs/a runs/b   # runs that are there already

Every number is read from what the runs wrote: accuracy on the whole test split, seconds,
images/s, and FLOPs of matrix products and convolutions. Runs that were cut go on where they
stopped. `python -m imgrec.reproduce NAME` runs a claim again and compares.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from imgrec import claims

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Claim:
    """What is run, and what it is to reach."""

    config: str
    target: float | None  # None where the figure is for the record
    text: str
    seeds: tuple[int, ...] = (0, 1, 2)


NAMES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}
CLAIMS = {
    "digits_lenet": Claim("digits_lenet.py", 0.975, "digits, LeNet-5"),
    "mnist_lenet": Claim("mnist_lenet.py", 0.9905, "MNIST, LeNet-5 as in the paper"),
    "mnist_lenet_modern": Claim("mnist_lenet.py:modern", 0.9905, "MNIST, LeNet-5 with ReLU"),
    "mnist_cnn": Claim("mnist_cnn.py", 0.993, "MNIST, small CNN"),
    "cifar10_resnet20_cpu": Claim(
        "cifar10_resnet.py:cpu", 0.90, "CIFAR-10, ResNet-20, 24 epochs", seeds=(0,)
    ),
    **{
        f"{data}_{features}_{classifier}": Claim(
            f"classical.py:features={features},classifier={classifier},data={data}",
            target,
            f"{NAMES[data]}, {text}",
            seeds=(0,),
        )
        for data, features, classifier, target, text in (
            ("mnist", "pixels", "knn", 0.969, "3 nearest neighbours of pixels"),
            ("mnist", "pixels", "svm", 0.985, "SVM (RBF) on pixels"),
            ("mnist", "pixels", "random_forest", 0.968, "random forest on pixels"),
            ("mnist", "hog", "svm", 0.988, "HOG and SVM (RBF)"),
            ("fashion_mnist", "pixels", "random_forest", 0.87, "random forest on pixels"),
            ("fashion_mnist", "pixels", "svm", 0.895, "SVM (RBF) on pixels"),
            ("fashion_mnist", "hog", "svm", 0.90, "HOG and SVM (RBF)"),
            ("cifar10", "pixels", "knn", None, "3 nearest neighbours of pixels"),
            ("cifar10", "hog", "svm", None, "HOG and SVM (RBF)"),
        )
    },
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("claim", nargs="?", choices=sorted(CLAIMS))
    parser.add_argument("--data_root", default="", help="folder with the official files")
    parser.add_argument("--folders", nargs="*", help="finished runs, instead of running")
    arguments = parser.parse_args()
    if arguments.claim is None:
        for name, claim in CLAIMS.items():
            asked = "for the record" if claim.target is None else f"at least {claim.target}"
            print(f"{name}: {claim.text}, {asked} (configs/{claim.config})")
        return 0
    claim = CLAIMS[arguments.claim]
    folders = [Path(folder) for folder in arguments.folders or ()]
    if not folders:
        folders = [run(arguments.claim, claim, seed, arguments.data_root) for seed in claim.seeds]
    result = claims.of_runs(
        folders,
        claim=claim.text,
        target=claim.target,
        command=f"python scripts/measure.py {arguments.claim} --data_root=FOLDER",
    )
    path = claims.root() / "results" / f"{arguments.claim}.json"
    result = claims.write(path, result)
    said = {True: "reached", False: "MISSED", None: "asked:"}[result["reached"]]
    print(f"{path}: {result['mean']:.4f} +- {result['std']}, {said} {claim.target}")
    return 0


def run(name: str, claim: Claim, seed: int, data_root: str) -> Path:
    """One seed through the front door."""
    folder = claims.root() / "runs" / "claims" / f"{name}_seed{seed}"
    flags = [f"--config=configs/{claim.config}", f"--config.seed={seed}", f"--workdir={folder}"]
    # The root goes by the environment, so that the fingerprint names no one's folder.
    environment = {**os.environ, **({"IMGREC_DATA": data_root} if data_root else {})}
    subprocess.run(
        [sys.executable, "-m", "imgrec.main", *flags], cwd=ROOT, env=environment, check=True
    )
    return folder


if __name__ == "__main__":
    sys.exit(main())
