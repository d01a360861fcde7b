"""Fits a classical classifier and tests it: the run folder of a training run, without its steps.

Features of the splits are computed and kept, each candidate is fitted to those of the training
split, validation chooses one and sets the temperature of its scores, and the test split sees
that one. What is fitted is saved before it is tested; a run that was cut goes on from there.
"""

import functools
import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console

from imgrec import config
from imgrec.classical import classifiers, packages, saving
from imgrec.classical import features as by_hand
from imgrec.classical.classifiers import KINDS, Rows
from imgrec.classical.features import Recipe, Shown
from imgrec.classical.planning import ClassicalPlan
from imgrec.classical.saving import Saved
from imgrec.data import Split
from imgrec.errors import UserError
from imgrec.evaluation import metrics
from imgrec.evaluation.confidence.calibration import fit_temperature
from imgrec.evaluation.predictions import Predictions
from imgrec.training import evaluator, run_folder, writers
from imgrec.training import features as of_networks
from imgrec.training.checkpoints import Checkpoints
from imgrec.training.clock import Clock
from imgrec.training.features import Extractor
from imgrec.training.loop import Outcome

T = TypeVar("T")
_JUDGED = ("accuracy", "loss")


def fit(plan: ClassicalPlan, folder: Path, console: Console, shown: Shown) -> Outcome:
    """Runs a plan in its folder.

    Args:
      plan: of the experiment.
      folder: opened by `run_folder.open_folder`.
      console: for people.
      shown: is told how far long stages are.

    Returns:
      The outcome, at step 0; its test metrics are also in `evaluation/test/`.

    Raises:
      KeyboardInterrupt: as soon as it is asked for, also inside a long fit.
    """
    c, dataset, clock = plan.experiment, plan.dataset, Clock()
    fingerprint = config.fingerprint(c)
    before = _saved(folder, fingerprint)
    tested = folder / "evaluation" / "test" / "metrics.json"
    if before is not None and tested.exists():
        console.print("This run is finished; nothing is computed again.")
        return Outcome(0, None, 0, json.loads(tested.read_text()), clock.seconds())
    rows = _Rows(plan, folder, before.recipe if before else None, console, shown, clock)
    writer, missing = writers.create(folder, resume_step=0, tensorboard=c.log.tensorboard)
    if missing:
        console.print(missing)
    try:
        writer.write_hparams(config.flatten(config.to_dict(c)))
        if before is not None:
            console.print("The classifier was fitted already.")
        saved = before or _fit(plan, rows, fingerprint, console, shown, clock)
        if before is None:
            with clock("save"):
                rows.keep_network(saved)
                size = saving.save(saved, folder)
            console.print(f"classifier saved: {size / 1e6:,.1f} MB")
            spent = clock["features"] + clock["fit"]
            writer.write_scalars(0, {"time/images_per_second": len(dataset.train) / spent})
        chosen = saved.tried[-1] if len(saved.tried) == 1 else _best(saved.tried)
        if dataset.validation is not None:
            writer.write_scalars(0, {f"validation/{n}": chosen[n] for n in _JUDGED})
        asked = rows(dataset.test)
        with clock("test"):
            logits = _logits(saved, asked, functools.partial(shown, "classified"))
        predictions = Predictions(np.arange(len(logits)), dataset.test.labels(), logits)
        report = evaluator.write_test_report(
            c,
            dataset.info,
            predictions,
            step=0,
            total_steps=0,
            folder=folder,
            writer=writer,
            extra={
                "classifier": {
                    "name": saved.name,
                    "features": c.features.name,
                    "dimensions": plan.dimensions,
                    "temperature": saved.temperature,
                    "chosen": dict(chosen),
                    "tried": [dict(each) for each in saved.tried],
                    "versions": packages.versions(),
                }
            },
        )
    finally:
        writer.close()
    return Outcome(0, None, 0, report, run_folder.add_seconds(folder, clock.seconds()))


def _logits(saved: Saved, rows: Rows, shown: Callable[[int, int], None]) -> Any:
    found = _interruptible(lambda: classifiers.scores(saved.estimator, rows, shown))
    return (found / saved.temperature).astype(np.float32)


