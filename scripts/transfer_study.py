"""What transfer is worth where images are few: fitted heads and fine-tuning against scratch.

    python scripts/transfer_study.py mnist_to_fashion --source_root=MNIST --data_root=FASHION_MNIST
    python scripts/transfer_study.py lite0_to_cifar10 --data_root=CIFAR10

Every method goes through the front door with as many validation images as training images, by
which it chooses what it has to choose (regularisation, neighbours, learning rate, step); seeds
draw other images. The whole test split is what is counted. Runs that are there are not repeated.
Writes results/transfer_STUDY.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from imgrec import claims

ROOT = Path(__file__).parents[1]
RUNS = Path("runs") / "transfer"
PER_CLASS, SEEDS, CLASSES = (10, 25, 100), (0, 1, 2), 10
FITTED = ("probe", "knn", "prototype")


@dataclass(frozen=True)
class Study:
    """Where from, where to, and by which methods.

    Attributes:
      text: the claim.
      weights: a run folder or the name of published weights.
      data: the data set that is learnt from few images.
      source: config of the run that gives the weights, where they are our own.
      methods: of configs/transfer.py, compared with scratch; the first is the claim's.
      rates: learning rates among which validation chooses, for what is trained.
      fitted_flags: of runs whose head is fitted to features.
      trained_flags: of runs that are trained.
      target: what the first method is to gain over scratch, at the fewest images.
    """

    text: str
    weights: str
    data: str
    target: float
    source: str = ""
    methods: tuple[str, ...] = ("finetune", *FITTED)
    rates: tuple[float, ...] = (1e-3, 3e-3)
    fitted_flags: tuple[str, ...] = ()
    trained_flags: tuple[str, ...] = ()


STUDIES = {
    "mnist_to_fashion": Study(
        text="MNIST to Fashion-MNIST, LeNet-5: fine-tuning over scratch, 10 images a class",
        weights=str(RUNS / "mnist_lenet_modern"),
        source="mnist_lenet.py:modern",
        data="fashion_mnist",
        target=0.0,
    ),
    "lite0_to_cifar10": Study(
        text="ImageNet to CIFAR-10, EfficientNet-Lite0: linear probe over scratch, "
        "10 images a class",
        weights="efficientnet_lite0",
        data="cifar10",
        methods=("probe", "finetune"),
        rates=(1e-3,),
        target=0.3,
        # Features of the 10,000 test images are computed once for all runs.
        fitted_flags=("--config.head.cache=runs/transfer/features", "--config.eval.batch_size=64"),
        # Smaller images and few steps, so that a trained run takes minutes on two cores.
        trained_flags=(
            "--config.data.image_size=96",
            "--config.data.batch_size=16",
            "--config.train.duration=300st",
        ),
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--data_root", default="", help="folder with the target's official files")
    parser.add_argument("--source_root", default="", help="folder with the source's, if trained")
    parser.add_argument("--image_size", type=int, default=0, help="0: as the weights want it")
    arguments = parser.parse_args()
    study = STUDIES[arguments.study]
    if study.source:
        run(Path(study.weights), [f"--config={ROOT}/configs/{study.source}"], arguments.source_root)
    size = [f"--config.data.image_size={arguments.image_size}"] if arguments.image_size else []
    found = {
        str(count): {
            method: [one(study, method, count, seed, size, arguments.data_root) for seed in SEEDS]
            for method in (*study.methods, "scratch")
        }
        for count in PER_CLASS
    }
    path = claims.root() / "results" / f"transfer_{arguments.study}.json"
    result = collect(arguments.study, study, found)
    claims.write(path, result)
    print(f"{path}: gain {result['mean']:.4f} +- {result['std']:.4f}")
    return 0


def one(study: Study, method: str, count: int, seed: int, size: list[str], data_root: str) -> Path:
    """The folder of the run of a method that its validation split likes best."""
    fitted = method in FITTED
    start = f"model={study.weights}" if method == "scratch" and not study.source else ""
    argument = ",".join(
        filter(None, [f"method={method}", f"weights={study.weights}", f"data={study.data}", start])
    )
    folders = []
    for rate in [None] if fitted else study.rates:
        name = f"{study.data}_{method}_{count}_seed{seed}" + (f"_lr{rate:g}" if rate else "")
        own = (
            study.fitted_flags
            if fitted
            else (f"--config.optimizer.learning_rate={rate}", *study.trained_flags)
        )
        settings = [
            f"--config={ROOT}/configs/transfer.py:{argument}",
            f"--config.seed={seed}",
            f"--config.data.split_seed={seed}",
            f"--config.data.per_class={count}",
            f"--config.data.validation={count * CLASSES}",
            "--config.log.tensorboard=False",
            *own,
            *size,
        ]
        folders.append(run(RUNS / name, settings, data_root))
    return max(folders, key=best_validation)


def run(folder: Path, settings: list[str], data_root: str) -> Path:
    """One run through the front door, unless it is there."""
    if not (claims.root() / folder / "evaluation" / "test" / "metrics.json").exists():
        # The root goes by the environment, so that the fingerprint names no one's folder.
        environment = {**os.environ, **({"IMGREC_DATA": data_root} if data_root else {})}
        subprocess.run(
            [sys.executable, "-m", "imgrec.main", *settings, f"--workdir={folder}"],
            cwd=claims.root(),
            env=environment,
            check=True,
        )
    return folder


def best_validation(folder: Path) -> float:
    lines = (claims.root() / folder / "metrics.jsonl").read_text().splitlines()
    return max(json.loads(line).get("validation/accuracy", 0.0) for line in lines)


def collect(name: str, study: Study, found: dict[str, dict[str, list[Path]]]) -> dict:
    """The study's result, from what its runs wrote."""

    def read(folder: Path, *parts: str) -> dict:
        return json.loads((claims.root() / folder).joinpath(*parts).read_text())

    def accuracy(folder: Path) -> float:
        return read(folder, "evaluation", "test", "metrics.json")["accuracy"]

    table = {
        count: {
            method: {
                "values": (values := [accuracy(folder) for folder in folders]),
                "mean": statistics.fmean(values),
                "std": statistics.stdev(values),
                "seconds": [read(folder, "seconds.json")["total"] for folder in folders],
                "chosen": [chosen(folder) for folder in folders],
            }
            for method, folders in methods.items()
        }
        for count, methods in found.items()
    }
    fewest = table[str(PER_CLASS[0])]
    pairs = zip(fewest[study.methods[0]]["values"], fewest["scratch"]["values"], strict=True)
    gains = [ours - scratch for ours, scratch in pairs]
    first = found[str(PER_CLASS[0])][study.methods[0]][0]
    launch = json.loads((claims.root() / first / "launches.jsonl").read_text().splitlines()[0])
    config = read(first, "config.json")
    return {
        "claim": study.text,
        "metric": "gain in test accuracy over the same network from scratch",
        "values": gains,
        "value": statistics.fmean(gains),
        "mean": statistics.fmean(gains),
        "rule": "seeds",
        "n": read(first, "evaluation", "test", "metrics.json")["n"],
        "target": study.target,
        "reached": statistics.fmean(gains) >= study.target,
        "seeds": list(SEEDS),
        "accuracy_by_images_a_class": table,
        "device": f"{launch['processor']}, {launch['cores']} cores, {launch['backend']}",
        "versions": launch["packages"],
        "git_revision": launch["git_revision"],
        "git_dirty": launch["git_dirty"],
        "command": f"python scripts/transfer_study.py {name} --data_root=FOLDER"
        + (" --source_root=FOLDER" if study.source else ""),
        "fingerprint": config["fingerprint"],
        "config": config["experiment"],
    }


def chosen(folder: Path) -> dict:
    """What validation chose for a run."""
    report = json.loads(
        (claims.root() / folder / "evaluation" / "test" / "metrics.json").read_text()
    )
    if "head" in report:
        return {k: v for k, v in report["head"]["chosen"].items() if k in ("l2", "k")}
    experiment = json.loads((claims.root() / folder / "config.json").read_text())["experiment"]
    return {"learning_rate": experiment["optimizer"]["learning_rate"], "step": report["step"]}


if __name__ == "__main__":
    sys.exit(main())
