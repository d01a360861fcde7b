"""The training step beside other frameworks': the same network, batch and precision.

Everything else is plain, so that the contestants have the same to do: no augmentation, dropout,
smoothing or averages; SGD with momentum; one batch of random images that stays on the device.
"""

import contextlib
import dataclasses
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

from flax import linen as nn
from ml_collections import ConfigDict

from imgrec import models
from imgrec.benchmarking import synthetic, turns, workers
from imgrec.benchmarking.workers import Worker
from imgrec.config import (
    AugmentConfig,
    CheckpointConfig,
    DistillConfig,
    EvalConfig,
    Experiment,
    HeadConfig,
    InitConfig,
    OptimizerConfig,
    ScheduleConfig,
    to_dict,
)
from imgrec.errors import UserError
from imgrec.models.lenet import TABLE_1
from imgrec.training import resolving

PEERS = {
    "torch": ("imgrec.benchmarking.torch_worker", "PyTorch eager", "torch"),
    "flax": ("imgrec.benchmarking.flax_worker", "stock Flax", "flax"),
}
_TARGETS = {"torch": 1.0, "flax": 1.25}
_LEARNING_RATE = 1e-3
# Of each network that has peers, the fields that the peers have too. What keeps its default or
# is a rate or an initialisation plays no part.
_PEERED = {
    "CifarResNet": ("depth", "shortcut"),
    "LeNet5": ("activation", "pool", "connections", "head"),
    "VisionTransformer": (
        *("patch_size", "width", "depth", "num_heads"),
        *("pool", "positions", "gelu"),
    ),
    "WideResNet": ("depth", "widen_factor"),
}
_UNIMPORTANT = ("num_classes", "dtype", "initialisation", "zero_init_residual", "parent", "name")
_RATES = ("dropout", "stochastic_depth")


