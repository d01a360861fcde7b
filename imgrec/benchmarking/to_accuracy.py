"""Whole runs beside PyTorch eager: the same recipe, from the command to the test accuracy.

Runs take turns, each alone in a process of its own: `python -m imgrec.main` here, and
`imgrec.benchmarking.torch_recipe` there. In a round both start from the same parameters (the
whitening included), which are computed here before the clock starts, and take as many steps of the
same batch size at the same learning rates; the order of the data and the augmentations are drawn
by each for itself. Ours reads the data set as every run does and saves its checkpoints; the peer
is handed the images in memory's own form and saves nothing.
"""

import dataclasses
import inspect
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from imgrec import models
from imgrec.benchmarking import turns
from imgrec.config import AugmentConfig, Experiment, TrainConfig
from imgrec.errors import UserError
from imgrec.training import optimizers, rules
from imgrec.training.plan import Plan, plan
from imgrec.training.state import TrainState

TARGET = 1.0
# Of each network whose peer names its parameters as ours does, the fields that the peer has.
_NETWORKS = {"Airbench": ("widths", "convolutions", "momentum", "mirror")}
_AUGMENTATIONS = ("pad_crop", "pad_mode", "flip", "mean", "std")  # that the peer has
_TRAINING = (
    *("duration", "label_smoothing", "compute_dtype"),
    *("steps_per_call", "cpu_convolutions", "cpu_fusion"),
)
_BEFORE = ("start-up", "compile")  # activities of our clock that precede the first step


class RunError(RuntimeError):
    """A run ended without an accuracy; what it printed last is the message."""


