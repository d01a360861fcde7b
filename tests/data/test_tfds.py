import re
import sys

import numpy as np
import pytest

from imgrec.config import DataConfig
from imgrec.data import load, tfds
from imgrec.data.dataset import Encoded
from imgrec.data.view import View, viewed
from imgrec.errors import UserError

# TFDS and what it imports warn about themselves.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_reads_what_was_prepared(tfds_root):
    official = tfds.load("even", tfds_root)
    assert (len(official.train), len(official.test)) == (12, 6)
    assert isinstance(official.train, Encoded)
    # TFDS shuffles as it prepares; image i was filled with 10 * i and labelled i % 3.
    source = viewed(official.train, View(0, 1))
    values = []
    for row in range(12):
        assert official.train.encoded(row).startswith(b"\x89PNG")
        example = source[row]
        assert example["image"].dtype == np.uint8 and example["image"].shape == (6, 5, 1)
        values.append(int(example["image"][0, 0, 0]))
        assert (example["image"] == values[-1]).all()
        assert example["label"] == values[-1] // 10 % 3 and example["label"].dtype == np.int32
    assert sorted(values) == [10 * i for i in range(12)]
    assert (official.train.labels() == np.array(values) // 10 % 3).all()
    batch = source.gather(np.array([5, 2]))
    assert batch["image"][:, 0, 0, 0].tolist() == [values[5], values[2]]
    assert batch["label"].tolist() == [values[5] // 10 % 3, values[2] // 10 % 3]
    assert official.train.where(3) == "example 3 of even/1.0.0, split 'train'"
    assert official.train.columns() == {}

    info = official.info
    assert info.class_names == ("ant", "bee", "cat") and info.num_classes == 3
    assert info.image_shape == (6, 5, 1)
    np.testing.assert_allclose(info.mean, np.mean(values) / 255)
    np.testing.assert_allclose(info.std, np.std(values) / 255)


def test_the_files_are_what_tfds_itself_decodes(tfds_root):
    builder = tfds._prepared_builder(tfds._import_tfds(), "uneven", tfds_root)
    theirs = tfds.TfdsSource(tfds._import_tfds(), builder, "train", "image", "label")
    ours = viewed(tfds.load("uneven", tfds_root).train, View(0, 3))
    for row in range(9):
        assert (ours[row]["image"] == theirs[row]["image"]).all()
        assert ours[row]["label"] == theirs[row]["label"]


def test_channels_convert(tfds_root):
    official = tfds.load("uneven", tfds_root, channels=1)
    assert official.info.image_shape == (0, 0, 1) and len(official.info.mean) == 1
    config = DataConfig(dataset="tfds:even", root=str(tfds_root), validation="3", channels=3)
    assert load(config).train[0]["image"].shape == (6, 5, 3)


def test_four_channels_are_kept(tfds_root):
    official = tfds.load("rgba", tfds_root)
    assert not isinstance(official.train, Encoded)
    assert official.info.image_shape == (6, 5, 4) and len(official.info.mean) == 4
    batch = official.train.gather(np.arange(3))
    assert batch["image"].shape == (3, 6, 5, 4) and batch["label"].tolist() == [
        official.train[row]["label"] for row in range(3)
    ]
    with pytest.raises(UserError, match=r"have 4 channels, which are kept.*channels=3"):
        tfds.load("rgba", tfds_root, channels=3)


def test_deep_images_are_refused(tfds_root):
    with pytest.raises(UserError, match="images of 'tfds:deep' are uint16; expected uint8"):
        tfds.load("deep", tfds_root)


def test_mock_data_of_tfds():
    """TFDS's own stand-in for data, with which people test their pipelines."""
    import tensorflow_datasets

    with tensorflow_datasets.testing.mock_data(num_examples=7):
        builder = tensorflow_datasets.builder("imagenet2012")
        images = tfds.TfdsImages(tensorflow_datasets, builder, "train", "image", "label")
        assert len(images) == 7
        assert images.labels().shape == (7,) and images.labels().max() < 1000
        batch = viewed(images, View(16, 3, "inception")).gather(
            np.arange(7), np.arange(7, dtype=np.uint64)
        )
        assert batch["image"].shape == (7, 16, 16, 3)


def test_validation_stands_in_for_an_unlabelled_test(tfds_root):
    official = tfds.load("uneven", tfds_root)
    assert len(official.test) == 6
    assert "'validation' (test)" in official.info.source
    assert "'test' (test)" in tfds.load("even", tfds_root).info.source


def test_images_of_different_sizes_need_an_image_size(tfds_root):
    config = DataConfig(dataset="tfds:uneven", root=str(tfds_root), validation="3")
    with pytest.raises(UserError, match=r"differ in size.*--config\.data\.image_size=224"):
        load(config)
    config.image_size = 9
    dataset = load(config)
    assert dataset.info.image_shape == (9, 9, 3)
    batch = dataset.train.gather(np.arange(6))
    assert batch["image"].shape == (6, 9, 9, 3)
    assert sorted(np.bincount(batch["label"])) == [2, 2, 2]


def test_labels_out_of_range_are_named(tfds_root):
    official = tfds.load("uneven", tfds_root)
    builder = tfds._prepared_builder(tfds._import_tfds(), "uneven", tfds_root)
    keys = ("test", "image", "label")
    files = tfds.TfdsImages(tfds._import_tfds(), builder, *keys)
    decoded = tfds.TfdsSource(tfds._import_tfds(), builder, *keys)
    for read in (files.labels, decoded.labels, lambda: decoded[0]):
        with pytest.raises(UserError, match=r"label -1 of example 0 is out of range, .* 0 to 2"):
            read()
    assert official.train.labels().min() == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnist", "tfds build mnist --data_dir={root} --file_format=array_record"),
        ("old_format", "as tfrecord, which has no random access.*--file_format=array_record"),
        ("no_such_data", "knows no 'no_such_data'"),
        ("even:9.9.9", "knows no 'even:9.9.9'"),
        ("not a name", "refuses the name 'not a name'"),
        ("boxes", r"no image classification set: .* has box \(BBoxFeature\), image \(Image\)"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(tfds_root, name, message):
    pattern = "(?s)" + message.format(root=re.escape(str(tfds_root)))
    with pytest.raises(UserError, match=pattern):
        tfds.load(name, tfds_root)


def test_without_tfds_the_command_to_install_it_is_given(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match="pip install tensorflow-datasets array-record"):
        tfds.load("even", tmp_path)
