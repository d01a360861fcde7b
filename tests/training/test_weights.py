"""Weights of an earlier run or from a file: refused before any work unless they fit.

Loading an earlier run's is tested in test_loop.py.
"""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from imgrec import models
from imgrec.config import ModelConfig
from imgrec.errors import UserError
from imgrec.training.checkpoints import Checkpoints
from imgrec.training.dry_run import describe
from imgrec.training.plan import plan
from imgrec.transfer import mapping, pretrained, safetensors, tables


def test_a_folder_without_a_checkpoint_is_refused(tiny, tmp_path):
    tiny.init.weights = str(tmp_path)
    with pytest.raises(UserError, match="is no run folder with a checkpoint"):
        plan(tiny)


def test_another_model_is_refused_with_what_differs(tiny, tmp_path):
    planned = plan(tiny)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save_best(1, 0.5, planned.initial_state().variables)
    tiny.init.weights = str(tmp_path)
    plan(tiny)
    tiny.model.name = "resnet14"
    with pytest.raises(UserError, match="params/stage3_block1/norm1/scale: missing there"):
        plan(tiny)


def _save(folder, planned):
    state = planned.initial_state()
    with Checkpoints(folder, keep=1) as checkpoints:
        checkpoints.save_best(1, 0.5, state.variables)
    return state


def test_a_runs_backbone_for_other_classes(tiny, tmp_path, write_images):
    tiny.train.ema = 0.9
    saved = _save(tmp_path / "run", plan(tiny))
    tiny.seed, tiny.init.weights = 1, str(tmp_path / "run")
    tiny.data.dataset, tiny.data.validation = f"folder:{write_images(tmp_path / 'two')}", "10%"
    tiny.data.image_size, tiny.data.channels = 8, 1
    planned = plan(tiny)
    assert planned.weights[0].startswith("weights: 35 of the 37 arrays of ")
    assert planned.weights[1] == (
        "  NEW HEAD: params/head/bias, params/head/kernel start afresh: 10 classes there, 2 here"
    )
    found = planned.initial_state()
    tiny.init.weights = ""
    fresh = plan(tiny).initial_state()
    jax.tree.map(np.testing.assert_array_equal, found.params["head"], fresh.params["head"])
    for part in saved.params.keys() - {"head"}:
        jax.tree.map(np.testing.assert_array_equal, found.params[part], saved.params[part])
    jax.tree.map(np.testing.assert_array_equal, found.model_state, saved.model_state)
    jax.tree.map(np.testing.assert_array_equal, found.averaged_variables, found.variables)


def test_a_new_head_where_the_old_one_fits(tiny, tmp_path):
    saved = _save(tmp_path / "run", plan(tiny))
    tiny.seed, tiny.init.weights = 1, str(tmp_path / "run")
    same = plan(tiny)
    assert same.weights[0].startswith("weights: all 37 arrays of ")
    jax.tree.map(np.testing.assert_array_equal, same.initial_state().variables, saved.variables)

    tiny.init.new_head = True
    planned = plan(tiny)
    assert planned.weights[1].endswith("start afresh: as config.init.new_head asks")
    found = planned.initial_state().params
    assert not np.array_equal(found["head"]["kernel"], saved.params["head"]["kernel"])
    np.testing.assert_array_equal(
        found["stem"]["conv"]["kernel"], saved.params["stem"]["conv"]["kernel"]
    )

    source = tmp_path / "resnet8.safetensors"
    _export(source, "resnet8", 10, AKAMASTER)
    tiny.init.weights = str(source)
    assert (
        plan(tiny)
        .weights[-1]
        .endswith("as config.init.new_head asks (linear.weight, linear.bias left out)")
    )


def test_a_backbone_over_devices(tiny, tmp_path):
    saved = _save(tmp_path / "run", plan(tiny))
    tiny.init.weights, tiny.init.new_head = str(tmp_path / "run"), True
    tiny.mesh.data, tiny.mesh.fsdp = 2, 4
    planned = plan(tiny)
    found = planned.initial_state()
    assert jax.tree.map(lambda x: x.sharding, found.params) == planned.shardings.params
    np.testing.assert_array_equal(
        found.params["stem"]["conv"]["kernel"], saved.params["stem"]["conv"]["kernel"]
    )


