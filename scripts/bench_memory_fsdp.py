"""Memory of a training step of ViT-B/16, as compiled for 1, 2, 4 and 8 simulated devices.

    python scripts/bench_memory_fsdp.py

Nothing is put on a device: the step is compiled for shapes, at the model's real size, and the
compiler says what it takes on each of them: for each number of devices with the state cut over
them (`mesh.fsdp`), and on one device with each way of saving memory. Writes
`results/fsdp_memory.json`.
"""

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import benchmark

COMMAND = "python scripts/bench_memory_fsdp.py"
DEVICES = (1, 2, 4, 8)
BATCH = 64
SAVING: dict[str, dict[str, Any]] = {
    "as it is": {},
    "remat=dots": {"train.remat": "dots"},
    "remat=blocks": {"train.remat": "blocks"},
    "scan_layers": {"model.scan_layers": True},
    "scan_layers, remat=blocks": {"model.scan_layers": True, "train.remat": "blocks"},
    "accumulate=4": {"train.accumulate": 4},
    "state_dtype=bfloat16": {"optimizer.state_dtype": "bfloat16"},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_b16")
    parser.add_argument("--out", default=str(benchmark.RESULTS / "fsdp_memory.json"))
    parser.add_argument("--of", default="", help=argparse.SUPPRESS)  # a fresh process's part
    arguments = parser.parse_args()
    if arguments.of:
        print(json.dumps(measure(**json.loads(arguments.of))))
        return 0

    def fresh(devices: int, changes: dict[str, Any]) -> dict[str, float]:
        # The number of devices, and what is compiled already, belong to a process.
        of = json.dumps({"model": arguments.model, "devices": devices, "changes": changes})
        command = [sys.executable, __file__, f"--of={of}"]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        print(f"{devices} devices, {changes or 'as it is'}: {found}", flush=True)
        return found

    cut = {devices: fresh(devices, {}) for devices in DEVICES}
    saving = {name: cut[1] if not c else fresh(1, c) for name, c in SAVING.items()}
    ratios = [cut[n]["total_mb"] * n / cut[1]["total_mb"] for n in DEVICES]
    states = [cut[n]["state_mb"] * n / cut[1]["state_mb"] for n in DEVICES]
    result = {
        "claim": f"memory of {arguments.model} on each of 1, 2, 4 and 8 devices (fsdp) times "
        "their number, of that on one",
        "metric": f"all of a step of batch {BATCH} by the compiler; 1 is ideal",
        "values": ratios,
        "target": 1.15,
        "reached": max(ratios) <= 1.15,
        "n": len(DEVICES),
        "state_ratios": states,
        "by_devices": cut,
        "on_one_device": saving,
    }
    benchmark.write(result, arguments.out, COMMAND)
    return 0


def measure(model: str, devices: int, changes: dict[str, Any]) -> dict[str, float]:
    """Megabytes of a step on each device, and CPU seconds to trace and compile it."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
    from ml_collections import ConfigDict

    from imgrec.config import DataConfig, Experiment, MeshConfig, ModelConfig, OptimizerConfig
    from imgrec.training import memory
    from imgrec.training.plan import plan

    changes = dict(changes)
    looped = changes.pop("model.scan_layers", False)
    experiment = Experiment(
        # Images of any kind: their content never reaches the compiler.
        data=DataConfig(dataset="digits", batch_size=BATCH, image_size=224, channels=3),
        model=ModelConfig(model, ConfigDict({"scan_layers": looped})),
        optimizer=OptimizerConfig(name="adamw", learning_rate=1e-3, weight_decay=0.1),
        mesh=MeshConfig(data=1, fsdp=devices),
    )
    experiment.data.resident = "off"
    for name, value in changes.items():
        section, _, field = name.partition(".")
        setattr(getattr(experiment, section), field, value)
    planned = plan(experiment)
    begin = time.process_time()  # of all threads, and of no neighbours
    need = memory.of_step(planned)
    return {
        "state_mb": need.state / 1e6,
        "work_mb": need.work / 1e6,
        "total_mb": need.total / 1e6,
        "compile_cpu_seconds": time.process_time() - begin,
    }


if __name__ == "__main__":
    sys.exit(main())
