"""The training loop, top to bottom: restore, step, log, evaluate, save, and test at the end."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from imgrec import config as configs
from imgrec.data import pipeline
from imgrec.training import run_folder, writers
from imgrec.training.checkpoints import Checkpoints
from imgrec.training.clock import Clock
from imgrec.training.evaluator import Evaluator
from imgrec.training.feed import DeviceFeed
from imgrec.training.pictures import augmented_grid, confusion_picture
from imgrec.training.plan import Plan
from imgrec.training.progress import TrainProgress
from imgrec.training.signals import StopRequest
from imgrec.training.window import DivergenceError, MetricWindow


@dataclass(frozen=True)
class Outcome:
    """How a run ended: with test metrics, or with the signal that stopped it."""

    step: int
    stopped_by: str | None
    evaluated_step: int | None  # whose parameters the test split saw
    test: dict[str, Any] | None
    seconds: dict[str, float]


def train(plan: Plan, folder: Path, console: Console) -> Outcome:
    """Runs the plan in its folder, from the newest checkpoint there if there is one.

    Args:
      plan: of the experiment.
      folder: opened by `run_folder.open_folder`.
      console: for people.

    Returns:
      The outcome; its test metrics are also in `evaluation/test/`.

    Raises:
      DivergenceError: the loss was not finite.
    """
    c, clock = plan.experiment, Clock()
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        checkpoints = stack.enter_context(
            contextlib.closing(Checkpoints(folder, keep=c.checkpoint.keep))
        )
        feed = _feed(plan)
        resume_step = checkpoints.latest_step or 0
        if resume_step:
            state, saved_window = checkpoints.restore(plan.state, plan.shardings, feed)
            console.print(f"Resumed {folder} at step {resume_step} of {plan.total_steps}.")
        else:
            state, saved_window = plan.initial_state(), []
        writer, missing = writers.create(
            folder, resume_step=resume_step, tensorboard=c.log.tensorboard
        )
        stack.callback(writer.close)
        if missing:
            console.print(missing)
        evaluator = Evaluator(plan)
        window = MetricWindow(saved_window)
        step, logged_at = resume_step, clock["step"] + clock["data wait"]

        if step < plan.total_steps:
            with clock("compile"):
                batch = next(_feed(plan))
                jitted = jax.jit(
                    plan.train_step(),
                    donate_argnums=0,
                    out_shardings=(plan.shardings, None),
                )
                # Compiled ahead: a second trace is impossible, it would be an error.
                train_step = jitted.lower(state, batch).compile()
            if step == 0:
                writer.write_hparams(configs.flatten(configs.to_dict(c)))
                if c.log.tensorboard:
                    writer.write_images(0, {"augmented": augmented_grid(plan, batch)[None]})

        progress = stack.enter_context(
            TrainProgress(console, total_steps=plan.total_steps, done=step)
        )
        in_flight = None
        while step < plan.total_steps and not stop.received:
            with jax.transfer_guard("disallow"):
                with clock("data wait"):
                    batch = next(feed)
                with clock("step"):
                    state, metrics = train_step(state, batch)
                    # One step ahead of the device is enough, and keeps the clock honest.
                    jax.block_until_ready(in_flight)
                    in_flight = metrics["loss"]
            window.add(metrics)
            step += 1
            last = step == plan.total_steps
            progress.advance(step)

            if last or step % plan.log_every == 0:
                with clock("step"):
                    steps_logged, means = len(window), _close(window, step, checkpoints)
                now = clock["step"] + clock["data wait"]
                speed = c.data.batch_size * steps_logged / (now - logged_at)
                logged_at = now
                progress.logged(step, means, speed)
                scalars = {f"train/{name}": value for name, value in means.items()}
                writer.write_scalars(step, {**scalars, "time/images_per_second": speed})

            if plan.dataset.validation and (last or step % plan.eval_every == 0):
                with clock("evaluation"):
                    scalars, value = evaluator.validate(state)
                progress.evaluated(step, scalars)
                writer.write_scalars(step, scalars)
                with clock("checkpoint"):
                    checkpoints.save_best(step, value, state.averaged_variables)

            if last or step % plan.checkpoint_every == 0 or stop.received:
                with clock("checkpoint"):
                    checkpoints.save(step, state, feed, _fetch(window, step, checkpoints))

        with clock("checkpoint"):
            checkpoints.wait()
        if stop.received and step < plan.total_steps:
            return Outcome(step, stop.received, None, None, clock.seconds())

        with clock("evaluation"):
            chosen_step, variables = evaluator.choose(state, step, checkpoints)
            report = folder / "evaluation" / "test" / "metrics.json"
            if resume_step == plan.total_steps and report.exists():
                metrics = json.loads(report.read_text())
            else:
                metrics = evaluator.test(variables, folder, chosen_step)
                numbers = {k: metrics[k] for k in ("accuracy", "top_5_accuracy", "loss")}
                writer.write_scalars(step, {f"test/{k}": v for k, v in numbers.items()})
                if c.log.tensorboard:
                    picture = confusion_picture(metrics, plan.dataset.info.class_names)
                    writer.write_images(step, {"test/confusion_matrix": picture[None]})
        seconds = clock.seconds()
        run_folder.write_text(folder / "seconds.json", json.dumps(seconds, indent=2) + "\n")
        return Outcome(step, None, chosen_step, metrics, seconds)


def _feed(plan: Plan) -> DeviceFeed:
    c = plan.experiment
    batches = pipeline.train_batches(
        plan.dataset.train,
        batch_size=c.data.batch_size,
        seed=c.seed,
        threads=c.data.threads,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    return DeviceFeed(batches, plan.mesh, ahead=c.data.prefetch)


def _close(window: MetricWindow, step: int, checkpoints: Checkpoints) -> dict[str, float]:
    with _naming_the_way_back(checkpoints):
        return window.close(step)


def _fetch(window: MetricWindow, step: int, checkpoints: Checkpoints) -> list[dict[str, float]]:
    with _naming_the_way_back(checkpoints):
        return window.fetch(step)


@contextlib.contextmanager
def _naming_the_way_back(checkpoints: Checkpoints) -> Any:
    """Adds the last good checkpoint to the message about a loss that is not finite."""
    try:
        yield
    except DivergenceError as error:
        checkpoints.wait()
        good = checkpoints.latest_step
        where = f"{checkpoints.folder / 'latest' / str(good)}" if good else "none was saved yet"
        error.add_note(
            f"Last good checkpoint: {where}. Lower optimizer.learning_rate, lengthen "
            "schedule.warmup or set optimizer.clip_norm, and start with another --workdir."
        )
        raise
