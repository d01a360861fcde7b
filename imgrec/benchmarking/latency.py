"""How long one image takes, from the host's memory to logits in it; and the slow tail of that."""

import dataclasses
import time
from typing import Any

import jax
import numpy as np

from imgrec.config import Experiment
from imgrec.data import Dataset
from imgrec.training.plan import plan

PERCENTILES = (50, 95, 99)


def measure(
    experiment: Experiment, *, calls: int, batch_size: int = 1, dataset: Dataset | None = None
) -> dict[str, Any]:
    """Milliseconds a call of the compiled network, one call after the other.

    Raw uint8 images go in and logits come out, both in the host's memory: transfers and
    normalisation are included, reading and decoding files are not.

    Args:
      experiment: of the network and its images; parameters do not matter, and are initial ones.
      calls: that count; a tenth as many go before.
      batch_size: images a call.
      dataset: in place of the experiment's own.
    """
    alone = dataclasses.replace(experiment.mesh, data=1, fsdp=1, tensor=1)
    planned = plan(dataclasses.replace(experiment, mesh=alone), dataset)
    variables = planned.initial_state().averaged_variables
    shape = (batch_size, *planned.task.image_shape)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    predict = jax.jit(planned.task.predict).lower(variables, images).compile()

    def milliseconds() -> float:
        begin = time.perf_counter()
        np.asarray(predict(variables, images))
        return 1e3 * (time.perf_counter() - begin)

    for _ in range(max(1, calls // 10)):
        milliseconds()
    times = [milliseconds() for _ in range(calls)]
    found = {f"p{p}": float(np.percentile(times, p)) for p in PERCENTILES}
    return {
        "claim": f"{experiment.model.name}, {experiment.train.compute_dtype}, batch {batch_size}: "
        "latency of inference, the median",
        "metric": "ms",
        "values": [found["p50"]],
        "median": found["p50"],
        "milliseconds": {**found, "least": min(times), "most": max(times)},
        "target": None,
        "reached": True,
        "n": calls,
        "batch_size": batch_size,
    }
