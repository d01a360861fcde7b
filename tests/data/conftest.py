"""Tiny data sets in the official file formats, written where a test asks for them."""

import dataclasses
import gzip
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imgrec.data import cifar
from imgrec.data.dataset import ArraySource, Split


@pytest.fixture
def idx_bytes() -> Callable[[np.ndarray], bytes]:
    """idx_bytes(values): an IDX file of unsigned bytes."""

    def encode(values: np.ndarray) -> bytes:
        header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
        return header + values.astype(np.uint8).tobytes()

    return encode


@pytest.fixture
def write_idx(idx_bytes) -> Callable[[Path], dict[str, np.ndarray]]:
    """write_idx(folder): 60 training images, compressed, and 20 for testing; returns them."""

    def write(folder: Path) -> dict[str, np.ndarray]:
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 256, (80, 28, 28), dtype=np.uint8)
        contents = {
            "train-images-idx3-ubyte.gz": pixels[:60],
            "train-labels-idx1-ubyte.gz": np.arange(60) % 10,
            "t10k-images-idx3-ubyte": pixels[60:],
            "t10k-labels-idx1-ubyte": np.arange(20) % 10,
        }
        for name, values in contents.items():
            content = idx_bytes(values)
            (folder / name).write_bytes(gzip.compress(content) if ".gz" in name else content)
        return contents

    return write


@pytest.fixture
def write_cifar() -> Callable[[cifar.Variant, Path], dict[str, np.ndarray]]:
    """write_cifar(variant, folder): its .bin files; returns their records as [n, bytes].

    Pixels are random; every label byte runs through all its values.
    """

    def write(variant: cifar.Variant, folder: Path) -> dict[str, np.ndarray]:
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        contents = {}
        for name, n in {**variant.train, **variant.test}.items():
            labels = [np.arange(n) % limit for limit in variant.label_ranges]
            pixels = rng.integers(0, 256, (n, 3072))
            contents[name] = np.column_stack([*labels, pixels]).astype(np.uint8)
            (folder / name).write_bytes(contents[name].tobytes())
        return contents

    return write


@pytest.fixture
def small_cifar(monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10 and CIFAR-100 of few records a file, because the official ones are 180 MB."""
    for name, records in (("CIFAR10", 20), ("CIFAR100", 200)):
        variant = getattr(cifar, name)
        smaller = dataclasses.replace(
            variant,
            train=dict.fromkeys(variant.train, records),
            test=dict.fromkeys(variant.test, records),
        )
        monkeypatch.setattr(cifar, name, smaller)


@pytest.fixture
def make_split() -> Callable[..., Split]:
    """make_split(n): a split over a larger source, whose image i is filled with the label i."""

    def make(n: int) -> Split:
        rows = np.arange(2 * n)
        images = np.broadcast_to(rows.astype(np.uint8)[:, None, None, None], (2 * n, 2, 2, 3))
        return Split("train", ArraySource(images.copy(), rows), np.arange(1, 2 * n, 2))

    return make


@pytest.fixture(scope="session")
def tfds_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which TFDS has prepared the small sets that tests ask for by name."""
    root = tmp_path_factory.mktemp("tfds")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_datasets as tfds

        label = tfds.features.ClassLabel(names=["ant", "bee", "cat"])

        def prepare(dataset, features, splits, file_format="array_record"):
            class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
                # TFDS looks for files beside a builder's module, unless the module has no parent.
                __module__ = "nowhere"
                name = dataset
                VERSION = tfds.core.Version("1.0.0")

                def _info(self):
                    return tfds.core.DatasetInfo(
                        builder=self, features=tfds.features.FeaturesDict(features)
                    )

                def _split_generators(self, _):
                    return {split: enumerate(examples) for split, examples in splits.items()}

                def _generate_examples(self):
                    raise NotImplementedError

            Builder(data_dir=root, file_format=file_format).download_and_prepare()

        def even(n):
            return [
                {"image": np.full((6, 5, 1), 10 * i, np.uint8), "label": i % 3} for i in range(n)
            ]

        def uneven(n, labels):
            return [
                {"image": np.full((4 + i, 7, 3), 10 * i, np.uint8), "label": label}
                for i, label in zip(range(n), labels, strict=True)
            ]

        grey = {"image": tfds.features.Image(shape=(6, 5, 1)), "label": label}
        colour = {"image": tfds.features.Image(shape=(None, None, 3)), "label": label}
        prepare("even", grey, {"train": even(12), "test": even(6)})
        unlabelled = {
            "train": uneven(9, [0, 1, 2] * 3),
            "test": uneven(3, [-1] * 3),
            "validation": uneven(6, [0, 1, 2] * 2),
        }
        prepare("uneven", colour, unlabelled)
        box = {"image": grey["image"], "box": tfds.features.BBoxFeature()}
        corners = tfds.features.BBox(0.0, 0.0, 1.0, 1.0)
        boxed = [{"image": np.zeros((6, 5, 1), np.uint8), "box": corners}]
        prepare("boxes", box, {"train": boxed, "test": boxed})
        four = {"image": tfds.features.Image(shape=(6, 5, 4)), "label": label}
        seen = [{"image": np.full((6, 5, 4), i, np.uint8), "label": i % 3} for i in range(6)]
        prepare("rgba", four, {"train": seen, "test": seen})
        deep = {"image": tfds.features.Image(shape=(6, 5, 1), dtype=np.uint16), "label": label}
        sixteen = [{"image": np.zeros((6, 5, 1), np.uint16), "label": 0}]
        prepare("deep", deep, {"train": sixteen, "test": sixteen})
        prepare("old_format", grey, {"train": even(3), "test": even(3)}, "tfrecord")
    return root
