"""python -m imgrec.benchmarking.step_worker: the training step of this project.

Started by `workers.Worker`. It is the program that a run compiles, with the XLA flags that a run
sets, normalisation of raw images and the logged metrics included.
"""

import os
from collections.abc import Mapping
from typing import Any

import jax

from imgrec import config, models
from imgrec.benchmarking import synthetic, workers
from imgrec.training import compilation_cache, xla
from imgrec.training.plan import plan


def prepare(task: Mapping[str, Any]) -> tuple[workers.Run, Mapping[str, Any]]:
    """The contestant; the task is an experiment as `config.to_dict` writes it."""
    experiment = config.from_dict(task)
    said = xla.configure(experiment)
    compilation_cache.configure()
    batch_size = experiment.data.batch_size
    planned = plan(experiment, synthetic.dataset(experiment.data, batch_size))
    feed = planned.feed()
    batch = next(feed)
    feed.close()
    state = planned.initial_state()
    step, cost = planned.compile_step(state, batch)

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state, metrics = step(state, batch)
        jax.block_until_ready(metrics)

    return run, {
        "parameters": models.count_parameters({"params": planned.state.params}),
        "flops": cost["flops"],
        "devices": planned.mesh.devices.size,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "said": said,
    }


if __name__ == "__main__":
    workers.serve(prepare)
