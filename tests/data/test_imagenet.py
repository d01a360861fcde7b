import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgrec import data
from imgrec.config import DataConfig
from imgrec.data import imagenet, prepared, preparing, synsets
from imgrec.errors import UserError

WNIDS = ("n01440764", "n01443537")
TRAIN = sorted(
    (f"{wnid}/{wnid}_{i}.JPEG" for wnid in WNIDS for i in range(20)),
    key=lambda name: (name.split("/")[0], name),
)
LABELS = "imagenet_2012_validation_synset_labels.txt"


@pytest.fixture(autouse=True)
def without_tfds(monkeypatch):
    monkeypatch.setattr(synsets, "_tfds_list", lambda: None)


@pytest.fixture
def tars(tmp_path, write_imagenet):
    """(folder of the official archives, the files in them)."""
    return tmp_path / "tars", write_imagenet(tmp_path / "tars")


@pytest.fixture
def unpack(tars, tmp_path):
    """unpack(val_in_folders, inside): the same files as trees, in a folder of their own."""

    def make(val_in_folders: bool, inside: str = ".") -> Path:
        folder = tmp_path / "trees"
        wnids = (tars[0] / LABELS).read_text().split()
        for name, content in tars[1].items():
            number = int(name[-10:-5]) if "_val_" in name else None
            place = f"train/{name}"
            if number is not None:
                place = f"val/{wnids[number - 1] if val_in_folders else '.'}/{name}"
            path = folder / inside / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if not val_in_folders:
            shutil.copy(tars[0] / LABELS, folder)
        return folder

    return make


def contents(part):
    return [part.encoded(row) for row in range(len(part))], part.labels().tolist()


def check(official, files):
    """The files in their order, whatever they were read from."""
    assert contents(official.train) == ([files[name] for name in TRAIN], [0] * 20 + [1] * 20)
    numbered = [files[f"ILSVRC2012_val_{i:08d}.JPEG"] for i in range(1, 7)]
    assert contents(official.test) == (numbered, [1, 0, 0, 1, 0, 0])
    assert official.validation is None


def test_official_archives(tars):
    folder, files = tars
    official = imagenet.load(folder)
    check(official, files)
    info = official.info
    assert (info.name, info.image_shape, info.num_classes) == ("imagenet", (0, 0, 3), 2)
    assert info.mean == (0.485, 0.456, 0.406) and info.std == (0.229, 0.224, 0.225)
    assert info.class_names == ("tench", "goldfish")  # of the list that ships with the project
    assert "a subset of 2 of 1,000 classes" in info.source
    place = official.train.where(21)
    assert place == f"n01443537.tar/n01443537_1.JPEG in {folder / 'ILSVRC2012_img_train.tar'}"
    assert official.train.columns() == {}


@pytest.mark.parametrize("val_in_folders", [True, False])
def test_trees_give_the_same(unpack, tars, val_in_folders):
    folder = unpack(val_in_folders)
    official = imagenet.load(folder)
    check(official, tars[1])
    assert official.train.where(0) == str(folder / "train/n01440764/n01440764_0.JPEG")


def test_in_a_folder_of_its_own_and_as_kaggle_lays_it(unpack, tars, tmp_path):
    folder = unpack(False, "ILSVRC/Data/CLS-LOC")
    (folder / LABELS).unlink()
    solution = [f"ILSVRC2012_val_{i:08d},{WNIDS[i % 3 == 1]} 1 2 3 4" for i in range(6, 0, -1)]
    text = "\n".join(["ImageId,PredictionString", *solution])
    (folder / "LOC_val_solution.csv").write_text(text)
    mapping = "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n"
    (folder / "LOC_synset_mapping.txt").write_text(mapping)
    folder.rename(tmp_path / "imagenet")
    official = imagenet.load(tmp_path)
    check(official, tars[1])
    assert official.info.class_names == ("tench", "goldfish")


def test_a_prepared_folder_comes_first(tars, tmp_path):
    folder, files = tars
    official = imagenet.load(folder)
    preparing.prepare(official, tmp_path / "root" / "imagenet", preparing.Settings(), "again")
    shutil.copy(folder / "ILSVRC2012_img_train.tar", tmp_path / "root")
    again = imagenet.load(tmp_path / "root")
    assert isinstance(again.train, prepared.PreparedImages)
    check(again, files)