def _export(path, model, classes, naming, shape=(8, 8, 1)):
    """Writes random weights of a model in a foreign naming; returns its variables."""
    module = models.create(ModelConfig(model), classes)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *shape))))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.random(x.shape, np.float32), dict(shapes))
    table = tables.named(module, shape, naming)
    state = {name: value for name, value in variables.items() if name != "params"}
    safetensors.write(path, mapping.export(variables["params"], state, table))
    return variables


AKAMASTER = "akamaster/pytorch_resnet_cifar10"


def test_a_file_gives_the_weights_and_says_so(tiny, tmp_path):
    source = tmp_path / "resnet8.safetensors"
    variables = _export(source, "resnet8", 10, AKAMASTER)
    tiny.init.weights, tiny.train.ema = str(source), 0.9
    planned = plan(tiny)
    assert planned.weights[0].startswith(f"weights: {source}: 37 arrays used (")
    assert planned.weights[0].endswith(f"numbers), in the naming of {AKAMASTER}")
    assert describe(planned)[-len(planned.weights) :] == list(planned.weights)

    state = planned.initial_state()
    for found in (state.variables, state.averaged_variables):
        jax.tree.map(np.testing.assert_array_equal, found, variables)
    assert jax.tree.map(lambda x: x.sharding, state.params) == planned.shardings.params
    assert state.step == 0


