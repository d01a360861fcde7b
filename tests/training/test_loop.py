"""The loop as a whole; that a cut run equals the uncut one is test_resume.py's."""

import io
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from imgrec.config import Experiment
from imgrec.tasks.classification import Classification
from imgrec.training import loop, run_folder
from imgrec.training.checkpoints import Checkpoints
from imgrec.training.evaluator import Evaluator
from imgrec.training.loop import Outcome
from imgrec.training.plan import plan
from imgrec.training.window import DivergenceError


def train(experiment: Experiment, folder: Path) -> tuple[Outcome, str]:
    run_folder.open_folder(folder, experiment, allow_change=False, needs_bytes=0)
    console = Console(file=io.StringIO(), width=200)
    outcome = loop.train(plan(experiment), folder, console)
    return outcome, console.file.getvalue()


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_logs_evaluates_and_leaves_everything_behind(tiny, tmp_path):
    outcome, printed = train(tiny, tmp_path)
    assert (outcome.step, outcome.stopped_by) == (6, None)
    assert outcome.test["n"] == 359 == len(plan(tiny).dataset.test)
    assert [line["step"] for line in lines(tmp_path) if "train/loss" in line] == [2, 4, 6]
    assert [line["step"] for line in lines(tmp_path) if "validation/loss" in line] == [3, 6]
    assert lines(tmp_path)[-1]["test/accuracy"] == outcome.test["accuracy"]
    assert "step 6/6" in printed and "images/s" in printed
    for name in ("cost.json", "seconds.json", "launches.jsonl", "git.diff", "config.json"):
        assert (tmp_path / name).exists()
    assert sorted(p.name for p in (tmp_path / "checkpoints" / "latest").iterdir()) == ["4", "6"]
    seconds = outcome.seconds
    named = sum(spent for name, spent in seconds.items() if name != "total")
    assert named == pytest.approx(seconds["total"])
    assert {"compile", "data wait", "step", "evaluation", "checkpoint"} <= seconds.keys()


def test_the_saved_predictions_give_the_metrics(tiny, tmp_path):
    outcome, _ = train(tiny, tmp_path)
    saved = np.load(tmp_path / "evaluation" / "test" / "predictions.npz")
    np.testing.assert_array_equal(saved["index"], np.arange(359))
    accuracy = np.mean(saved["logits"].argmax(1) == saved["label"])
    assert outcome.test["accuracy"] == pytest.approx(accuracy)
    np.testing.assert_array_equal(saved["label"], plan(tiny).dataset.test.labels())


def test_the_loss_is_traced_once(tiny, tmp_path, monkeypatch):
    traces = []
    loss = Classification.loss
    monkeypatch.setattr(
        Classification, "loss", lambda *arguments: traces.append(1) or loss(*arguments)
    )
    train(tiny, tmp_path)
    assert len(traces) == 1


def test_a_finished_run_is_not_run_again(tiny, tmp_path):
    first, _ = train(tiny, tmp_path)
    before = lines(tmp_path)
    second, printed = train(tiny, tmp_path)
    assert second.test == first.test
    assert lines(tmp_path) == before
    assert "Resumed" in printed


def test_best_by_validation_is_what_the_test_split_sees(tiny, tmp_path, monkeypatch):
    """Validation is made to like step 3 best; the parameters of step 3 must be tested."""
    variables = {}

    def validate(self, state):
        variables[int(state.step)] = jax.device_get(state.averaged_variables)
        return {"validation/accuracy": 0.0, "validation/loss": 0.0}, -float(state.step)

    tested = {}
    test = Evaluator.test

    def remember(self, chosen, *rest):
        tested["variables"] = jax.device_get(chosen)
        return test(self, chosen, *rest)

    monkeypatch.setattr(Evaluator, "validate", validate)
    monkeypatch.setattr(Evaluator, "test", remember)
    outcome, _ = train(tiny, tmp_path)
    assert outcome.evaluated_step == 3
    jax.tree.map(np.testing.assert_array_equal, tested["variables"], variables[3])


def test_select_last_tests_the_last(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(Evaluator, "validate", lambda self, state: ({}, -float(state.step)))
    tiny.eval.select = "last"
    outcome, _ = train(tiny, tmp_path)
    assert outcome.evaluated_step == 6


def test_what_was_tested_is_what_the_run_keeps_for_others(tiny, tmp_path):
    tiny.eval.select = "last"
    train(tiny, tmp_path)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.best()[0] == 6


def test_without_validation_the_last_parameters_are_tested(tiny, tmp_path):
    tiny.data.validation = "0"
    outcome, _ = train(tiny, tmp_path)
    assert outcome.evaluated_step == 6
    assert not any("validation/loss" in line for line in lines(tmp_path))
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.best()[0] == 6


def test_divergence_names_the_step_and_the_last_good_checkpoint(tiny, tmp_path, monkeypatch):
    prepare = Classification.prepare

    def poisoned(self, batch, key):
        # The key of step 4 (the fifth) turns its images into infinities.
        from imgrec import randomness

        here = jax.random.key_data(randomness.named(randomness.at_step(0, 4), "augment"))
        bad = (jax.random.key_data(key) == here).all()
        prepared = prepare(self, batch, key)
        return {**prepared, "image": jax.numpy.where(bad, jax.numpy.inf, prepared["image"])}

    monkeypatch.setattr(Classification, "prepare", poisoned)
    with pytest.raises(DivergenceError, match="step 5") as error:
        train(tiny, tmp_path)
    assert error.value.step == 5
    assert str(tmp_path / "checkpoints" / "latest" / "4") in error.value.__notes__[0]
    assert sorted(p.name for p in (tmp_path / "checkpoints" / "latest").iterdir()) == ["2", "4"]


def test_an_earlier_run_gives_the_weights(tiny, tmp_path):
    train(tiny, tmp_path / "first")
    with Checkpoints(tmp_path / "first", keep=2) as checkpoints:
        planned = plan(tiny)
        best = checkpoints.restore_best(
            planned.state.averaged_variables, planned.shardings.averaged_variables
        )
    tiny.init.weights = str(tmp_path / "first")
    tiny.train.ema = 0.9
    state = plan(tiny).initial_state()
    for variables in (state.variables, state.averaged_variables):
        jax.tree.map(np.testing.assert_array_equal, variables, best)
    assert int(state.step) == 0
