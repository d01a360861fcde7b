"""Records what the compiled train steps of headline configurations do, for the tests to compare.

    python scripts/record_compiled.py            # all of CASES anew, into tests/training/compiled/
    python scripts/record_compiled.py cifar10_resnet20_data8
    python scripts/record_compiled.py --print    # measures, prints JSON and writes nothing
    python scripts/record_compiled.py --minimum  # whole networks, into results/collectives.json

Every step is compiled for eight simulated CPU devices, with the batch of its recipe, and is not
run. Networks of which all blocks are alike are cut down to few of them at their real width. A
difference to what was recorded is a person's to accept: record anew, and commit the diff with
its reason.
"""

import argparse
import dataclasses
import json
import os
import runpy
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

# What XLA does by itself: flags of the shell, or a program from a cache, would be other numbers.
os.environ.pop("XLA_FLAGS", None)
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
os.environ["JAX_PLATFORMS"] = "cpu"

import benchmark
import flax.linen as nn
import jax
import numpy as np
from jax.sharding import NamedSharding

from imgrec import data, models
from imgrec.config import Experiment
from imgrec.data import ArraySource, Dataset, Info, Split, sampling
from imgrec.files import write_text
from imgrec.training import compiled
from imgrec.training import mesh as meshes
from imgrec.training.plan import Plan, plan

FOLDER = benchmark.ROOT / "tests" / "training" / "compiled"
DEVICES = 8
CIFAR, IMAGENET = ((32, 32, 3), 10), ((224, 224, 3), 1000)
EXAMPLES = 2048  # that stand in for a training set on the device


@dataclass(frozen=True)
class Case:
    """A train step to compile.

    Attributes:
      config: file in configs/, and what of it differs.
      images: their shape, and the number of classes.
      changes: values of fields of the experiment, by dotted name.
      cut: gives the module with fewer blocks.
    """

    config: str
    images: tuple[tuple[int, int, int], int]
    changes: Mapping[str, Any] = field(default_factory=dict)
    cut: Callable[[nn.Module], nn.Module] = lambda module: module


def _two_blocks(module: Any) -> nn.Module:
    return module.clone(depth=2)


def _one_block_a_stage(module: Any) -> nn.Module:
    return module.clone(blocks=(1,) * len(module.blocks))


def _two_stages(module: Any) -> nn.Module:
    stages = [dataclasses.replace(stage, repeats=1) for stage in module.stages[1:3]]
    return module.clone(stages=tuple(stages))


VIT_B = {"model.name": "vit_b16", "data.resident": "off", "mesh.data": 1}
RESNET20 = {"data.resident": "on", "mesh.data": 8}
CASES = {
    "cifar10_resnet20_data8": Case("cifar10_resnet", CIFAR, RESNET20),
    "cifar10_resnet8_accumulate4_data8": Case(
        "cifar10_resnet", CIFAR, {**RESNET20, "model.name": "resnet8", "train.accumulate": 4}
    ),
    "cifar10_wrn10_10_data8": Case(
        "cifar10_wrn", CIFAR, {"model.name": "wrn10_10", "data.resident": "on", "mesh.data": 8}
    ),
    "cifar10_vit_ti4_2_blocks_data8": Case(
        "cifar10_vit", CIFAR, {"data.resident": "on", "mesh.data": 8}, _two_blocks
    ),
    "imagenet_vit_b16_2_blocks_fsdp8": Case(
        "imagenet_vit_s16", IMAGENET, {**VIT_B, "mesh.fsdp": 8}, _two_blocks
    ),
    "imagenet_vit_b16_2_blocks_data2_tensor4": Case(
        "imagenet_vit_s16",
        IMAGENET,
        {**VIT_B, "mesh.data": 2, "mesh.tensor": 4},
        _two_blocks,
    ),
    "imagenet_resnet50_4_blocks_data8": Case(
        "cifar10_resnet",
        ((64, 64, 3), 1000),
        {"model.name": "resnet50", "data.resident": "off", "mesh.data": 8},
        _one_block_a_stage,
    ),
    "imagenet_efficientnet_b0_2_blocks_data8": Case(
        "cifar10_resnet",
        ((64, 64, 3), 1000),
        {"model.name": "efficientnet_b0", "data.resident": "off", "mesh.data": 8},
        _two_stages,
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}")
    parser.add_argument("--print", action="store_true", help="to standard output, not to files")
    parser.add_argument("--minimum", action="store_true", help="write results/collectives.json")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - CASES.keys():
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    jax.config.update("jax_num_cpu_devices", DEVICES)
    if arguments.minimum:
        return record_minimum()
    found = {name: measure(CASES[name])[0] for name in arguments.cases or CASES}
    if arguments.print:
        print(json.dumps(found))
        return 0
    for name, summary in found.items():
        path = FOLDER / f"{name}.json"
        recorded = json.loads(path.read_text()) if path.exists() else None
        for line in compiled.differences(recorded, summary) if recorded else ["new"]:
            print(f"{name}: {line}")
        write_text(path, json.dumps(summary, indent=2) + "\n")
    return 0


def measure(case: Case) -> tuple[dict[str, Any], Plan]:
    """What the case's program does, with the versions that compiled it; and its plan."""
    planned = planned_without_data(case)
    state = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        planned.state,
        planned.shardings,
    )
    step, _ = planned.compile_step(state, fed(planned))
    versions = {"jax": jax.__version__, "jaxlib": jax.lib.__version__}
    return {**versions, **compiled.summarise(step.func)}, planned


