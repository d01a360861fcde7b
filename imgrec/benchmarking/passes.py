"""The parts of a run by themselves: delivered batches, and a pass of evaluation."""

import contextlib
import dataclasses
import itertools
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from imgrec.benchmarking import turns
from imgrec.config import Experiment
from imgrec.data import Dataset
from imgrec.errors import UserError
from imgrec.training import mesh as meshes
from imgrec.training.evaluator import Evaluator
from imgrec.training.plan import plan


def measure_input(
    experiment: Experiment,
    *,
    rounds: int,
    batches: int,
    dataset: Dataset | None = None,
    told: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Images/s of augmented batches as the train step would see them, by each of our two paths.

    Args:
      experiment: of the data and the augmentation.
      rounds: that count.
      batches: of each path in a round.
      dataset: in place of the experiment's own.
      told: is given a line a round.
    """
    size = experiment.data.batch_size
    contestants = {"host": deliver(prepared(experiment, "off", dataset), batches, size)}
    with contextlib.suppress(UserError):  # images that are drawn anew cannot be resident
        contestants["resident"] = deliver(prepared(experiment, "on", dataset), batches, size)
    rates = turns.take_turns(contestants, rounds, told)
    best = max(rates, key=lambda name: statistics.median(rates[name]))
    return {
        "claim": f"{experiment.data.dataset}, batch {size}: augmented images/s delivered ({best})",
        "metric": "images/s",
        "values": rates[best],
        "median": statistics.median(rates[best]),
        "target": None,
        "reached": True,
        "n": rounds,
        "images_per_second": rates,
    }


def prepared(
    experiment: Experiment, resident: str, dataset: Dataset | None = None
) -> Iterator[jax.Array]:
    """Batches after augmentation, one ahead as in the training loop."""
    data = dataclasses.replace(experiment.data, resident=resident)
    planned = plan(dataclasses.replace(experiment, data=data), dataset)
    prepare = jax.jit(lambda fed, key: planned.task.prepare(planned.take(fed), key)["image"])

    def stream() -> Iterator[jax.Array]:
        key, ahead = jax.random.key(0), None
        for fed in planned.feed():
            batch = prepare(fed, key)
            jax.block_until_ready(ahead)
            ahead = batch
            yield batch

    return stream()


def deliver(stream: Iterator[Any], batches: int, batch_size: int) -> Callable[[], int]:
    """A contestant: takes so many batches, and waits until the last one is there."""

    def run() -> int:
        for batch in itertools.islice(stream, batches):
            last = batch
        jax.block_until_ready(last)
        return batches * batch_size

    return run


def measure_evaluation(
    experiment: Experiment,
    *,
    rounds: int,
    dataset: Dataset | None = None,
    told: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Images/s of a pass over the validation split, over those of its forward passes alone.

    Args:
      experiment: with a validation split.
      rounds: passes of either kind.
      dataset: in place of the experiment's own.
      told: is given a line a round.

    Raises:
      UserError: there is no validation split.
    """
    planned = plan(experiment, dataset)
    split = planned.dataset.validation
    if split is None:
        raise UserError("--what=evaluation needs a validation split: --config.data.validation=10%.")
    state, evaluator = planned.initial_state(), Evaluator(planned)
    size = planned.eval_batch_size
    count = -(-len(split) // size)
    images = split.gather(np.arange(size) % len(split))["image"]
    batch = meshes.put_batch(planned.mesh, {"image": images})["image"]
    predict = jax.jit(planned.task.predict)
    variables = state.averaged_variables

    def whole() -> int:
        evaluator.validate(state)
        return len(split)

    def bare() -> int:
        for _ in range(count):
            logits = predict(variables, batch)
        jax.block_until_ready(logits)
        return count * size

    rates = turns.take_turns({"evaluation": whole, "forward": bare}, rounds, told)
    found = turns.compared(rates["evaluation"], rates["forward"])
    return {
        "claim": f"{experiment.model.name}: images/s of evaluating {len(split):,} images over "
        "images/s of its forward passes alone",
        "metric": "ratio",
        **found,
        "target": None,
        "reached": True,
        "n": rounds,
        "images_per_second": rates,
    }
