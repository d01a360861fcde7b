"""Other data sets by name, their images brought to a network's shape."""

import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from imgrec import data
from imgrec.config import DataConfig
from imgrec.errors import UserError
from imgrec.evaluation.unknown import ood_data
from imgrec.evaluation.unknown.ood_data import Named, fitted, named, ood_split

MNIST = DataConfig(dataset="mnist", batch_size=128, validation="5000", per_class=3)


def test_names_and_their_folders():
    assert named("") == {} == named("  ")
    assert named("scenes") == {"scenes": Named("scenes", "")}
    assert named("fashion_mnist@/data/my@fashion, scenes,tfds:svhn_cropped@/d") == {
        "fashion_mnist": Named("fashion_mnist", "/data/my@fashion"),
        "scenes": Named("scenes", ""),
        "tfds:svhn_cropped": Named("tfds:svhn_cropped", "/d"),
    }
    assert named("folder:/home/a@b/cats") == {
        "folder:/home/a@b/cats": ("folder:/home/a@b/cats", "")
    }


@pytest.mark.parametrize("text", ["scenes,", ",scenes", "a@", "@/data", "a,,b"])
def test_an_item_that_is_none_is_refused(text):
    with pytest.raises(UserError, match=r"expected NAME or NAME@FOLDER, as in --ood=scenes"):
        named(text)


def test_a_name_given_twice_is_refused():
    with pytest.raises(UserError, match="names 'scenes' twice"):
        named("scenes,digits,scenes")


def test_the_runs_own_data_set_is_not_unknown():
    with pytest.raises(UserError, match=r"--ood=mnist: .* trained on 'mnist'.*holdout_classes"):
        ood_split(Named("mnist", ""), MNIST, (28, 28, 1))


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'digits'"):
        ood_split(Named("digitss", ""), MNIST, (28, 28, 1))


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (16, 16, 3), (20, 24, 1), (24, 20, 3)])
@pytest.mark.parametrize("name", ["digits", "scenes", "folder"])
def test_any_set_takes_any_shape(shape, name, write_images, tmp_path):
    if name == "folder":
        name = f"folder:{write_images(tmp_path / 'images')}"
    split = ood_split(Named(name, ""), MNIST, shape)
    assert split.name == name and len(split) > 5
    if name == "digits":
        assert len(split) == 359  # its whole test split, whatever is made of the run's training
    batch = split.gather(np.array([4, 0]))
    assert batch["image"].shape == (2, *shape) and batch["image"].dtype == np.uint8
    for row, position in enumerate((4, 0)):
        example = split[position]
        assert (example["image"] == batch["image"][row]).all()
        assert example["label"] == batch["label"][row] == split.labels()[position]
    assert batch["image"].std() > 10  # there is something on them
    if shape[2] == 3 and name == "digits":
        assert (batch["image"][..., :1] == batch["image"]).all()


def test_scenes_turn_grey_by_pillow():
    split = ood_split(Named("scenes", ""), MNIST, (28, 28, 1))
    assert len(split) == 500 and split.columns().keys() >= {"colour", "scale"}
    one = DataConfig(dataset="scenes", validation="0", options=ConfigDict({"train": 1}))
    original = data.load(one).test[3]["image"]
    assert original.shape == (32, 32, 3)
    small = Image.fromarray(original).resize((28, 28), Image.Resampling.BILINEAR)
    grey = np.asarray(small.convert("L")).astype(int)
    # The other way round, rounding differs by a level.
    assert abs(split[3]["image"][..., 0].astype(int) - grey).max() <= 1


def test_images_that_fit_are_the_data_sets_own():
    run = dataclasses.replace(MNIST, options=ConfigDict({"resolution": 8}))
    split = ood_split(Named("digits", ""), run, (8, 8, 1))
    own = data.load(DataConfig(dataset="digits")).test
    everything = np.arange(len(own))
    assert (split.gather(everything)["image"] == own.gather(everything)["image"]).all()
    assert split.source.residency == "memory"


def test_a_root_of_ones_own(monkeypatch):
    asked = []
    load = data.load
    monkeypatch.setattr(data, "load", lambda config: asked.append(config) or load(config))
    for root, expected in (("/data/fashion", "/data/fashion"), ("", "/data/mnist")):
        run = dataclasses.replace(MNIST, root="/data/mnist")
        with pytest.raises(UserError, match=f"fashion_mnist.* not in {expected}"):
            ood_split(Named("fashion_mnist", root), run, (28, 28, 1))
        assert asked[-1].root == expected


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(UserError, match="its images have 3 channels, the network takes 4"):
        ood_split(Named("scenes", ""), MNIST, (32, 32, 4))


def test_more_channels_are_resized_one_by_one():
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    result = fitted(image, (3, 4, 4))
    assert result.shape == (3, 4, 4)
    for c in range(4):
        assert (result[..., c : c + 1] == fitted(image[..., c : c + 1], (3, 4, 1))).all()
    assert (ood_data.fitted(image, (6, 8, 4)) == image).all()
