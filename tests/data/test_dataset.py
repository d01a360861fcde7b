import numpy as np
import pytest

from imgrec.data.dataset import ArraySource, channel_statistics


def test_split_reads_its_rows_of_the_source(make_split):
    split = make_split(4)
    assert len(split) == 4
    assert split.labels().tolist() == [1, 3, 5, 7]
    assert split.labels().dtype == np.int32
    example = split[2]
    assert example["label"] == 5 and example["label"].dtype == np.int32
    assert example["image"].dtype == np.uint8 and (example["image"] == 5).all()
    batch = split.gather(np.array([3, 0, 3]))
    assert batch["label"].tolist() == [7, 1, 7]
    assert batch["image"][:, 0, 0, 0].tolist() == [7, 1, 7]


def test_split_can_be_iterated(make_split):
    assert [int(example["label"]) for example in make_split(3)] == [1, 3, 5]


def test_array_source_is_read_only_but_gathers_copies(make_split):
    source = make_split(2).source
    with pytest.raises(ValueError, match="read-only"):
        source[0]["image"][:] = 9
    batch = source.gather(np.array([1]))
    batch["image"][:] = 9
    assert (source[1]["image"] == 1).all()


def test_statistics_are_numpys():
    images = np.random.default_rng(0).integers(0, 256, (20, 5, 4, 3), dtype=np.uint8)
    mean, std = channel_statistics(ArraySource(images, np.zeros(20, np.int32)), sample=20)
    scaled = images / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std((0, 1, 2)), rtol=1e-12)


def test_statistics_of_a_sample_read_rows_at_equal_distances():
    images = np.arange(10, dtype=np.uint8)[:, None, None, None]
    mean, _ = channel_statistics(ArraySource(images, np.zeros(10, np.int32)), sample=4)
    np.testing.assert_allclose(mean, np.mean([0, 2, 5, 7]) / 255)
