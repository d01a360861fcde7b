"""Noise stands in for data sets."""

import numpy as np

from imgrec.benchmarking import synthetic


def test_noise_has_the_shape_of_the_data_set_that_is_not_read(tiny, tmp_path):
    tiny.data.root = str(tmp_path)
    for name, shape, classes in (
        ("cifar100", (32, 32, 3), 100),
        ("mnist", (28, 28, 1), 10),
        ("digits", (8, 8, 1), 10),
    ):
        tiny.data.dataset = name
        found = synthetic.dataset(tiny.data, 6)
        assert (found.info.image_shape, found.info.num_classes) == (shape, classes)
        assert len(found.train) == 6 and found.train[0]["image"].shape == shape
    tiny.data.dataset, tiny.data.image_size = "imagenet", 16
    assert synthetic.dataset(tiny.data, 1).info.image_shape == (16, 16, 3)


def test_noise_is_the_same_every_time(tiny):
    one, other = (synthetic.dataset(tiny.data, 5) for _ in range(2))
    np.testing.assert_array_equal(one.train.source.images, other.train.source.images)
    np.testing.assert_array_equal(one.test.labels(), other.test.labels())
    assert one.train.source.images.std() > 60  # of all values alike: 73.9