def test_a_head_for_other_classes_is_the_models_own(tiny, tmp_path):
    fresh = plan(tiny).initial_state()
    source = tmp_path / "resnet8.safetensors"
    variables = _export(source, "resnet8", 100, AKAMASTER)
    tiny.init.weights = str(source)
    planned = plan(tiny)
    assert planned.weights[-1] == (
        "  NEW HEAD: params/head/bias, params/head/kernel start afresh: 100 classes there, 10 here "
        "(linear.weight, linear.bias left out)"
    )
    params = planned.initial_state().params
    jax.tree.map(np.testing.assert_array_equal, params["head"], fresh.params["head"])
    np.testing.assert_array_equal(
        params["stem"]["conv"]["kernel"], variables["params"]["stem"]["conv"]["kernel"]
    )


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Weights of resnet8 for 100 classes by the name "published", in a package of their own."""
    folder = tmp_path / "published_weights"
    folder.mkdir()
    _export(folder / "a.safetensors", "resnet8", 100, AKAMASTER, (16, 16, 3))
    monkeypatch.syspath_prepend(tmp_path)
    prepared = pretrained.Preprocessing(16, 0.5, "bicubic", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    weights = pretrained.Pretrained(
        model="resnet8",
        trained_on="noise",
        num_classes=100,
        top_1=0.01,
        package="published-weights",
        module="published_weights",
        file="a.safetensors",
        preprocessing=prepared,
    )
    monkeypatch.setitem(pretrained._PRETRAINED, "published", weights)
    return folder


def test_published_weights_bring_their_preprocessing(tiny, published):
    tiny.init.weights = "published"
    planned = plan(tiny)
    resolved = planned.experiment
    assert (resolved.data.image_size, resolved.data.interpolation) == (16, "bicubic")
    assert planned.dataset.info.image_shape == (16, 16, 3)  # of grey digits of 8 x 8
    assert planned.task.mean == (0.1, 0.2, 0.3) and planned.task.std == (0.4, 0.5, 0.6)
    first, *_, head, prepared = planned.weights
    assert first.startswith("weights: published: 35 arrays used (")
    assert "NEW HEAD" in head and "100 classes there, 10 here" in head
    assert prepared.startswith("  prepared as these weights were: data.image_size=16")
    # A resolved experiment plans to the same.
    assert plan(resolved).experiment == resolved

    tiny.data.image_size = 8
    planned = plan(tiny)
    assert planned.dataset.info.image_shape == (8, 8, 3)
    assert planned.weights[-1] == (
        "  OTHER PREPROCESSING: data.image_size=8, as configured; these weights were evaluated "
        "with 16"
    )


def test_published_weights_that_are_not_installed(tiny, published):
    tiny.init.weights = "published"
    (published / "a.safetensors").unlink()
    with pytest.raises(UserError, match=r"published-weights, which is not.*'imgrec\[pretrained\]'"):
        plan(tiny)
    tiny.init.weights = "publishd"
    with pytest.raises(UserError, match=r"nor the name of published weights. Did you mean 'publ"):
        plan(tiny)


def test_over_devices(tiny, tmp_path):
    source = tmp_path / "resnet8.safetensors"
    variables = _export(source, "resnet8", 10, AKAMASTER)
    tiny.init.weights = str(source)
    tiny.mesh.data, tiny.mesh.fsdp = 2, 4
    planned = plan(tiny)
    state = planned.initial_state()
    assert jax.tree.map(lambda x: x.sharding, state.params) == planned.shardings.params
    jax.tree.map(np.testing.assert_array_equal, state.variables, variables)


def test_what_weights_cannot_tell_is_said(tiny, tmp_path):
    source = tmp_path / "vit.safetensors"
    _export(source, "vit_ti4", 10, "timm")
    tiny.init.weights, tiny.model.name = str(source), "vit_ti4"
    assert plan(tiny).weights[-1] == (
        "  networks of this naming have gelu='erf', and this model has 'tanh'; for their logits "
        "set --config.model.options.gelu=erf"
    )
    tiny.model.options = ConfigDict({"gelu": "erf"})
    assert len(plan(tiny).weights) == 2


def test_what_not_even_the_naming_can_tell_is_said(tiny, tmp_path):
    source = tmp_path / "lite.safetensors"
    _export(source, "efficientnet_lite0", 10, "timm", (32, 32, 1))
    tiny.init.weights, tiny.model.name = str(source), "efficientnet_lite0"
    tiny.model.options = ConfigDict({"padding": "half"})
    tiny.data.image_size = 32
    *_, settled, open_question = plan(tiny).weights
    assert "networks of this naming have norm_epsilon=1e-05, and this" in settled
    assert "two kinds of network" in open_question
    assert open_question.endswith("this model has padding='half'")


def test_files_that_do_not_fit_are_refused_before_work(tiny, tmp_path):
    source = tmp_path / "resnet8.safetensors"
    _export(source, "resnet8", 10, AKAMASTER)
    tiny.init.weights = str(source)
    for model, message in [
        (
            "resnet14",
            r"resnet8\.safetensors': these.*30 arrays are missing.*layer1\.1\.conv1",
        ),
        ("wrn10_1", "are of another model|none of its 37 arrays"),
        ("small_cnn", "no foreign naming is known for a SmallCNN"),
    ]:
        tiny.model.name = model
        with pytest.raises(UserError, match=rf"(?s)config\.init\.weights=.*{message}"):
            plan(tiny)

    tiny.model.name = "resnet8"
    source.write_bytes(source.read_bytes()[:-1])
    with pytest.raises(UserError, match="no whole safetensors file"):
        plan(tiny)
    tiny.init.weights = str(tmp_path / "resnet9.safetensors")
    with pytest.raises(UserError, match=r"There is no file .*Did you mean .*resnet8\.safetensors"):
        plan(tiny)


def test_a_pickle_that_tries_to_run_code_is_refused(tiny, tmp_path):
    class Executed:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    # The old format's start, and then what an attacker likes.
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {"a": Executed()}]
    source = tmp_path / "weights.pth"
    source.write_bytes(b"".join(pickle.dumps(part, 2) for part in parts))
    tiny.init.weights = str(source)
    with pytest.raises(UserError, match=r"asks for \w+\.open.*Nothing in it was executed"):
        plan(tiny)
    assert not (tmp_path / "pwned").exists()
