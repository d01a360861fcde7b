"""The training loop, top to bottom: restore, step, log, evaluate, save, and test at the end."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from imgrec import config, models
from imgrec.training import distributed, exhaustion, profiling, run_folder, writers
from imgrec.training.checkpoints import Checkpoints
from imgrec.training.clock import Clock
from imgrec.training.evaluator import Evaluator
from imgrec.training.pictures import augmented_grid
from imgrec.training.plan import Plan
from imgrec.training.progress import TrainProgress
from imgrec.training.window import MetricWindow


@dataclass(frozen=True)
class Outcome:
    """How a run ended: with test metrics, or with the signal that stopped it."""

    step: int
    stopped_by: str | None
    evaluated_step: int | None  # whose parameters the test split saw
    test: dict[str, Any] | None
    seconds: dict[str, float]  # of this launch, by activity
    steps: int = 0  # that this launch made


def train(
    plan: Plan,
    folder: Path,
    console: Console,
    *,
    clock: Clock | None = None,
    observe: profiling.Observer = profiling.ignore,
) -> Outcome:
    """Runs the plan in its folder, from the newest checkpoint there if there is one.

    Args:
      plan: of the experiment.
      folder: opened by `run_folder.open_folder`.
      console: for people.
      clock: of the launch, where it began before this; by default a new one.
      observe: as said of `Observer`.

    Returns:
      The outcome; its test metrics are also in `evaluation/test/`.

    Raises:
      DivergenceError: the loss or its gradient was not finite.
    """
    c, clock, total = plan.experiment, clock or Clock(), plan.total_steps
    # An exception is told to the other processes before anything is closed.
    with contextlib.ExitStack() as stack, distributed.failing_together():
        stack.enter_context(exhaustion.noted(plan))
        stop = stack.enter_context(distributed.stop_request())
        checkpoints = Checkpoints(folder, keep=c.checkpoint.keep)
        stack.enter_context(checkpoints)
        step = began = checkpoints.latest_step or 0
        with clock("start-up"):
            evaluator, feed = Evaluator(plan), plan.feed()
            stack.callback(feed.close)
            if step:
                state, saved_window = checkpoints.restore(plan.state, plan.shardings, feed)
            else:
                state, saved_window = plan.initial_state(), []
        if step:
            console.print(f"Resumed {folder} at step {step} of {total}.")
        window = MetricWindow(saved_window)
        with clock("start-up"):
            writer, missing = writers.create(
                folder, resume_step=step, tensorboard=c.log.tensorboard
            )
        stack.callback(writer.close)
        if missing:
            console.print(missing)

        if step < total:
            with clock("compile"), contextlib.closing(plan.feed()) as first:
                batch = first.take_steps(1)
                train_step, cost = plan.compile_step(state, batch)
                train_steps = {1: train_step}
                if (several := c.train.steps_per_call) > 1:
                    train_steps[several], _ = plan.compile_step(state, batch, several)
            parameters = models.count_parameters({"params": plan.state.params})
            run_folder.write_cost(folder, cost, total, parameters)
        if step == 0:
            with clock("start-up"):
                writer.write_hparams(config.flatten(config.to_dict(c)))
                if c.log.tensorboard:
                    writer.write_images(0, {"augmented": augmented_grid(plan, batch)[None]})

        progress = stack.enter_context(TrainProgress(console, total_steps=total, done=step))
        in_flight, logged_at = None, 0.0
        stopping = stop.reached(step)
        while step < total and not stopping:
            observe(step, in_flight)
            with jax.transfer_guard("disallow"):
                with clock("data wait"):
                    batch = feed.take_steps(steps := plan.steps_from(step))
                with clock("step"):
                    state, metrics = train_steps[steps](state, batch)
                    # One step ahead of the device is enough, and keeps the clock honest.
                    jax.block_until_ready(in_flight)
                    in_flight = metrics["loss"]
            window.add(metrics, steps)
            step += steps
            last, stopping = step == total, stop.reached(step)
            progress.advance(step)

            if last or step % plan.log_every == 0:
                with clock("step"), checkpoints.named_in_divergence():
                    steps_logged, means = len(window), window.close(step)
                busy = clock["step"] + clock["data wait"]
                speed = c.data.batch_size * steps_logged / (busy - logged_at)
                logged_at = busy
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
            elif last:  # nothing to choose by; the last ones are what the run leaves behind
                checkpoints.save_best(step, float(step), state.averaged_variables)

            if last or step % plan.checkpoint_every == 0 or stopping:
                with clock("checkpoint"), checkpoints.named_in_divergence():
                    checkpoints.save(step, state, feed, window.fetch(step))

        observe(step, in_flight)
        with clock("checkpoint"):
            checkpoints.wait()
        chosen, test = None, None
        if step == total:
            with clock("evaluation"):
                chosen, variables = evaluator.choose(state, step, checkpoints)
                test = evaluator.test(variables, chosen, folder, writer)
        seconds = run_folder.add_seconds(folder, clock.seconds())
        return Outcome(step, None if test else stop.received, chosen, test, seconds, step - began)