def measure(
    experiment: Experiment,
    against: Sequence[str],
    *,
    rounds: int,
    seconds: float = 1.0,
    torch_python: str = sys.executable,
    told: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Seconds a step of ours and of the peers, interleaved, and how they compare.

    Args:
      experiment: whose network, batch, precision and mesh are meant.
      against: of `PEERS`.
      rounds: turns that each contestant has.
      seconds: of a turn.
      torch_python: the interpreter that has PyTorch.
      told: is given a line a round.

    Raises:
      UserError: no peer of this network is written, or a framework is not installed.
    """
    plain = bare(experiment)
    task = peer_task(plain) if against else {}
    with contextlib.ExitStack() as stack:
        started = {}
        ours = Worker("imgrec.benchmarking.step_worker", to_dict(plain))
        started["imgrec"] = stack.enter_context(ours)
        for name in against:
            python = torch_python if name == "torch" else sys.executable
            started[name] = stack.enter_context(_peer(name, task, python))
            theirs = started[name].facts["parameters"]
            if theirs != ours.facts["parameters"]:
                raise ValueError(
                    f"the networks differ: {ours.facts['parameters']} parameters here, and "
                    f"{theirs} in {name}"
                )
        spent = workers.take_turns(started, rounds=rounds, seconds=seconds, told=told)
        facts = {name: worker.facts for name, worker in started.items()}
    size = experiment.data.batch_size
    times = {name: [s.wall for s in found] for name, found in spent.items()}
    cpu = {name: min(s.cpu for s in found) for name, found in spent.items()}
    ratios = {
        name: turns.compared([1 / t for t in times["imgrec"]], [1 / t for t in times[name]])
        | {"cpu": cpu[name] / cpu["imgrec"]}
        for name in against
    }
    found = {
        "model": experiment.model.name,
        "batch_size": size,
        "dtype": experiment.train.compute_dtype,
        "ratios": ratios,
        "milliseconds": {name: [1e3 * t for t in found] for name, found in times.items()},
        "cpu_milliseconds": {name: 1e3 * least for name, least in cpu.items()},
        "images_per_second": {name: size / min(found) for name, found in times.items()},
        "contestants": facts,
    }
    return _claimed(found)


def _claimed(found: dict[str, Any]) -> dict[str, Any]:
    """What was measured in the form of a result file: beside the first peer, where one ran."""
    said = f"training step of {found['model']}, batch {found['batch_size']}, {found['dtype']}"
    peer = next(iter(found["ratios"]), None)
    if peer is None:
        rates = [1e3 * found["batch_size"] / t for t in found["milliseconds"]["imgrec"]]
        return {
            "claim": f"{said}: images/s",
            "metric": "images/s",
            "values": rates,
            "median": statistics.median(rates),
            "target": None,
            "reached": True,
            "n": len(rates),
            **found,
        }
    ratio = found["ratios"][peer]
    return {
        "claim": f"{said}: speed over {PEERS[peer][1]}'s",
        "metric": "ratio",
        **ratio,
        "target": _TARGETS[peer],
        "reached": all(r["median"] >= _TARGETS[name] for name, r in found["ratios"].items()),
        "n": len(ratio["values"]),
        **found,
    }


def bare(experiment: Experiment) -> Experiment:
    """The experiment with its network, batch, precision and mesh, and all else plain."""
    experiment = resolving.resolve(experiment)
    module = models.create(experiment.model, 10)
    still = {rate: 0.0 for rate in _RATES if getattr(module, rate, 0.0)}
    options = ConfigDict({**experiment.model.options, **still})
    return dataclasses.replace(
        experiment,
        data=dataclasses.replace(experiment.data, resident="off", mixture=(), workers=0),
        augment=AugmentConfig(),
        model=dataclasses.replace(experiment.model, options=options),
        init=InitConfig(),
        head=HeadConfig(),
        distill=DistillConfig(),
        optimizer=OptimizerConfig(
            name="sgd",
            learning_rate=_LEARNING_RATE,
            options=ConfigDict({"momentum": 0.9, "nesterov": False}),
        ),
        schedule=ScheduleConfig(name="constant"),
        train=dataclasses.replace(
            experiment.train,
            duration="1000st",
            accumulate=1,
            steps_per_call=1,
            label_smoothing=0.0,
            ema=0.0,
        ),
        eval=EvalConfig(),
        checkpoint=CheckpointConfig(),
    )


def peer_task(plain: Experiment) -> dict[str, Any]:
    """What a peer is to build, in JSON values.

    Raises:
      UserError: no peer of this network is written.
    """
    info = synthetic.dataset(plain.data, 1).info
    module = models.create(plain.model, info.num_classes)
    return {
        "kind": type(module).__name__,
        "fields": _peer_fields(module, plain.model.name),
        "image_shape": info.image_shape,
        "num_classes": info.num_classes,
        "batch_size": plain.data.batch_size,
        "dtype": plain.train.compute_dtype,
        "learning_rate": _LEARNING_RATE,
    }


def _peer_fields(module: nn.Module, name: str) -> dict[str, Any]:
    kind = type(module).__name__
    if kind not in _PEERED:
        raise UserError(
            f"No peer of {name} is written; --against takes networks of the kinds "
            f"{', '.join(sorted(_PEERED))} (lenet5, resnet20, wrn16_4, vit_ti4, ...). Leave "
            "--against out to measure this project alone."
        )
    for field in dataclasses.fields(module):
        plain = field.name in (*_PEERED[kind], *_UNIMPORTANT, *_RATES)
        if not plain and getattr(module, field.name) != field.default:
            raise UserError(
                f"The peers of {name} have no {field.name}={getattr(module, field.name)!r}; "
                f"leave config.model.options.{field.name} at {field.default!r}."
            )
    fields = {field: getattr(module, field) for field in _PEERED[kind]}
    return fields | ({"table": TABLE_1} if kind == "LeNet5" else {})


def _peer(name: str, task: dict[str, Any], python: str) -> Worker:
    module, _, package = PEERS[name]
    # Idle threads of OpenMP that spin take the processor from whoever's turn it is; beside other
    # work on the machine, spinning costs PyTorch itself many times what it saves.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    try:
        return Worker(module, task, python=python, environment=environment)
    except workers.MissingError as error:
        also = ", or name an interpreter that has it with --torch_python=PATH" * (name == "torch")
        raise UserError(
            f"--against={name} needs {error}, which {python} lacks. Install it with "
            f"pip install {package}{also}."
        ) from None
