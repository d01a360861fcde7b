"""Every experiment in configs/ runs: two steps, an evaluation, a checkpoint."""

import io
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from rich.console import Console

from imgrec import data, validation
from imgrec.classical import fitting, planning
from imgrec.config import DataConfig, Experiment
from imgrec.data import ArraySource, Dataset, Info, Split, sampling
from imgrec.errors import UserError
from imgrec.training import loop, run_folder
from imgrec.training.plan import plan

CONFIGS = Path(__file__).parents[1] / "configs"
ARGUMENTS = {"mnist_lenet": ["", "modern"], "mnist_cnn": ["", "fashion_mnist"]}
ARGUMENTS["cifar10_resnet"] = ["", "cpu"]
ARGUMENTS["scenes_cnn"] = ["", "hard", "cue"]
ARGUMENTS["classical"] = ["", "features=pixels,classifier=knn,data=mnist", "features=lbp+colour"]
ARGUMENTS["transfer"] = ["method=scratch,model=resnet8"]
SLOW = {"cifar10_wrn", "cifar10_vit", "cifar100_resnet", "imagenet_vit_s16"}
SHAPES = {
    "mnist": (28, 28, 1, 10),
    "fashion_mnist": (28, 28, 1, 10),
    "cifar10": (32, 32, 3, 10),
    "cifar100": (32, 32, 3, 100),
}

CASES = [
    pytest.param(path, argument, id=f"{path.stem}:{argument}" if argument else path.stem)
    for path in sorted(CONFIGS.glob("*.py"))
    for argument in ARGUMENTS.get(path.stem, [""])
]


def get_config(path: Path, argument: str) -> Experiment:
    experiment = runpy.run_path(str(path))["get_config"](*([argument] if argument else []))
    experiment.name = path.stem
    return experiment


@pytest.mark.parametrize(("path", "argument"), CASES)
def test_it_is_valid_and_says_how_to_run_it(path, argument):
    validation.validate(get_config(path, argument))
    assert f"--config=configs/{path.name}" in runpy.run_path(str(path))["__doc__"]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_an_argument_it_does_not_know_is_refused(path, tmp_path):
    if path.stem == "mnist_cnn":
        with pytest.raises(UserError, match="Unknown data set"):
            plan(get_config(path, "nonsense"))
    else:
        with pytest.raises(ValueError, match="nonsense"):
            get_config(path, "nonsense")


@pytest.mark.parametrize(
    ("path", "argument"),
    [
        pytest.param(*case.values, id=case.id, marks=pytest.mark.slow)
        if case.values[0].stem in SLOW
        else case
        for case in CASES
    ],
)
def test_two_steps(path, argument, tmp_path, monkeypatch, write_imagenet, write_images):
    experiment = get_config(path, argument)
    if experiment.data.dataset in SHAPES:
        monkeypatch.setattr(data, "load", stand_in)
    if experiment.data.dataset == "imagenet":
        write_imagenet(tmp_path / "official")
        experiment.data.root = str(tmp_path / "official")
        experiment.data.image_size = 32
    experiment.data.batch_size = 8
    if experiment.data.dataset.startswith("folder:"):
        experiment.data.dataset = f"folder:{write_images(tmp_path / 'images')}"
    else:
        experiment.data.validation = "16"
    experiment.schedule.warmup = "0st"
    experiment.train.duration = "2st"
    experiment.mesh.data = 1
    experiment.log.tensorboard = False
    run = tmp_path / "run"
    run_folder.open_folder(run, experiment, allow_change=False, needs_bytes=0)
    if experiment.classifier.name:  # which makes no steps
        experiment.data.workers, experiment.features.options = 0, ConfigDict()
        planned = planning.plan_classical(experiment)
        outcome = fitting.fit(planned, run, Console(file=io.StringIO()), lambda *told: None)
        assert outcome.test["n"] == len(planned.dataset.test)
        return
    outcome = loop.train(plan(experiment), run, Console(file=io.StringIO()))
    assert outcome.step == 2
    assert math.isfinite(outcome.test["loss"])


def stand_in(wanted: DataConfig) -> Dataset:
    """Noise of the data set's shape and classes: its official files are not here."""
    *shape, classes = SHAPES[wanted.dataset]
    rng = np.random.default_rng(0)

    def split(name: str, n: int) -> Split:
        images = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
        source = ArraySource(images, (np.arange(n) % classes).astype(np.int32))
        return Split(name, source, np.arange(n))

    info = Info(
        name=wanted.dataset,
        num_classes=classes,
        class_names=tuple(map(str, range(classes))),
        image_shape=(shape[0], shape[1], shape[2]),
        mean=(0.5,) * shape[2],
        std=(0.25,) * shape[2],
        source="noise",
    )
    visits = sampling.shuffled(32)
    return Dataset(split("train", 32), split("validation", 16), split("test", 16), info, visits)
