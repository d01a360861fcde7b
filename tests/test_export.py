"""A run's weights for others: the file holds the run's best variables, under their names."""

import json

import flax
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict

from imgrec import export, models
from imgrec.config import DataConfig, Experiment, ModelConfig, to_dict
from imgrec.errors import UserError
from imgrec.transfer import mapping, sources, tables


def finished_run(folder, name, shape, *, image_size=0, **options):
    """What a run leaves of its model: the configuration and the best variables."""
    model = ModelConfig(name, ConfigDict(options))
    module = models.create(model, 7)
    variables = jax.jit(lambda: module.init(jax.random.key(0), jnp.zeros((1, *shape))))()
    variables = flax.core.unfreeze(variables)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute() / "checkpoints" / "best" / "3" / "variables", variables)
    experiment = Experiment(name="run", model=model, data=DataConfig(image_size=image_size))
    (folder / "config.json").write_text(json.dumps({"experiment": to_dict(experiment)}))
    return module, variables


@pytest.mark.parametrize(
    ("name", "shape", "image_size", "options"),
    [
        ("resnet18", (32, 32, 3), 0, {"width": 4}),
        ("vit_ti8", (32, 32, 3), 0, {}),  # whose positions tell the size
        ("vit_ti8", (40, 40, 1), 40, {}),
    ],
)
def test_the_file_holds_the_best_variables(tmp_path, capsys, name, shape, image_size, options):
    module, variables = finished_run(tmp_path, name, shape, image_size=image_size, **options)
    path = tmp_path / "out.safetensors"
    assert export.main(["export", str(tmp_path), "--naming=timm", f"--to={path}"]) == 0
    assert "in the naming of timm" in capsys.readouterr().out
    state = {k: v for k, v in variables.items() if k == "batch_stats"}
    table = tables.named(module, shape, "timm")
    params, state, _ = mapping.convert(sources.read(path).arrays, table, variables["params"], state)
    jax.tree.map(np.testing.assert_array_equal, params, variables["params"])
    jax.tree.map(
        np.testing.assert_array_equal, state.get("batch_stats"), variables.get("batch_stats")
    )


def test_a_size_that_cannot_be_guessed_is_asked_for(tmp_path):
    finished_run(tmp_path, "vit_ti8", (48, 48, 3))
    path = tmp_path / "out.safetensors"
    with pytest.raises(UserError, match="--image_size=PIXELS"):
        export.main(["export", str(tmp_path), f"--to={path}"])
    assert export.main(["export", str(tmp_path), f"--to={path}", "--image_size=48"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN"], "--to=FILE.safetensors"),
        (["--to=x.safetensors"], "folder of one run; 0 were given"),
        (["nowhere", "--to=x.safetensors"], "RUN='nowhere' is no run folder"),
        (["RUN", "--to=x.pth"], "x.safetensors"),
        (["RUN", "--to=x.safetensors", "--naming=tim"], "Did you mean 'timm'"),
        (["RUN", "--too=x"], "Did you mean --to"),
    ],
)
def test_mistakes_are_said_and_nothing_is_written(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "RUN"
    run.mkdir()
    finished_run(run, "resnet18", (32, 32, 3), width=4)
    with pytest.raises(UserError, match=message):
        export.main(["export", *arguments])
    assert [path.name for path in tmp_path.iterdir()] == ["RUN"]


def test_a_folder_without_its_configuration(tmp_path):
    finished_run(tmp_path, "resnet18", (32, 32, 3), width=4)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"no readable config\.json"):
        export.main(["export", str(tmp_path), "--to=x.safetensors"])