def test_the_devkits_numbers_are_not_the_labels(tars, monkeypatch):
    from scipy.io import savemat

    folder, files = tars
    (folder / LABELS).unlink()
    table = np.array(
        [(1, "n01443537", "crane"), (2, "n01440764", "crane, bird")],
        dtype=[("ILSVRC2012_ID", "i4"), ("WNID", "O"), ("words", "O")],
    )
    inside = folder / "ILSVRC2012_devkit_t12" / "data"
    inside.mkdir(parents=True)
    savemat(inside / "meta.mat", {"synsets": table})
    truth = inside / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("1\n2\n2\n1\n2\n2\n")
    official = imagenet.load(folder)
    check(official, files)
    # Two classes of ImageNet are called "crane", and two "maillot".
    assert official.info.class_names == ("crane (n01440764)", "crane (n01443537)")

    import tarfile

    with tarfile.open(folder / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as devkit:
        devkit.add(inside.parent, "ILSVRC2012_devkit_t12")
    shutil.rmtree(inside.parent)
    check(imagenet.load(folder), files)


def test_the_list_of_tfds_is_read_where_nothing_else_is(tars, monkeypatch):
    folder, files = tars
    moved = (folder / LABELS).rename(folder / "elsewhere.txt")
    monkeypatch.setattr(synsets, "_tfds_list", lambda: moved)
    check(imagenet.load(folder), files)


def test_the_list_that_tfds_ships_is_whole(monkeypatch):
    monkeypatch.undo()
    listed = synsets._tfds_list().read_text().split()
    assert len(listed) == 50_000 and len(set(listed)) == 1_000
    assert listed[:2] == ["n01751748", "n09193705"]  # ILSVRC2012_val_00000001.JPEG, a sea snake


def test_through_the_front_door(tars):
    folder, _ = tars
    config = DataConfig(dataset="imagenet", root=str(folder), validation="10")
    with pytest.raises(UserError, match=r"differ in size.*--config\.data\.image_size=224"):
        data.load(config)
    config.image_size, config.crop = 16, "inception"
    dataset = data.load(config)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (30, 10, 6)
    words = np.arange(8, dtype=np.uint64)
    assert dataset.train.gather(np.arange(8), words)["image"].shape == (8, 16, 16, 3)
    config.channels = 1
    grey = data.load(config)
    assert grey.info.image_shape == (16, 16, 1) and len(grey.info.mean) == len(grey.info.std) == 1
    assert grey.train.gather(np.arange(2))["image"].shape == (2, 16, 16, 1)


def test_validation_images_of_classes_that_are_not_there_are_left_out(unpack):
    folder = unpack(False)
    shutil.rmtree(folder / "train" / WNIDS[0])
    official = imagenet.load(folder)
    assert official.test.labels().tolist() == [0, 0] and official.info.num_classes == 1
    assert "4 validation images of other classes left out" in official.info.source
    assert official.test.where(1).endswith("ILSVRC2012_val_00000004.JPEG")


def test_missing_parts_and_labels_say_what_to_do(tars, tmp_path):
    folder, _ = tars
    with pytest.raises(UserError, match=r"train images are not in .*ILSVRC2012_img_train\.tar"):
        imagenet.load(tmp_path / "nothing")
    labels = (folder / LABELS).read_text()
    (folder / LABELS).write_text(labels[:30])
    with pytest.raises(UserError, match=r"ILSVRC2012_val_00000004 of .* lines 1 to 3"):
        imagenet.load(folder)
    (folder / LABELS).write_text("1\n2\n")
    with pytest.raises(UserError, match="holds '1'; expected a WordNet id"):
        imagenet.load(folder)
    (folder / LABELS).write_text("n99999999\n" * 6)
    with pytest.raises(UserError, match="belong to different data sets"):
        imagenet.load(folder)
    (folder / LABELS).unlink()
    with pytest.raises(UserError, match=r"labels of .*val\.tar are not known.*LOC_val_solution"):
        imagenet.load(folder)
    (folder / "ILSVRC2012_img_val.tar").unlink()
    with pytest.raises(UserError, match="ImageNet's val images"):
        imagenet.load(folder)


def test_a_stray_image_is_named(unpack, jpeg):
    folder = unpack(True)
    (folder / "train" / "cats").mkdir()
    (folder / "train" / "cats" / "1.jpeg").write_bytes(jpeg(0))
    with pytest.raises(UserError, match=r"cats/1\.jpeg in .* lies in no class's folder"):
        imagenet.load(folder)


def test_an_image_that_went_away(unpack):
    folder = unpack(True)
    official = imagenet.load(folder)
    (folder / "train" / TRAIN[3]).unlink()
    with pytest.raises(UserError, match=r"Cannot read .*n01440764"):
        official.train.encoded(3)


def test_decoded_pixels_are_pillows(tars):
    folder, files = tars
    dataset = data.load(
        DataConfig(dataset="imagenet", root=str(folder), image_size=20, validation="0")
    )
    import io

    image = Image.open(io.BytesIO(files[TRAIN[7]])).resize((20, 20), Image.Resampling.BILINEAR)
    assert (dataset.train[7]["image"] == np.asarray(image)).all()
