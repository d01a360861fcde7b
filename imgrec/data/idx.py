"""MNIST and Fashion-MNIST from their official IDX files, plain or compressed with gzip.

The format is described at the end of http://yann.lecun.com/exdb/mnist: two zero bytes, a type
(0x08, unsigned byte), the number of axes, the length of each axis as a big-endian 32-bit
integer, then the values.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from imgrec.data import official
from imgrec.data.dataset import ArraySource, Info, Official
from imgrec.errors import UserError

_SIDE = 28
_STEMS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


@dataclass(frozen=True)
class Variant:
    """A data set of 28x28 grey images in ten classes, in the four files of MNIST."""

    name: str
    class_names: tuple[str, ...]
    mean: float
    std: float


MNIST = Variant("mnist", tuple("0123456789"), 0.1307, 0.3081)
FASHION_MNIST = Variant(
    "fashion_mnist",
    (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    0.2860,
    0.3530,
)


def load(variant: Variant, root: Path) -> Official:
    """Reads the four files from `root` or `root/<name>`.

    Raises:
      UserError: a file is missing, damaged or of another data set.
    """
    paths = _find(variant, root)
    train, test = (_read_pair(paths[i], paths[i + 1], len(variant.class_names)) for i in (0, 2))
    _refuse_the_other(variant, train.images, paths[0])
    info = Info(
        name=variant.name,
        num_classes=len(variant.class_names),
        class_names=variant.class_names,
        image_shape=(_SIDE, _SIDE, 1),
        mean=(variant.mean,),
        std=(variant.std,),
        source=f"official IDX files in {paths[0].parent}, official train and test split",
    )
    return Official(train, test, info)


def read(path: Path, axes: int) -> UInt8[np.ndarray, "..."]:
    """Reads one IDX file of unsigned bytes with the given number of axes.

    Raises:
      UserError: the file cannot be read, or is not such a file in full.
    """
    with official.opened(path) as stream:
        header = official.read(stream, 4 + 4 * axes)
        magic = struct.pack(">HBB", 0, 0x08, axes)
        if header[:4] != magic:
            raise official.damaged(
                path,
                f"it starts with the magic number 0x{header[:4].hex()}, expected "
                f"0x{magic.hex()} (IDX, unsigned bytes, axes: {axes})",
            )
        if len(header) < 4 + 4 * axes:
            raise official.damaged(path, f"it ends within its header, after {len(header)} bytes")
        shape = struct.unpack(f">{axes}I", header[4:])
        size = math.prod(shape)
        # One byte more than expected: it shows trailing bytes, and makes gzip check its sum.
        values = official.read(stream, size + 1)
    if len(values) != size:
        got = f"got {len(values):,}" if len(values) < size else "there are more"
        raise official.damaged(path, f"for the shape {shape} expected {size:,} bytes, {got}")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _find(variant: Variant, root: Path) -> list[Path]:
    absent: list[str] = []
    for folder in official.folders(root, variant.name):
        paths = [_find_one(folder, stem) for stem in _STEMS]
        there = [path for path in paths if path is not None]
        if len(there) == len(_STEMS):
            return there
        if there and not absent:
            absent = [f"{s}-ubyte" for s, path in zip(_STEMS, paths, strict=True) if path is None]
    expected = ", ".join(f"{stem}-ubyte" for stem in _STEMS) + ", each plain or with .gz"
    raise official.missing(variant.name, root, expected, absent)


def _find_one(folder: Path, stem: str) -> Path | None:
    # Some mirrors and unpackers write a dot where the official name has a dash.
    for name in (f"{stem}-ubyte", f"{stem[:-5]}.{stem[-4:]}-ubyte"):
        for suffix in ("", ".gz"):
            if (folder / (name + suffix)).is_file():
                return folder / (name + suffix)
    return None


def _read_pair(images_path: Path, labels_path: Path, num_classes: int) -> ArraySource:
    images, labels = read(images_path, axes=3), read(labels_path, axes=1)
    if images.shape[1:] != (_SIDE, _SIDE):
        raise official.damaged(
            images_path,
            f"its images are {images.shape[1]}x{images.shape[2]}, expected {_SIDE}x{_SIDE}",
        )
    if len(images) != len(labels) or len(images) == 0:
        raise UserError(
            f"{images_path} holds {len(images):,} images and {labels_path} {len(labels):,} labels; "
            "expected one label for each image, and at least one. Fetch both again."
        )
    if labels.max() >= num_classes:
        at = int(np.argmax(labels >= num_classes))
        raise official.damaged(
            labels_path,
            f"label {labels[at]} of example {at} is out of range, expected 0 to {num_classes - 1}",
        )
    return ArraySource(images[..., None], labels)


def _refuse_the_other(variant: Variant, images: np.ndarray, path: Path) -> None:
    # The two data sets have the same file names and sizes; only their brightness tells a
    # folder that holds one from a folder that holds the other.
    brightness = float(images.mean()) / 255
    for other in (MNIST, FASHION_MNIST):
        if other != variant and abs(brightness - other.mean) < 1e-3:
            raise UserError(
                f"{path} holds the images of {other.name!r}, not of {variant.name!r}. Set "
                f"--config.data.dataset={other.name}, or put the files of {variant.name!r} into a "
                f"folder of their own, named {variant.name}."
            )
