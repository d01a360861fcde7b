import re
import sys

import numpy as np
import pytest

from imgrec.config import DataConfig
from imgrec.data import load, tfds
from imgrec.errors import UserError

# TFDS and what it imports warn about themselves.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_reads_what_was_prepared(tfds_root):
    official = tfds.load("even", tfds_root)
    assert (len(official.train), len(official.test)) == (12, 6)
    # TFDS shuffles as it prepares; image i was filled with 10 * i and labelled i % 3.
    values = []
    for row in range(12):
        example = official.train[row]
        assert example["image"].dtype == np.uint8 and example["image"].shape == (6, 5, 1)
        values.append(int(example["image"][0, 0, 0]))
        assert (example["image"] == values[-1]).all()
        assert example["label"] == values[-1] // 10 % 3 and example["label"].dtype == np.int32
    assert sorted(values) == [10 * i for i in range(12)]
    assert (official.train.labels() == np.array(values) // 10 % 3).all()
    batch = official.train.gather(np.array([5, 2]))
    assert batch["image"][:, 0, 0, 0].tolist() == [values[5], values[2]]
    assert batch["label"].tolist() == [values[5] // 10 % 3, values[2] // 10 % 3]

    info = official.info
    assert info.class_names == ("ant", "bee", "cat") and info.num_classes == 3
    assert info.image_shape == (6, 5, 1)
    np.testing.assert_allclose(info.mean, np.mean(values) / 255)
    np.testing.assert_allclose(info.std, np.std(values) / 255)


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
    unlabelled = tfds.TfdsSource(tfds._import_tfds(), builder, "test", "image", "label")
    for read in (unlabelled.labels, lambda: unlabelled[0]):
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
