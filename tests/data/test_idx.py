import gzip
import struct

import numpy as np
import pytest

from imgrec.data import idx
from imgrec.errors import UserError

NAMES = [
    f"{part}-ubyte"
    for part in (
        "train-images-idx3",
        "train-labels-idx1",
        "t10k-images-idx3",
        "t10k-labels-idx1",
    )
]


@pytest.mark.parametrize("variant", [idx.MNIST, idx.FASHION_MNIST])
@pytest.mark.parametrize("folder", ["", "{name}"])
def test_reads_what_was_written(tmp_path, write_idx, variant, folder):
    written = write_idx(tmp_path / folder.format(name=variant.name))
    official = idx.load(variant, tmp_path)
    for source, part, suffix in ((official.train, "train", ".gz"), (official.test, "t10k", "")):
        assert (source.images[..., 0] == written[f"{part}-images-idx3-ubyte{suffix}"]).all()
        assert (source.labels() == written[f"{part}-labels-idx1-ubyte{suffix}"]).all()
    assert official.info.image_shape == (28, 28, 1)
    assert len(official.info.class_names) == official.info.num_classes == 10


def test_reads_debians_folder_and_names_with_a_dot(tmp_path, write_idx):
    folder = tmp_path / "fashion-mnist"
    write_idx(folder)
    for path in folder.iterdir():
        path.rename(folder / path.name.replace("-idx", ".idx"))
    assert len(idx.load(idx.FASHION_MNIST, tmp_path).train) == 60


def test_the_folder_named_after_the_data_set_comes_first(tmp_path, write_idx):
    write_idx(tmp_path)
    write_idx(tmp_path / "mnist")
    assert str(tmp_path / "mnist") in idx.load(idx.MNIST, tmp_path).info.source


@pytest.mark.parametrize("absent", range(4))
def test_a_missing_file_is_named(tmp_path, write_idx, absent):
    write_idx(tmp_path)
    for path in tmp_path.glob(NAMES[absent] + "*"):
        path.unlink()
    with pytest.raises(UserError, match=f"Missing: {NAMES[absent]}. .* holds "):
        idx.load(idx.MNIST, tmp_path)


def test_an_empty_folder_is_told_all_names(tmp_path):
    with pytest.raises(UserError, match="holds nothing") as error:
        idx.load(idx.MNIST, tmp_path)
    assert all(name in str(error.value) for name in NAMES)


def test_the_files_of_the_other_data_set_are_refused(tmp_path, write_idx, idx_bytes):
    write_idx(tmp_path)
    # Any image as bright as Fashion-MNIST is on average.
    images = np.full((60, 28, 28), round(0.2860 * 255))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(images))
    assert len(idx.load(idx.FASHION_MNIST, tmp_path).train) == 60
    with pytest.raises(UserError, match="holds the images of 'fashion_mnist', not of 'mnist'"):
        idx.load(idx.MNIST, tmp_path)


def header(*shape, magic=0x0803):
    return struct.pack(f">{1 + len(shape)}I", magic, *shape)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "magic number 0x, expected 0x00000803"),
        (b"<html>404</html>", "magic number 0x3c68746d, expected 0x00000803"),
        (header(2, magic=0x0801) + b"\0\1", "magic number 0x00000801, expected 0x00000803"),
        (header(2, 28, 28, magic=0x0D03), "magic number 0x00000d03"),
        (header(2, 28), "ends within its header, after 12 bytes"),
        (header(2, 28, 28) + bytes(1000), "expected 1,568 bytes, got 1,000"),
        (header(2, 28, 28) + bytes(1569), "expected 1,568 bytes, there are more"),
        (header(2**32 - 1, 28, 28) + bytes(5), "expected 3,367,254,359,280 bytes, got 5"),
        # Of no time, so that every worker of the tests collects the same name.
        (
            gzip.compress(header(2, 28, 28) + bytes(1568), mtime=0)[:-12],
            "gzip compression is broken",
        ),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_files_are_named_with_what_is_wrong(tmp_path, content, message, compressed):
    path = tmp_path / "train-images-idx3-ubyte"
    compressed = compressed and "gzip" not in message
    path.write_bytes(gzip.compress(content) if compressed else content)
    with pytest.raises(UserError, match=message) as error:
        idx.read(path, axes=3)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ((60, 28, 28), np.zeros(59), "60 images and .* 59 labels"),
        ((0, 28, 28), np.zeros(0), "0 images and .* 0 labels"),
        ((60, 32, 28), np.zeros(60), "images are 32x28, expected 28x28"),
        ((60, 28, 28), np.arange(60) // 5, "label 10 of example 50 is out of range, .* 0 to 9"),
    ],
)
def test_files_that_do_not_fit_together(tmp_path, write_idx, idx_bytes, images, labels, message):
    write_idx(tmp_path)
    # The plain files win over the compressed ones that lie beside them.
    (tmp_path / NAMES[0]).write_bytes(idx_bytes(np.zeros(images)))
    (tmp_path / NAMES[1]).write_bytes(idx_bytes(labels))
    with pytest.raises(UserError, match=message):
        idx.load(idx.MNIST, tmp_path)
