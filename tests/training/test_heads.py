"""A head fitted to a fixed network: the run folder of a training run, without its steps."""

import io
import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from imgrec.errors import UserError
from imgrec.evaluation import predictions
from imgrec.training import heads, run_folder
from imgrec.training.evaluator import Evaluator
from imgrec.training.plan import plan


def run(experiment, folder):
    planned = plan(experiment)
    run_folder.open_folder(folder, experiment, allow_change=False, needs_bytes=0)
    said = io.StringIO()
    outcome = heads.fit(planned, folder, Console(file=said, width=1000))
    return planned, outcome, said.getvalue()


@pytest.mark.parametrize("name", ["probe", "knn", "prototype"])
def test_a_run_of_each(tiny, tmp_path, name):
    tiny.head.name = name
    planned, outcome, said = run(tiny, tmp_path)
    assert "a network that has learnt nothing" in said
    report = json.loads((tmp_path / "evaluation" / "test" / "metrics.json").read_text())
    assert report["n"] == len(planned.dataset.test) == outcome.test["n"]
    assert report["accuracy"] > 0.6  # even random features of digits tell them apart
    assert (report["step"], report["total_steps"]) == (outcome.step, 0) == (0, 0)
    chosen = report["head"]["chosen"]
    assert chosen in report["head"]["tried"]
    assert chosen["accuracy"] == max(each["accuracy"] for each in report["head"]["tried"])
    saved = predictions.load(tmp_path / "evaluation" / "test" / "predictions.npz")
    np.testing.assert_array_equal(saved.label, planned.dataset.test.labels())
    assert (saved.logits.argmax(1) == saved.label).mean() == report["accuracy"]
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert any(line.get("validation/accuracy") == chosen["accuracy"] for line in lines)
    assert (tmp_path / "checkpoints" / "best" / "0").exists() == (name == "probe")
    # Once more: nothing is computed again, and nothing changes.
    _, again, said = run(tiny, tmp_path)
    assert said.count("read back") == 3
    assert again.test == report


def test_a_linear_head_becomes_the_networks_own(tiny, tmp_path):
    tiny.head.name, tiny.head.options = "probe", ConfigDict({"l2": (0.03,)})
    _, outcome, _ = run(tiny, tmp_path / "probe")
    tiny.head.name, tiny.head.options = "trained", ConfigDict()
    tiny.init.weights = str(tmp_path / "probe")
    planned = plan(tiny)
    assert planned.weights[0].startswith("weights: all 37 arrays")
    variables = planned.initial_state().variables
    found = Evaluator(planned)._run(planned.dataset.test, variables)
    saved = predictions.load(tmp_path / "probe" / "evaluation" / "test" / "predictions.npz")
    np.testing.assert_allclose(found.logits, saved.logits, atol=1e-3)
    assert (found.logits.argmax(1) == found.label).mean() == outcome.test["accuracy"]


def test_the_backbone_is_untouched(tiny, tmp_path):
    tiny.head.name = "probe"
    run(tiny, tmp_path / "probe")
    fresh = plan(tiny).initial_state()
    tiny.head.name, tiny.init.weights = "trained", str(tmp_path / "probe")
    found = plan(tiny).initial_state()
    for part in fresh.params.keys() - {"head"}:
        jax.tree.map(np.testing.assert_array_equal, found.params[part], fresh.params[part])
    jax.tree.map(np.testing.assert_array_equal, found.model_state, fresh.model_state)


def test_a_head_that_is_not_linear_on_its_features_gets_no_checkpoint(tiny, tmp_path):
    # LeNet's head of 1998 has no parameters.
    tiny.model.name, tiny.data.image_size = "lenet5", 32
    tiny.head.name, tiny.head.options = "prototype", ConfigDict({"metric": "euclidean"})
    _, outcome, said = run(tiny, tmp_path)
    assert "no linear layer on its features" in said
    assert not (tmp_path / "checkpoints").exists()
    assert outcome.test["accuracy"] > 0.6


def test_features_are_shared_between_runs(tiny, tmp_path):
    tiny.head.cache = str(tmp_path / "features")
    tiny.head.name = "knn"
    run(tiny, tmp_path / "one")
    tiny.head.name = "prototype"
    _, _, said = run(tiny, tmp_path / "two")
    assert said.count("read back") == 3
    assert len(list((tmp_path / "features").glob("*.npz"))) == 3


def test_over_devices(tiny, tmp_path):
    tiny.head.name, tiny.head.options = "probe", ConfigDict({"l2": (0.03,)})
    _, alone, _ = run(tiny, tmp_path / "one")
    tiny.mesh.data, tiny.mesh.fsdp = 2, 4
    _, spread, _ = run(tiny, tmp_path / "eight")
    assert spread.test["accuracy"] == pytest.approx(alone.test["accuracy"], abs=0.01)


def test_without_validation(tiny, tmp_path):
    tiny.data.validation, tiny.head.name = "0", "knn"
    with pytest.raises(UserError, match=r"chooses among 6 values of k by the validation split"):
        plan(tiny)
    tiny.head.options = ConfigDict({"k": (5,)})
    _, outcome, _ = run(tiny, tmp_path)
    assert outcome.test["head"]["chosen"] == {"k": 5}


def test_a_fitted_head_has_no_teacher(tiny):
    tiny.head.name, tiny.distill.teacher = "probe", "runs/any"
    with pytest.raises(UserError, match=r"distill\.teacher='runs/any' teaches what is trained"):
        plan(tiny)