def measure(
    experiment: Experiment,
    arguments: Sequence[str],
    *,
    rounds: int,
    torch_python: str = sys.executable,
    told: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Seconds and accuracies of whole runs of both, and how they compare.

    "process" is a command from its start to its end. "training" begins with the first step and
    ends with the test accuracy; here checkpoints and the compilation of the evaluation count, and
    that of the step does not.

    Args:
      experiment: the recipe; round i has its seed plus i.
      arguments: that say the same on a command line, `--config=...` and `--config.FIELD=...`.
      rounds: runs of each.
      torch_python: the interpreter that has PyTorch.
      told: is given a line a run.

    Raises:
      UserError: the peer lacks something of the recipe, or PyTorch is not installed.
      RunError: a run failed.
    """
    check(experiment)
    _check_torch(torch_python)
    found: dict[str, list[dict[str, Any]]] = {"imgrec": [], "torch": []}
    with tempfile.TemporaryDirectory() as name:
        for i in range(rounds):
            folder = Path(name) / str(i)
            folder.mkdir()
            seed = experiment.seed + i
            task = write_task(plan(dataclasses.replace(experiment, seed=seed)), folder)
            for who in list(found)[:: -1 if i % 2 else 1]:
                if who == "torch":
                    run = _theirs(task, torch_python)
                else:
                    run = _ours(arguments, seed, folder / "run")
                found[who].append(run)
                told(
                    f"round {i + 1} of {rounds}, {who}: accuracy {run['accuracy']:.4f}, "
                    f"{run['training']:.1f} s from the first step, {run['process']:.1f} s in all"
                )
    return _claimed(experiment, found)


def check(experiment: Experiment) -> None:
    """Refuses what the peer has no counterpart of."""
    c = experiment
    module = models.create(c.model, 10)
    kind = type(module).__name__
    if kind not in _NETWORKS:
        raise UserError(
            f"No PyTorch recipe of {c.model.name} is written; --what=to_accuracy takes networks of "
            "the kind airbench94, as in configs/cifar10_fast.py."
        )
    if c.optimizer.name != "muon":
        raise UserError(
            f"The PyTorch recipe has no optimizer {c.optimizer.name!r}; --what=to_accuracy takes "
            "muon, as in configs/cifar10_fast.py."
        )
    plain: dict[str, tuple[Any, tuple[str, ...]]] = {
        "augment": (AugmentConfig(), _AUGMENTATIONS),
        "train": (TrainConfig(), _TRAINING),
    }
    for section, (default, allowed) in plain.items():
        for field in dataclasses.fields(default):
            value = getattr(getattr(c, section), field.name)
            if field.name not in allowed and value != getattr(default, field.name):
                raise UserError(
                    f"The PyTorch recipe has no {section}.{field.name}={value!r}; leave it out of "
                    "what is compared."
                )
    others = {"optimizer.clip_norm": c.optimizer.clip_norm, "init.weights": c.init.weights}
    others |= {"distill.teacher": c.distill.teacher, "data.mixture": c.data.mixture}
    for name, value in others.items():
        if value:
            raise UserError(
                f"The PyTorch recipe has no {name}={value!r}; leave it out of what is compared."
            )


def write_task(planned: Plan, folder: Path) -> Path:
    """What the peer is to do, as a JSON file and the arrays it names; returns the former."""
    c, dataset, start = planned.experiment, planned.dataset, planned.initial_state()
    module = planned.task.module
    given = optimizers.check(c.optimizer)
    options = {
        name: given.get(name, parameter.default)
        for name, parameter in inspect.signature(optimizers.muon).parameters.items()
    }
    kept: dict[str, Any] = _named(start.params)
    for name, split in {"train": dataset.train, "test": dataset.test}.items():
        whole = split.gather(np.arange(len(split)))
        kept |= {f"{name}_images": whole["image"], f"{name}_labels": whole["label"]}
    fixed: dict[str, Any] = _named(start.model_state["whitening"])
    arrays = folder / "arrays.npz"
    np.savez(arrays, **kept, **fixed)
    task = {
        "seed": c.seed,
        "arrays": str(arrays),
        "kind": type(module).__name__,
        "fields": {name: getattr(module, name) for name in _NETWORKS[type(module).__name__]},
        "image_shape": dataset.info.image_shape,
        "num_classes": dataset.info.num_classes,
        "mean": planned.task.mean,
        "std": planned.task.std,
        "pad_crop": c.augment.pad_crop,
        "pad_mode": c.augment.pad_mode,
        "flip": c.augment.flip,
        "label_smoothing": c.train.label_smoothing,
        "dtype": c.train.compute_dtype,
        "batch_size": c.data.batch_size,
        "eval_batch_size": planned.eval_batch_size,
        "learning_rates": [float(planned.schedule(step)) for step in range(planned.total_steps)],
        **{name: options[name] for name in ("beta", "nesterov", "adam_scale")},
        "parameters": _parameters(planned, start, options["adam_names"]),
        "fixed": sorted(fixed),
    }
    path = folder / "task.json"
    path.write_text(json.dumps(task))
    return path


def _parameters(planned: Plan, start: TrainState, adam_names: str) -> dict[str, dict[str, Any]]:
    """By name, what the optimizer does with a parameter."""
    c = planned.experiment.optimizer
    names = rules.names(start.params)
    decay = rules.decide(
        c.weight_decay_rules, names, field="optimizer.weight_decay_rules", default=1.0
    )
    rate = rules.decide(
        c.learning_rate_rules, names, field="optimizer.learning_rate_rules", default=1.0
    )
    return {
        name: {
            "kind": "matrix" if leaf.ndim > 1 and not re.fullmatch(adam_names, name) else "other",
            "decay": c.weight_decay * d,
            "rate": r,
            "frozen": planned.starts[name] is None,
        }
        for name, leaf, d, r in zip(names, jax.tree.leaves(start.params), decay, rate, strict=True)
    }


def _named(tree: Any) -> dict[str, np.ndarray]:
    return {
        name: np.asarray(leaf)
        for name, leaf in zip(rules.names(tree), jax.tree.leaves(tree), strict=True)
    }


def _ours(arguments: Sequence[str], seed: int, workdir: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "imgrec.main", *arguments, f"--config.seed={seed}"]
    seconds = _timed([*command, f"--workdir={workdir}"])
    spent = json.loads((workdir / "seconds.json").read_text())
    test = json.loads((workdir / "evaluation" / "test" / "metrics.json").read_text())
    return {
        "process": seconds,
        "training": spent["total"] - sum(spent.get(activity, 0.0) for activity in _BEFORE),
        "accuracy": test["accuracy"],
        "n": test["n"],
        "seconds": spent,
    }


def _theirs(task: Path, python: str) -> dict[str, Any]:
    seconds = _timed([python, "-m", "imgrec.benchmarking.torch_recipe", str(task)])
    answer = json.loads(task.with_suffix(".answer.json").read_text())
    return {"process": seconds, "training": answer.pop("training_seconds"), **answer}


def _timed(command: Sequence[str]) -> float:
    """Seconds of a command from its start to its end."""
    # PyTorch's interpreter need not have this project installed.
    path = os.pathsep.join(filter(None, (str(turns.ROOT), os.environ.get("PYTHONPATH"))))
    begin = time.perf_counter()
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise RunError("\n".join(done.stdout.splitlines()[-20:]))
    return seconds


def _check_torch(python: str) -> None:
    """Before minutes of ours are spent."""
    asked = "import importlib.util as u; raise SystemExit(u.find_spec('torch') is None)"
    if subprocess.run([python, "-c", asked]).returncode:
        raise UserError(
            f"--what=to_accuracy needs torch, which {python} lacks. Install it with pip install "
            "torch, or name an interpreter that has it with --torch_python=PATH"
        )


def _claimed(
    experiment: Experiment, found: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """The runs in the form of a result file."""

    def of(key: str) -> dict[str, list[float]]:
        return {who: [run[key] for run in runs] for who, runs in found.items()}

    spans = {
        span: turns.compared(*([1 / s for s in of(span)[who]] for who in ("imgrec", "torch")))
        | {"seconds": of(span)}
        for span in ("process", "training")
    }
    accuracies, c = of("accuracy"), experiment
    ratio = {name: spans["process"][name] for name in ("minimum", "median", "values")}
    n = len(ratio["values"])
    return {
        "claim": f"{c.data.dataset} with {c.model.name} in {c.train.duration}, "
        f"{c.train.compute_dtype}: wall time of the whole command in PyTorch eager over that of "
        "the same recipe here",
        "metric": "ratio",
        **ratio,
        "target": TARGET,
        "reached": ratio["median"] >= TARGET,
        "n": n,
        "seeds": [c.seed + i for i in range(n)],
        "seconds": sum(sum(times) for times in of("process").values()),
        "spans": spans,
        "accuracies": accuracies,
        "mean_accuracy": {who: statistics.mean(values) for who, values in accuracies.items()},
        "runs": {who: [dict(run) for run in runs] for who, runs in found.items()},
    }
