"""Measures a claim about evaluation: reports on a trained run, and writes `results/NAME.json`.

    python scripts/measure_evaluation.py                     # lists the claims
    python scripts/measure_evaluation.py ood_mnist --workdir=RUN --ood=fashion_mnist@FOLDER
    python scripts/measure_evaluation.py corruptions_cifar10 --workdir=RUN

Every number is read from the `metrics.json` that `python -m imgrec.evaluate` wrote, over the whole
test split.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import benchmark


@dataclass(frozen=True)
class Claim:
    """What is read of a report, and what it is to reach."""

    text: str
    metric: str
    target: float
    flags: tuple[str, ...]
    read: Callable[[dict[str, Any]], tuple[float, dict[str, Any]]]  # value, and what is kept


def ood(metrics: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """The best AUROC against the set that is told apart worst."""
    sets = metrics["unseen"]["sets"]
    best = {name: found["scores"][found["best_score"]] for name, found in sets.items()}
    worst = min(best, key=lambda name: best[name]["auroc"])
    kept = ("auroc", "aupr_in", "aupr_out", "fpr95_id_positive", "fpr95_ood_positive", "rejected")
    table = {
        name: {
            score: {k: each[k] for k in (*kept, "n", "n_ood", "intervals")}
            for score, each in found["scores"].items()
        }
        for name, found in sets.items()
    }
    own = {name: each["kept"] for name, each in metrics["unseen"]["scores"].items()}
    return best[worst]["auroc"], {"scores": table, "own_images_kept": own}


def corruptions(metrics: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """The mean accuracy over kinds and severities."""
    found = metrics["robustness"]
    left_out = ("accuracy_interval", "reasons")
    return found["mean_corrupted_accuracy"], {
        "table": {name: value for name, value in found.items() if name not in left_out}
    }


CLAIMS = {
    "ood_mnist": Claim(
        "MNIST LeNet-5 tells other images from digits: best of eight scores, the worst set",
        "AUROC",
        0.98,
        (),
        ood,
    ),
    "corruptions_cifar10": Claim(
        "CIFAR-10 under 15 corruptions at 5 severities with the constants of CIFAR-10-C, ResNet-20 "
        "of a short recipe (recorded; nothing was asked)",
        "mean accuracy",
        0.0,
        ("--suite=full",),
        corruptions,
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("claim", nargs="?", choices=sorted(CLAIMS))
    parser.add_argument("--workdir", help="a finished run")
    parser.add_argument("--ood", default="", help="as of imgrec.evaluate")
    parser.add_argument("--evaluated", action="store_true", help="read the report that is there")
    arguments = parser.parse_args()
    if arguments.claim is None or not arguments.workdir:
        for name, claim in CLAIMS.items():
            print(f"{name}: {claim.text}, at least {claim.target}")
        return 0
    claim, folder = CLAIMS[arguments.claim], Path(arguments.workdir)
    flags = [*claim.flags, *([f"--ood={arguments.ood}"] if arguments.ood else [])]
    command = [sys.executable, "-m", "imgrec.evaluate", f"--workdir={folder}", *flags]
    if not arguments.evaluated:
        subprocess.run(command, cwd=benchmark.ROOT, check=True)
    metrics = json.loads((folder / "evaluation" / "test" / "metrics.json").read_text())
    saved = json.loads((folder / "config.json").read_text())
    saved["experiment"]["data"]["root"] = ""  # a folder of somebody's machine
    value, kept = claim.read(metrics)
    result = {
        "claim": claim.text,
        "metric": claim.metric,
        "values": [value],
        "mean": value,
        "std": None,
        "n": metrics["n"],
        "target": claim.target,
        "reached": value >= claim.target,
        "clean_accuracy": metrics["accuracy"],
        **kept,
        "seconds": metrics["seconds"],
        "fingerprint": saved["fingerprint"],
        "config": saved["experiment"],
    }
    others = re.sub(r"@[^,]+", "@FOLDER", arguments.ood)
    extra = f" --ood={others}" if others else ""
    benchmark.write(
        result,
        str(benchmark.RESULTS / f"{arguments.claim}.json"),
        f"python scripts/measure_evaluation.py {arguments.claim} --workdir=RUN{extra}",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
