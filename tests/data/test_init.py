import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

import imgrec
from imgrec import data
from imgrec.config import DataConfig
from imgrec.data import cifar, pipeline, preparing
from imgrec.errors import UserError

NAMES = ["cifar10", "cifar100", "digits", "fashion_mnist", "folder:", "imagenet", "mnist"]
NAMES += ["prepared:digits", "scenes", "tfds:even"]


@pytest.fixture
def config_for(
    tmp_path,
    write_idx,
    write_cifar,
    small_cifar,
    write_imagenet,
    write_images,
    request,
    monkeypatch,
):
    """config_for(name): a configuration whose root holds tiny files of that data set."""

    def make(name, **fields):
        root = tmp_path
        if "mnist" in name:
            write_idx(root / name)
        elif "cifar" in name:
            write_cifar(getattr(cifar, name.upper()), root)
        elif name == "imagenet":
            write_imagenet(root)
        elif name == "prepared:digits":
            monkeypatch.chdir(tmp_path)
            official = data.load_official(DataConfig(dataset="digits"))
            preparing.prepare(official, Path("digits"), preparing.Settings(), "again")
        elif name.startswith("tfds"):
            root = request.getfixturevalue("tfds_root")
        elif name.startswith("folder"):
            name = f"folder:{write_images(root / 'images')}"
            if fields.get("validation", "0") != "0":
                fields["validation"] = "10%"  # what is split by content takes no count
        return DataConfig(dataset=name, root=str(root), **fields)

    return make


def test_every_registered_name_is_tested_here():
    assert sorted(name.partition(":")[0] for name in NAMES) == sorted(
        name.partition(":")[0] for name in data.names()
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("image_size", [0, 12])
def test_every_data_set_keeps_the_contract(config_for, name, image_size):
    if name == "imagenet":
        image_size = image_size or 20  # its images differ in size
    config = config_for(name, image_size=image_size, validation="3")
    dataset = data.load(config)
    info = dataset.info
    assert info.name == config.dataset and info.name.startswith(name)
    assert len(info.class_names) == info.num_classes and info.source
    assert len(info.mean) == len(info.std) == info.image_shape[2]
    assert all(0 < value < 1 for value in (*info.mean, *info.std))
    if image_size:
        assert info.image_shape[:2] == (image_size, image_size)

    assert len(dataset.validation) == 3 or config.validation != "3"
    for split in (dataset.train, dataset.validation, dataset.test):
        labels = split.labels()
        assert labels.dtype == np.int32 and labels.shape == (len(split),)
        assert labels.min() >= 0 and labels.max() < info.num_classes
        positions = np.array([len(split) - 1, 0])
        batch = split.gather(positions)
        assert batch["image"].dtype == np.uint8
        assert batch["image"].shape == (2, *info.image_shape)
        assert (batch["label"] == labels[positions]).all()
        for row, position in enumerate(positions):
            example = split[int(position)]
            assert (example["image"] == batch["image"][row]).all()
            assert example["label"] == labels[position] and example["label"].dtype == np.int32
    if dataset.validation.source is dataset.train.source:
        assert set(dataset.train.rows).isdisjoint(dataset.validation.rows)
    assert dataset.test.source is not dataset.train.source
    assert next(pipeline.train_batches(dataset.train, batch_size=2, seed=0))["mask"].all()


@pytest.mark.parametrize("name", ["digits", "scenes", "cifar100"])
def test_mean_and_std_do_not_depend_on_resizing_or_the_cut(config_for, name):
    first = data.load(config_for(name)).info
    second = data.load(config_for(name, image_size=20, validation="0", split_seed=3)).info
    assert (first.mean, first.std) == (second.mean, second.std)


def test_the_cut_follows_the_configuration(config_for):
    def rows(**fields):
        dataset = data.load(config_for("digits", **fields))
        return len(dataset.train), dataset.validation and tuple(dataset.validation.rows)

    assert rows(validation="0") == (1438, None)
    count, first = rows(validation="10%")
    assert count == 1294 and len(first) == 144
    assert rows(validation="10%") == (count, first)
    assert rows(validation="10%", split_seed=1)[1] != first
    with pytest.raises(UserError, match="neither a share nor a count"):
        rows(validation="some")


@pytest.mark.parametrize(
    ("given", "meant"),
    [("cifar_10", "cifar10"), ("MNIST", "mnist"), ("fashion-mnist", "fashion_mnist")],
)
def test_unknown_names_get_the_nearest(given, meant):
    with pytest.raises(UserError, match=f"Unknown data set '{given}'. Did you mean '{meant}'"):
        data.load(DataConfig(dataset=given))


@pytest.mark.parametrize("name", ["digits", "tfds:mnist"])
def test_options_of_a_data_set_that_takes_none_are_refused(name):
    config = DataConfig(dataset=name, options=ConfigDict({"occlusion": 0.5}))
    with pytest.raises(UserError, match=r"options\.occlusion: the data set '.*' takes no options"):
        data.load(config)


@pytest.mark.parametrize("given", ["tfds", "tfds:"])
def test_a_prefix_needs_its_argument(given):
    with pytest.raises(UserError, match=r"lacks its NAME; write --config\.data\.dataset=tfds:NAME"):
        data.load(DataConfig(dataset=given))


def test_root_is_the_field_then_the_variable_then_the_cache(monkeypatch):
    monkeypatch.setenv("IMGREC_DATA", "/from/variable")
    assert data.root_folder(DataConfig(root="/from/field")) == Path("/from/field")
    assert data.root_folder(DataConfig()) == Path("/from/variable")
    monkeypatch.delenv("IMGREC_DATA")
    monkeypatch.setenv("HOME", "/home/someone")
    assert data.root_folder(DataConfig()) == Path("/home/someone/.cache/imgrec")
    assert data.root_folder(DataConfig(root="~/data")) == Path("/home/someone/data")


WITHOUT = """
import sys

BLOCKED = {"tensorflow", "tensorflow_datasets", "torch"}


class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in BLOCKED
        return None if hidden else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]

from imgrec import data
from imgrec.config import DataConfig
from imgrec.data import pipeline
from imgrec.errors import UserError

dataset = data.load(DataConfig(dataset="scenes"))
next(pipeline.train_batches(dataset.train, batch_size=4, seed=0))
try:
    data.load(DataConfig(dataset="tfds:mnist"))
except UserError as error:
    assert "pip install tensorflow-datasets" in str(error), error
else:
    raise AssertionError("TFDS was not hidden")
assert not BLOCKED & sys.modules.keys()
"""


def test_nothing_needs_tensorflow_its_data_sets_or_torch():
    environment = {**os.environ, "PYTHONPATH": str(Path(imgrec.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", WITHOUT], check=True, env=environment, timeout=300)