def _fit(
    plan: ClassicalPlan,
    rows: "_Rows",
    fingerprint: str,
    console: Console,
    shown: Shown,
    clock: Clock,
) -> Saved:
    """The candidate that does best on validation, and how all of them did."""
    c, dataset = plan.experiment, plan.dataset
    train, labels = rows(dataset.train), dataset.train.labels()
    judges = None if dataset.validation is None else rows(dataset.validation)
    tried: list[dict[str, Any]] = []
    kept: tuple[Any, float] | None = None
    for options in plan.candidates:
        console.print(f"fitting {c.classifier.name} {options} to {train.shape}", markup=False)
        took = clock["fit"]
        with clock("fit"):
            fitting = functools.partial(classifiers.fit, c.classifier.name, options, train, labels)
            estimator, warned = _interruptible(functools.partial(fitting, seed=c.seed))
        found: dict[str, Any] = {"options": options, "fit_seconds": clock["fit"] - took}
        temperature = 1.0
        if judges is not None:
            assert dataset.validation is not None
            with clock("validation"):
                told = functools.partial(shown, "validated")
                scored = _interruptible(
                    functools.partial(classifiers.scores, estimator, judges, told)
                )
            truth = dataset.validation.labels()
            if KINDS[c.classifier.name].margins:
                temperature = fit_temperature(scored, truth)
            logits = (scored / temperature).astype(np.float32)
            numbers = metrics.classification(logits, truth, dataset.info.class_names)
            found |= {name: numbers[name] for name in _JUDGED}
        for line in warned:
            console.print(f"  {line}", markup=False)
        console.print(f"  {_said(found)}", markup=False)
        tried.append(found)
        if found is _best(tried):
            kept = estimator, temperature
    assert kept is not None
    chosen = _best(tried)
    if len(tried) > 1:
        console.print(f"-> {chosen['options']}", markup=False)
    if judges is None and KINDS[c.classifier.name].margins:
        console.print("Without validation images margins are not calibrated to probabilities.")
    return Saved(
        c.classifier.name,
        chosen["options"],
        kept[0],
        rows.recipe,
        kept[1],
        tuple(tried),
        fingerprint,
    )


def _best(tried: Any) -> dict[str, Any]:
    """Accuracy decides, then the loss; of equals the first stays."""
    best: dict[str, Any] = max(tried, key=lambda t: (t.get("accuracy", 0.0), -t.get("loss", 0.0)))
    return best


def _said(found: dict[str, Any]) -> str:
    parts = [f"fitted in {found['fit_seconds']:.1f} s"]
    return ", ".join(parts + [f"validation {n} {found[n]:.4f}" for n in _JUDGED if n in found])


class _Rows:
    """Features of splits: computed by hand or by the network, or read back."""

    def __init__(
        self,
        plan: ClassicalPlan,
        folder: Path,
        recipe: Recipe | None,
        console: Console,
        shown: Shown,
        clock: Clock,
    ):
        """Learns what there is to learn, unless `recipe` has learnt already."""
        c = plan.experiment
        self._plan, self._folder, self._shown, self._clock = plan, folder, shown, clock
        self._console = console
        self._cache = (
            Path(c.features.cache).expanduser() if c.features.cache else folder / "features"
        )
        self.recipe = recipe
        if plan.network is not None:
            self._variables = plan.network.initial_state().variables
            self._extract = Extractor(plan.network, self._variables, self._cache)
        elif recipe is None:
            assert plan.recipe is not None
            with clock("features"):
                self.recipe = by_hand.learnt(plan.recipe, plan.dataset.train, c.seed)

    def __call__(self, split: Split) -> Rows:
        """Of a split."""
        with self._clock("features"):
            if self._plan.network is not None:
                found = self._extract(split)
                rows, how = found.values, "read back" if found.from_file else "computed"
            else:
                rows, how = self._by_hand(split)
        self._console.print(f"features of {split.name}: {rows.shape}, {how}", markup=False)
        if not np.isfinite(rows).all():
            raise UserError(
                f"Features of {split.name} are not all finite numbers; they cannot be classified."
            )
        return rows

    def keep_network(self, saved: Saved) -> None:
        """Keeps the network beside the classifier, so that the run needs no other folder."""
        if self._plan.network is None:
            return
        accuracy = float(_best(saved.tried).get("accuracy", 0.0))
        with Checkpoints(self._folder, keep=1) as checkpoints:
            checkpoints.save_best(0, accuracy, self._variables)
            checkpoints.wait()

    def _by_hand(self, split: Split) -> tuple[Rows, str]:
        c, recipe = self._plan.experiment, self.recipe
        assert recipe is not None
        if [name for name, _ in recipe.parts] == ["pixels"] and not recipe.deskew:
            # A file would take longer to read than this.
            return by_hand.describe_split(recipe, split, self._shown), "computed"
        key = of_networks.key(_digest(recipe), split, c.data, self._plan.dataset.info)
        path = self._cache / f"{split.name}-{key}.npz"
        before = of_networks.read(path, len(split))
        if before is not None:
            return before.values, "read back"
        rows = by_hand.describe_split(recipe, split, self._shown, processes=c.data.workers)
        of_networks.write(path, rows, split.labels())
        return rows, "computed"


def _digest(recipe: Recipe) -> str:
    """Of all that turns an image into features by hand, and of who computes them."""
    digest = hashlib.sha256()
    told = [[list(part) for part in recipe.parts], recipe.deskew, packages.versions()]
    digest.update(json.dumps(told, sort_keys=True).encode())
    for part, arrays in sorted(recipe.vocabularies.items()):
        for name, array in sorted(arrays.items()):
            digest.update(f"{part}/{name}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _saved(folder: Path, fingerprint: str) -> Saved | None:
    """What an earlier start of the same run has fitted."""
    if not (folder / saving.FOLDER / "classifier.json").exists():
        return None
    saved = saving.load(folder)
    return saved if saved.fingerprint == fingerprint else None


def _interruptible(work: Callable[[], T]) -> T:
    """The result of work, in a thread of its own, so that Ctrl-C does not wait for its end.

    Compiled loops of a fit would not look up before they are done.
    """
    found: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
    if failed:
        raise failed[0]
    return found[0]
