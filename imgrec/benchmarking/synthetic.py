"""Random images in the place of a data set's, for measurements that need no files."""

import numpy as np

from imgrec import data
from imgrec.config import DataConfig
from imgrec.data import ArraySource, Dataset, Info, Split
from imgrec.data.sampling import shuffled

# Height (and width), channels and classes as published.
_PUBLISHED = {
    "cifar10": (32, 3, 10),
    "cifar100": (32, 3, 100),
    "digits": (8, 1, 10),
    "fashion_mnist": (28, 1, 10),
    "imagenet": (0, 3, 1000),
    "mnist": (28, 1, 10),
}


def dataset(config: DataConfig, examples: int) -> Dataset:
    """Noise of the shape and with the classes of the data set that is named; the same every time.

    Only of a set whose shape is not known beforehand the files are read.

    Args:
      config: of the data.
      examples: in each split.
    """
    (height, width, channels), classes = _shape(config)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (examples, height, width, channels), dtype=np.uint8)
    labels = rng.integers(0, classes, examples)
    source, rows = ArraySource(images, labels), np.arange(examples)
    info = Info(
        name=f"noise like {config.dataset}",
        num_classes=classes,
        class_names=tuple(f"class {i}" for i in range(classes)),
        image_shape=(height, width, channels),
        mean=(0.5,) * channels,
        std=(0.3,) * channels,
        source="drawn at random",
    )
    return Dataset(
        train=Split("train", source, rows),
        validation=Split("validation", source, rows),
        test=Split("test", source, rows),
        info=info,
        sampling=shuffled(examples),
    )


def _shape(config: DataConfig) -> tuple[tuple[int, int, int], int]:
    published = _PUBLISHED.get(config.dataset)
    if published is None or not (config.image_size or published[0]):
        info = data.load(config).info
        return info.image_shape, info.num_classes
    side, channels, classes = published
    side = config.image_size or side
    return (side, side, config.channels or channels), classes
