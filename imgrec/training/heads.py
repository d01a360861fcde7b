"""Fits a head to the features of a network that stays as it is, and tests it: a run without steps.

Features of training, validation and test images are computed once, the head's candidates are
fitted, validation chooses one, and the test split sees that one. The run folder is the same as a
training run's; a head that is linear on the features becomes the network's own, in
`checkpoints/best`, so that every other verb, and fine-tuning (`init.weights`), can go on from it.
"""

import contextlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from rich.console import Console

from imgrec import config
from imgrec.data import Split, pipeline
from imgrec.evaluation import exact, metrics
from imgrec.evaluation.predictions import Predictions
from imgrec.training import distributed, evaluator, run_folder, writers
from imgrec.training import mesh as meshes
from imgrec.training.checkpoints import Checkpoints
from imgrec.training.clock import Clock
from imgrec.training.features import Extractor, Features
from imgrec.training.loop import Outcome
from imgrec.training.plan import Plan
from imgrec.transfer import heads
from imgrec.transfer.heads import Candidates
from imgrec.transfer.probe import Linear

# How far, of the largest logit, a head placed in the network may be from the head as fitted:
# bfloat16 keeps eight bits.
_SAME = 0.02


@distributed.failing_together()
def fit(plan: Plan, folder: Path, console: Console) -> Outcome:
    """Runs the plan of a head that is not trained by steps, in its folder.

    Args:
      plan: of an experiment whose `head.name` is in `imgrec.transfer.heads`.
      folder: opened by `run_folder.open_folder`.
      console: for people.

    Returns:
      The outcome, at step 0; its test metrics are also in `evaluation/test/`.
    """
    c, dataset, clock = plan.experiment, plan.dataset, Clock()
    variables = plan.initial_state().variables
    if not c.init.weights:
        console.print("The features are those of a network that has learnt nothing: a control.")
    cache = Path(c.head.cache).expanduser() if c.head.cache else folder / "features"
    extract = Extractor(plan, variables, cache)

    def features(split: Split) -> Features:
        with clock("features"):
            found = extract(split)
        how = "read back" if found.from_file else "computed"
        console.print(f"features of {split.name}: {found.values.shape}, {how}")
        return found

    train = features(dataset.train)
    validation = features(dataset.validation) if dataset.validation else None
    with clock("fit"):
        candidates = heads.fit(
            c.head,
            train.values,
            train.labels,
            dataset.info.num_classes,
            validated=validation is not None,
        )
        tried = _validated(candidates, validation, dataset.info.class_names)
        chosen = distributed.agreed(max(range(len(tried)), key=lambda i: _rank(tried[i])))
    for i, found in enumerate(tried):
        console.print(f"{'->' if i == chosen else '  '} {c.head.name} {_said(found)}")
    if len(tried) > 1 and c.head.name == "probe" and chosen in (0, len(tried) - 1):
        console.print("The best is at the edge of its values; more may be better.")

    writer, missing = writers.create(folder, resume_step=0, tensorboard=c.log.tensorboard)
    if missing:
        console.print(missing)
    try:
        writer.write_hparams(config.flatten(config.to_dict(c)))
        if validation is not None:
            writer.write_scalars(0, {f"validation/{n}": tried[chosen][n] for n in _JUDGED})
        test = features(dataset.test)
        (logits,) = candidates.logits(test.values, [chosen])
        predictions = Predictions(np.arange(len(logits)), test.labels, logits)
        said = {
            "head": {"name": c.head.name, "chosen": tried[chosen], "tried": tried},
        }
        report = evaluator.write_test_report(
            c,
            dataset.info,
            predictions,
            step=0,
            total_steps=0,
            folder=folder,
            writer=writer,
            extra=said,
        )
    finally:
        writer.close()
    linear = candidates.linear[chosen]
    if linear is not None:
        with clock("checkpoint"):
            placed = _in_place(plan, variables, linear, test)
            console.print(_keep(folder, placed, tried[chosen], keep=c.checkpoint.keep))
    seconds = run_folder.add_seconds(folder, clock.seconds())
    return Outcome(0, None, 0, report, seconds)


_JUDGED = ("accuracy", "loss")


def _validated(
    candidates: Candidates, validation: Features | None, class_names: tuple[str, ...]
) -> list[dict[str, Any]]:
    """The settings of each candidate, with its accuracy and loss on validation."""
    settings = [dict(each) for each in candidates.settings]
    if validation is None:
        return settings
    everyone = candidates.logits(validation.values, range(len(settings)))
    for each, logits in zip(settings, everyone, strict=True):
        found = metrics.classification(logits, validation.labels, class_names)
        each |= {name: found[name] for name in _JUDGED}
    return settings


def _rank(tried: dict[str, Any]) -> tuple[float, float]:
    """Accuracy decides, then the loss; of equals the first stays."""
    return tried.get("accuracy", 0.0), -tried.get("loss", 0.0)


def _said(tried: dict[str, Any]) -> str:
    return ", ".join(
        f"{'validation ' if name in _JUDGED else ''}{name} {value:.4g}"
        for name, value in tried.items()
    )


def _in_place(
    plan: Plan, variables: dict[str, Any], linear: Linear, test: Features
) -> dict[str, Any] | None:
    """The variables with the head in its place; None where the network's head is another thing."""
    head = variables["params"].get("head", {})
    # Every process has fitted one; were they to differ in a last bit, one of them holds.
    ours = multihost_utils.broadcast_one_to_all({"kernel": linear.kernel, "bias": linear.bias})
    if {n: x.shape for n, x in head.items() if hasattr(x, "shape")} != {
        n: x.shape for n, x in ours.items()
    }:
        return None
    shardings = plan.shardings.params["head"]
    placed = jax.device_put(ours, {name: shardings[name] for name in ours})
    whole = {**variables, "params": {**variables["params"], "head": placed}}
    # A head may also scale its logits, or be fed by more than the features: seen, not supposed.
    batch_size = plan.eval_batch_size
    share, shares = meshes.share_of_batch(plan.mesh)
    batches = pipeline.eval_batches(
        plan.dataset.test, batch_size=batch_size, process_index=share, process_count=shares
    )
    with contextlib.closing(batches):
        images = meshes.put_batch(plan.mesh, next(batches))["image"]
    found = exact.gather({"logits": jax.jit(plan.task.predict)(whole, images)})["logits"]
    n = min(batch_size, len(test.values))
    expected = linear(test.values[:n])
    close = np.abs(found[:n] - expected).max() <= _SAME * np.abs(expected).max()
    return whole if distributed.agreed(bool(close)) else None


def _keep(folder: Path, whole: dict[str, Any] | None, tried: dict[str, Any], *, keep: int) -> str:
    if whole is None:
        return "The network's own head is no linear layer on its features; no checkpoint is kept."
    with Checkpoints(folder, keep=keep) as checkpoints:
        checkpoints.save_best(0, tried.get("accuracy", 0.0), whole)
        checkpoints.wait()
    return (
        f"The head is in place in {folder / 'checkpoints' / 'best'}; init.weights={folder} has it."
    )
