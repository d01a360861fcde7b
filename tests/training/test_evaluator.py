"""Validation and test through the loop's eyes; exactness itself is tests/evaluation's."""

import json

import jax
import numpy as np
import pytest

from imgrec.training import writers
from imgrec.training.evaluator import Evaluator
from imgrec.training.plan import plan


@pytest.fixture
def writer(tmp_path):
    writer, _ = writers.create(tmp_path, resume_step=0, tensorboard=False)
    yield writer
    writer.close()


def test_the_same_on_one_two_and_eight_devices(tiny):
    """All 96 validation images by batches of 40: three batches, the last one mostly padding."""
    tiny.eval.batch_size = 40
    results = []
    for devices in (1, 2, 8):
        tiny.mesh.data = devices
        planned = plan(tiny)
        results.append(Evaluator(planned).validate(planned.initial_state())[0])
    assert results[0]["validation/accuracy"] == results[1]["validation/accuracy"]
    assert results[0]["validation/accuracy"] == results[2]["validation/accuracy"]
    for other in results[1:]:
        assert other["validation/loss"] == pytest.approx(results[0]["validation/loss"], rel=1e-5)


def test_averages_are_evaluated_beside_and_decide(tiny):
    tiny.train.ema = 0.9
    planned = plan(tiny)
    state = planned.initial_state()
    params = jax.tree.map(
        lambda x: x + 0.3 * np.sin(np.arange(x.size).reshape(x.shape)), state.params
    )
    state = type(state)(state.step, params, state.model_state, state.opt_state, state.average)
    scalars, value = Evaluator(planned).validate(state)
    assert scalars["validation/loss"] != scalars["validation_ema/loss"]
    assert value == scalars["validation_ema/accuracy"]


def test_the_test_split_is_evaluated_once(tiny, tmp_path, writer):
    planned = plan(tiny)
    variables = planned.initial_state().variables
    first = Evaluator(planned).test(variables, 6, tmp_path, writer)
    assert first["n"] == 359 == sum(map(sum, first["confusion_matrix"]))
    again = Evaluator(planned).test(variables, 6, tmp_path, writer)
    assert again == first
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["test/accuracy"] for line in lines] == [first["accuracy"]]
