"""CIFAR-10 and CIFAR-100 from the official binary version, as an archive or unpacked.

Described at https://www.cs.toronto.edu/~kriz/cifar.html: records of one label byte (CIFAR-10)
or a coarse and a fine label byte (CIFAR-100), then 32x32 red, green and blue values, a plane
each, row by row. The archive is read as a stream and never unpacked to disk.
"""

import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int32, UInt8

from imgrec.data import official
from imgrec.data.dataset import ArraySource, Info, Official, channel_statistics

_SHAPE = (32, 32, 3)
_IMAGE_BYTES = 32 * 32 * 3


@dataclass(frozen=True)
class Variant:
    """One of the two data sets.

    Attributes:
      name: of the data set.
      archive: file name of the binary version.
      folder: that the archive unpacks to.
      train: records in each training file, by file name, in order.
      test: records in each test file.
      label_ranges: number of values of each label byte of a record; the last is the label.
      class_names: by label.
      statistics: published (mean, std) per channel; None has them computed.
    """

    name: str
    archive: str
    folder: str
    train: Mapping[str, int]
    test: Mapping[str, int]
    label_ranges: tuple[int, ...]
    class_names: tuple[str, ...]
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None


_CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
    crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house
    kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
    mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree
    plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark
    shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table
    tank telephone television tiger tractor train trout tulip turtle wardrobe whale
    willow_tree wolf woman worm
"""

CIFAR10 = Variant(
    name="cifar10",
    archive="cifar-10-binary.tar.gz",
    folder="cifar-10-batches-bin",
    train={f"data_batch_{i}.bin": 10_000 for i in range(1, 6)},
    test={"test_batch.bin": 10_000},
    label_ranges=(10,),
    class_names=tuple(_CIFAR10_CLASSES.split()),
    statistics=((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
)
CIFAR100 = Variant(
    name="cifar100",
    archive="cifar-100-binary.tar.gz",
    folder="cifar-100-binary",
    train={"train.bin": 50_000},
    test={"test.bin": 10_000},
    label_ranges=(20, 100),
    class_names=tuple(_CIFAR100_CLASSES.split()),
    statistics=None,
)


def load(variant: Variant, root: Path) -> Official:
    """Reads the data set from `root` or `root/<name>`: unpacked files, else the archive.

    Raises:
      UserError: files are missing, damaged or of another data set.
    """
    path, contents = _find(variant, root)
    read = dict(contents)
    absent = [name for name in (*variant.train, *variant.test) if name not in read]
    if absent:
        raise official.damaged(path, f"it does not hold {', '.join(absent)}")
    train, test = (
        ArraySource(*map(np.concatenate, zip(*(read[name] for name in names), strict=True)))
        for names in (variant.train, variant.test)
    )
    mean, std = variant.statistics or channel_statistics(train, sample=len(train))
    info = Info(
        name=variant.name,
        num_classes=len(variant.class_names),
        class_names=variant.class_names,
        image_shape=_SHAPE,
        mean=mean,
        std=std,
        source=f"official binary version in {path}, official train and test split",
    )
    return Official(train, test, info)


Contents = Iterable[tuple[str, tuple[UInt8[np.ndarray, "n 32 32 3"], Int32[np.ndarray, "n"]]]]


def _find(variant: Variant, root: Path) -> tuple[Path, Contents]:
    names = (*variant.train, *variant.test)
    absent: list[str] = []
    for base in official.folders(root, variant.name):
        for folder in (base / variant.folder, base):
            there = [name for name in names if (folder / name).is_file()]
            if len(there) == len(names):
                return folder, _read_folder(variant, folder)
            if there and not absent:
                absent = [str(folder / name) for name in names if name not in there]
        if (base / variant.archive).is_file():
            return base / variant.archive, _read_archive(variant, base / variant.archive)
    python_version = variant.archive.replace("binary", "python")
    hint = ""
    if any((base / python_version).exists() for base in official.folders(root, variant.name)):
        hint = f"{python_version} is the version for Python's pickle; the binary one is needed."
    expected = f"{variant.archive}, or its files {', '.join(names)}, in {variant.folder} or not"
    raise official.missing(variant.name, root, expected, absent, hint)


def _read_folder(variant: Variant, folder: Path) -> Iterator:
    for name, records in {**variant.train, **variant.test}.items():
        # One byte more than a whole file, so that a longer one is noticed.
        with official.opened(folder / name) as stream:
            content = official.read(stream, _size(variant, records) + 1)
        yield name, _decode(variant, folder / name, records, content)


def _read_archive(variant: Variant, archive: Path) -> Iterator:
    wanted = {**variant.train, **variant.test}
    with official.opened(archive) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for member in tar:
                    name = PurePosixPath(member.name).name
                    # isfile first: a link would be looked up elsewhere in the archive.
                    file = tar.extractfile(member) if member.isfile() else None
                    if file is not None and name in wanted:
                        content = official.read(file, _size(variant, wanted[name]) + 1)
                        path = archive / member.name
                        yield name, _decode(variant, path, wanted[name], content)
        except tarfile.TarError as error:
            raise official.damaged(archive, f"its tar format is broken ({error})") from None
        # gzip compares its check sum only at the end, which lies behind the last member.
        while stream.read(1 << 20):
            pass


def _size(variant: Variant, records: int) -> int:
    return records * (len(variant.label_ranges) + _IMAGE_BYTES)


def _decode(
    variant: Variant, path: Path, records: int, content: bytes
) -> tuple[UInt8[np.ndarray, "n 32 32 3"], Int32[np.ndarray, "n"]]:
    size = _size(variant, records)
    if len(content) != size:
        got = f"got {len(content):,}" if len(content) < size else "there are more"
        raise official.damaged(path, f"expected {size:,} bytes ({records:,} records), {got}")
    table = np.frombuffer(content, np.uint8).reshape(records, -1)
    labels = len(variant.label_ranges)
    for column, limit in enumerate(variant.label_ranges):
        if table[:, column].max() >= limit:
            at = int(np.argmax(table[:, column] >= limit))
            raise official.damaged(
                path,
                f"label {table[at, column]} of record {at} is out of range, "
                f"expected 0 to {limit - 1}",
            )
    planes = table[:, labels:].reshape(records, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), table[:, labels - 1].astype(np.int32)
