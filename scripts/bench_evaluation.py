"""What the report of an evaluation costs beyond the forward passes that it needs.

    python scripts/bench_evaluation.py --workdir=runs/cifar10_resnet_cpu

"suite" is the whole standard suite, from the passes over test, validation and a sample of training
images to the finished page with its figures; "passes" is these passes alone. Both start from
nothing in every round, compiled programs being read from JAX's cache, and take turns, so that a
change of the machine's speed meets both. One round is not counted. Writes
`results/bench_evaluation.json`.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import benchmark
import jax

from imgrec import data
from imgrec.evaluation import sections, suite
from imgrec.evaluation.suite import Evaluated, Found, Options
from imgrec.reporting import parts, report_page
from imgrec.training import trained, xla

COMMAND = "python scripts/bench_evaluation.py --workdir=RUN"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True, help="a run on CIFAR-10 with ResNet-20")
    parser.add_argument("--rounds", type=int, default=5)
    default = benchmark.RESULTS / "bench_evaluation.json"
    parser.add_argument("--out", default=str(default))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as compiled:
        jax.config.update("jax_compilation_cache_dir", compiled)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
        result = measure(Path(arguments.workdir), arguments.rounds)
    benchmark.write(result, arguments.out, COMMAND)
    return 0


def measure(folder: Path, rounds: int) -> dict:
    experiment = trained.read_experiment(folder)
    print(xla.configure(experiment))
    dataset = data.load(experiment.data)
    run = trained.open_run(folder, experiment=experiment, dataset=dataset)

    def evaluated() -> Evaluated:
        return Evaluated(
            class_names=run.spec.class_names,
            options=Options(),
            subject=run.subject,
            split=dataset.test,
            dataset=dataset,
        )

    def passes() -> float:
        begin, e = time.perf_counter(), evaluated()
        for outputs in (e.outputs, e.validation_outputs, e.train_sample):
            assert len(outputs["logits"])
        return time.perf_counter() - begin

    sections_of: dict[str, list[float]] = {}

    def whole() -> float:
        begin, e = time.perf_counter(), evaluated()
        drawn: dict[str, parts.Part] = {}

        def draw(name: str, found: Found) -> None:
            drawn[name] = report_page.part(name, found.numbers, found.material)

        with e.computing():
            drawn |= report_page.learning_curves(folder / "metrics.jsonl")
            report = suite.run(e, sections.ALL, lambda done, total: None, draw)
        assert not report.defects, report.defects
        numbers = {
            **report.numbers.pop("classification"),
            **report.numbers,
            "missing": report.missing,
            "dataset": dataset.info.name,
            "split": "test",
        }
        page = time.perf_counter()
        report_page.render(numbers, drawn, name=experiment.name)
        for name, spent in {**report.seconds, "page": time.perf_counter() - page}.items():
            sections_of.setdefault(name, []).append(spent)
        return time.perf_counter() - begin

    seconds: dict[str, list[float]] = {"passes": [], "suite": []}
    contestants = {"passes": passes, "suite": whole}
    for i in range(rounds + 1):
        for name in list(contestants)[:: 1 if i % 2 else -1]:
            spent = contestants[name]()
            if i:
                seconds[name].append(spent)
        if i:
            print(f"round {i}: " + ", ".join(f"{k} {v[-1]:.1f} s" for k, v in seconds.items()))
    values = [s / p - 1 for p, s in zip(seconds["passes"], seconds["suite"], strict=True)]
    validation = dataset.validation
    return {
        "claim": f"the standard report of {len(dataset.test):,} {dataset.info.name} images with "
        f"{experiment.model.name}: time beyond the forward passes it needs",
        "metric": "share of the time of the passes",
        "values": values,
        "median": statistics.median(values),
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "n": len(values),
        "target": 0.2,
        "reached": statistics.median(values) <= 0.2,
        "images": {
            "test": len(dataset.test),
            "validation": 0 if validation is None else len(validation),
            "train": min(len(dataset.train), suite.TRAIN_SAMPLE),
        },
        "seconds": seconds,
        "median_seconds_of": {k: statistics.median(v[1:] or v) for k, v in sections_of.items()},
        "cores": os.cpu_count(),
    }


if __name__ == "__main__":
    sys.exit(main())
