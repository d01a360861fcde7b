"""What the loop asks of evaluation: validation as it goes, and test once, at the end."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from imgrec.config import Experiment
from imgrec.data import Info, Split, pipeline
from imgrec.evaluation import exact, metrics, predictions
from imgrec.evaluation.predictions import Predictions
from imgrec.native import convolution as native
from imgrec.training import distributed
from imgrec.training import mesh as meshes
from imgrec.training.checkpoints import Checkpoints
from imgrec.training.pictures import confusion_picture
from imgrec.training.plan import Plan
from imgrec.training.state import TrainState
from imgrec.training.writers import Writer


class Evaluator:
    """Evaluates variables on a split, every example once, with one compiled function."""

    def __init__(self, plan: Plan):
        """Compiles nothing before the first evaluation."""
        self._plan = plan
        self._predict = jax.jit(plan.task.predict)

    def validate(self, state: TrainState) -> tuple[dict[str, float], float]:
        """Scalars of the validation split, and what the checkpoint to be tested is chosen by.

        That is the accuracy, or the step where `eval.select` is "last". With EMA on, the averaged
        variables are evaluated beside the trained ones, and it is their accuracy that decides.
        """
        split = self._plan.dataset.validation
        assert split is not None
        scalars = self._scalars(split, state.variables, "validation")
        accuracy = scalars["validation/accuracy"]
        if state.average is not None:
            averaged = self._scalars(split, state.averaged_variables, "validation_ema")
            scalars, accuracy = scalars | averaged, averaged["validation_ema/accuracy"]
        by_step = self._plan.experiment.eval.select == "last"
        return scalars, float(state.step) if by_step else accuracy

    def choose(
        self, state: TrainState, step: int, checkpoints: Checkpoints
    ) -> tuple[int, dict[str, Any]]:
        """The step and variables that the test split is to see: best by validation, or last."""
        best = checkpoints.best()
        if self._plan.experiment.eval.select == "last" or best is None or best[0] == step:
            return step, state.averaged_variables
        shardings = self._plan.shardings.averaged_variables
        return best[0], checkpoints.restore_best(self._plan.state.averaged_variables, shardings)

    def test(
        self, variables: dict[str, Any], step: int, folder: Path, writer: Writer
    ) -> dict[str, Any]:
        """Metrics on the test split, which end up in `metrics.json` and `predictions.npz`.

        A run that was already evaluated at this step is not evaluated again.
        """
        report = folder / "evaluation" / "test"
        saved = _saved(report / "metrics.json")
        done = saved.get("step") == step and saved.get("total_steps") == self._plan.total_steps
        # The others might look after the first has begun to write.
        if distributed.agreed(done):
            return saved
        run = self._run(self._plan.dataset.test, variables)
        return write_test_report(
            self._plan.experiment,
            self._plan.dataset.info,
            run,
            step=step,
            total_steps=self._plan.total_steps,
            folder=folder,
            writer=writer,
        )

    def _scalars(self, split: Split, variables: dict[str, Any], name: str) -> dict[str, float]:
        run = self._run(split, variables)
        found = metrics.classification(run.logits, run.label, self._plan.dataset.info.class_names)
        return {f"{name}/{key}": found[key] for key in ("accuracy", "loss")}

    def _run(self, split: Split, variables: dict[str, Any]) -> Predictions:
        share, shares = meshes.share_of_batch(self._plan.mesh)
        batches = pipeline.eval_batches(
            split,
            batch_size=self._plan.eval_batch_size,
            process_index=share,
            process_count=shares,
        )
        with native.used(self._plan.native_convolutions):
            return exact.predict_split(
                self._predict,
                variables,
                batches,
                n=len(split),
                to_device=lambda batch: meshes.put_batch(self._plan.mesh, batch),
            )


def _saved(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def write_test_report(
    experiment: Experiment,
    info: Info,
    run: Predictions,
    *,
    step: int,
    total_steps: int,
    folder: Path,
    writer: Writer,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes what a run said of the test split into its folder and logs; returns the metrics.

    Of several processes, the first writes; all return the same.

    Args:
      experiment: of the run.
      info: of its data set.
      run: predictions for the whole split.
      step: whose parameters made them.
      total_steps: that the run makes.
      folder: of the run.
      writer: of its logs.
      extra: JSON values to be kept beside the metrics, or in place of the run's own.
    """
    beside = {
        "dataset": info.name,
        "source": info.source,
        "split": "test",
        "step": step,
        "total_steps": total_steps,
        "seed": experiment.seed,
        **(extra or {}),
    }
    if jax.process_index():
        return predictions.report(run, info.class_names, beside)
    report = folder / "evaluation" / "test"
    found = predictions.write_report(report, run, info.class_names, beside)
    numbers = {f"test/{name}": found[name] for name in ("accuracy", "top_5_accuracy", "loss")}
    writer.write_scalars(found["total_steps"], numbers)
    if experiment.log.tensorboard:
        picture = confusion_picture(found, info.class_names)
        writer.write_images(found["total_steps"], {"test/confusion_matrix": picture[None]})
    return found