def planned_without_data(case: Case) -> Plan:
    experiment = runpy.run_path(str(benchmark.ROOT / "configs" / f"{case.config}.py"))[
        "get_config"
    ]()
    experiment.name = case.config
    experiment.train.duration = "100000st"
    experiment.data.validation = "0"
    for name, value in case.changes.items():
        section, _, last = name.rpartition(".")
        setattr(getattr(experiment, section), last, value)
    create = models.create
    with (
        mock.patch.object(data, "load", lambda _: blank(case, experiment)),
        mock.patch.object(models, "create", lambda *a, **k: case.cut(create(*a, **k))),
    ):
        return plan(experiment)


def blank(case: Case, experiment: Experiment) -> Dataset:
    """Images without content; a program depends on their shape alone."""
    shape, classes = case.images
    images = np.broadcast_to(np.zeros((1, *shape), np.uint8), (EXAMPLES, *shape))
    source = ArraySource(images, np.arange(EXAMPLES) % classes)
    train, test = (Split(name, source, np.arange(EXAMPLES)) for name in ("train", "test"))
    names = tuple(map(str, range(classes)))
    info = Info(experiment.data.dataset, classes, names, shape, (0.5,) * 3, (0.25,) * 3, "blank")
    return Dataset(train, None, test, info, sampling.shuffled(EXAMPLES))


def fed(planned: Plan) -> Mapping[str, Any]:
    """What the step is given beside the state; of a batch from the host its shapes."""
    if planned.resident:
        return planned.feed().take_steps(1)
    batch_size = planned.experiment.data.batch_size
    rows = {
        "image": (planned.dataset.info.image_shape, np.uint8),
        "label": ((), np.int32),
        "index": ((), np.int32),
        "mask": ((), np.bool_),
    }
    sharding = NamedSharding(planned.mesh, meshes.BATCH)
    return {
        name: jax.ShapeDtypeStruct((batch_size, *shape), kind, sharding=sharding)
        for name, (shape, kind) in rows.items()
    }


def record_minimum() -> int:
    """Compares whole networks with what their method needs, by arithmetic."""
    cases = {
        "ResNet-20, data=8": (CASES["cifar10_resnet20_data8"], minimum_of_data_parallel),
        "ViT-B/16, fsdp=8": (
            Case("imagenet_vit_s16", IMAGENET, {**VIT_B, "mesh.fsdp": 8}),
            minimum_of_fsdp,
        ),
    }
    settings, excess = {}, []
    for name, (case, minimum) in cases.items():
        summary, planned = measure(case)
        counts = {kind: t["count"] for kind, t in summary["collectives"].items()}
        needed, why = minimum(planned)
        excess.append(sum(counts.values()) - sum(needed.values()))
        settings[name] = {"needed": needed, "why": why, **summary}
        print(f"{name}: needed {needed}, found {counts}", flush=True)
    result = {
        "claim": "collectives of a step beyond what the method needs, ResNet-20 with data=8 and "
        "ViT-B/16 with fsdp=8, the worse of the two",
        "metric": "operations",
        "values": excess,
        "median": max(excess),
        "target": 0,
        "reached": max(excess) <= 0,
        "n": len(excess),
        "settings": settings,
    }
    benchmark.write(
        result,
        str(benchmark.RESULTS / "collectives.json"),
        "python scripts/record_compiled.py --minimum",
    )
    return 0


def minimum_of_data_parallel(planned: Plan) -> tuple[dict[str, int], str]:
    norms = len(jax.tree.leaves(planned.state.model_state)) // 2  # mean and variance of each
    return {"all-reduce": 2 * norms + 1}, (
        f"each of {norms} batch norms waits for the statistics of the one before, forward, and for "
        "the sums of its gradient, backward; the stem's gradient comes after the last of them, and "
        "all gradients and metrics that are not done by then travel with it"
    )


def minimum_of_fsdp(planned: Plan) -> tuple[dict[str, int], str]:
    cut = sum(
        not sharding.is_fully_replicated for sharding in jax.tree.leaves(planned.shardings.params)
    )
    needed = {"all-gather": 2 * cut - 1, "reduce-scatter": cut, "all-reduce": 1}
    return {**needed, "collective-permute": 2}, (
        f"each of {cut} arrays that are cut is gathered for the forward and again for the backward "
        "pass, but for the patch embedding, as images need no gradient; the gradient of each is "
        "summed and scattered once; the gradients of vectors, which are whole everywhere, the "
        "squares of the others for the norm and the metrics can be summed together, of which XLA "
        "makes a second message from 256 arrays on; mixup's partner is the next image of the "
        "batch, so that one image and one target pass from device to device"
    )


if __name__ == "__main__":
    sys.exit(main())
