"""ImageNet (ILSVRC2012 classification) from what people have of it, unpacked or not.

Looked for are, in this order: a folder that `imgrec.prepare` wrote; trees with a folder a class
(`train/n01440764/*.JPEG`; `val` likewise or flat, in Kaggle's layout too); the official tars.
The official validation split is our test split, because the labels of the official test split
were never published; validation is cut from train.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int32, Int64, Shaped

from imgrec.data import archive, prepared, synsets
from imgrec.data.dataset import Encoded, Info, Official, channel_statistics
from imgrec.data.view import DecodedSource, View
from imgrec.errors import UserError

NUM_CLASSES = 1000
# Of the training images in RGB, as published with the models of Torchvision.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_EXTENSIONS = (".jpeg", ".jpg", ".png")
_STATISTICS_SAMPLE = 1_000
_TREES = {"train": ("train",), "val": ("val", "validation")}
_TARS = {
    "train": ("ILSVRC2012_img_train.tar", "train.tar"),
    "val": ("ILSVRC2012_img_val.tar", "val.tar"),
}


def load(root: Path, channels: int = 0) -> Official:
    """Opens the data set, from `root/imagenet` or `root`.

    Args:
      root: folder of data sets.
      channels: 1 or 3 that images are converted to; 0 is 3.

    Raises:
      UserError: a part is not there, is damaged or has no labels.
    """
    folders = [
        folder / inside
        for folder in (root / "imagenet", root)
        for inside in (".", "ILSVRC/Data/CLS-LOC", "ILSVRC", "ILSVRC2012_devkit_t12")
        if (folder / inside).is_dir()
    ]
    for folder in folders:
        if prepared.is_of(folder, "imagenet"):
            return prepared.load(folder, channels)
    train, val = _find("train", folders, root), _find("val", folders, root)
    train_wnids = np.array([_wnid(name) or "" for name in train.names])
    if "" in train_wnids:
        stray = train.names[int(np.argmax(train_wnids == ""))]
        raise UserError(
            f"{stray} in {train.place} lies in no class's folder; expected every training image "
            "in a folder (or archive) named after its WordNet id, as n01440764."
        )
    wnids, train_labels = np.unique(train_wnids, return_inverse=True)
    val_wnids = np.array(_validation_wnids(val, folders))
    kept = np.flatnonzero(np.isin(val_wnids, wnids))
    if not len(kept):
        raise UserError(
            f"No image of {val.place} is of a class of {train.place}, which has "
            f"{len(wnids)}: {', '.join(wnids[:3])}, ...; they belong to different data sets."
        )
    test_labels = np.searchsorted(wnids, val_wnids[kept])
    train_source = train.images(np.arange(len(train.names)), train_labels.astype(np.int32))
    test_source = val.images(kept, test_labels.astype(np.int32))
    channels = channels or len(MEAN)
    statistics: tuple[tuple[float, ...], tuple[float, ...]] = (MEAN, STD)
    if channels != len(MEAN):
        grey = DecodedSource(train_source, View(size=0, channels=channels))
        statistics = channel_statistics(grey, _STATISTICS_SAMPLE)
    return Official(
        train_source,
        test_source,
        Info(
            name="imagenet",
            num_classes=len(wnids),
            class_names=synsets.class_names(wnids.tolist(), folders),
            image_shape=(0, 0, channels),
            mean=statistics[0],
            std=statistics[1],
            source=_provenance(train, val, len(wnids), len(val.names) - len(kept)),
        ),
    )


@dataclass(frozen=True)
class _Part:
    """The images of one split as they were found.

    Attributes:
      place: the archive or folder.
      names: in it, "CLASS/FILE", "CLASS.tar/FILE" or "FILE".
      images: makes a source of some of the rows, given their labels.
    """

    place: Path
    names: Sequence[str]
    images: Callable[[Int64[np.ndarray, "n"], Int32[np.ndarray, "n"]], Encoded]


class FileImages:
    """Image files of one folder and its subfolders."""

    def __init__(self, folder: Path, names: Sequence[str], labels: Int32[np.ndarray, "rows"]):
        """The files `folder / names[i]`, of class `labels[i]`; nothing is read."""
        self._folder = folder
        self._names = np.array([name.encode() for name in names])
        self._labels = labels

    def __len__(self) -> int:
        return len(self._names)

    def encoded(self, row: int) -> bytes:
        """The file of one row.

        Raises:
          UserError: it cannot be read.
        """
        path = self._path(row)
        try:
            return path.read_bytes()
        except OSError as error:
            raise UserError(f"Cannot read {path}: {error.strerror or error}.") from None

    def labels(self) -> Int32[np.ndarray, "rows"]:
        """The labels of all rows."""
        return self._labels

    def columns(self) -> Mapping[str, Shaped[np.ndarray, "rows"]]:
        """Nothing more is known."""
        return {}

    def where(self, row: int) -> str:
        """The file's path."""
        return str(self._path(row))

    def _path(self, row: int) -> Path:
        return self._folder / self._names[row].decode()


class ArchiveImages:
    """Image files inside a tar archive."""

    def __init__(self, path: Path, members: archive.Members, labels: Int32[np.ndarray, "rows"]):
        """The members of the archive at `path`, in this order, with their labels."""
        self._reader = archive.ArchiveReader(path)
        self._members = members
        self._labels = labels

    def __len__(self) -> int:
        return len(self._labels)

    def encoded(self, row: int) -> bytes:
        """The member of one row.

        Raises:
          UserError: the archive does not give it.
        """
        return self._reader.read(int(self._members.offsets[row]), int(self._members.sizes[row]))

    def labels(self) -> Int32[np.ndarray, "rows"]:
        """The labels of all rows."""
        return self._labels

    def columns(self) -> Mapping[str, Shaped[np.ndarray, "rows"]]:
        """Nothing more is known."""
        return {}

    def where(self, row: int) -> str:
        """The member's name and the archive's path."""
        return f"{self._members.names[row].decode()} in {self._reader.path}"


def _find(part: str, folders: Sequence[Path], root: Path) -> _Part:
    """The part "train" or "val" as a tree where there is one, else as an archive."""
    for name in _TREES[part]:
        for folder in folders:
            found = _tree(folder / name)
            if found is not None:
                return found
    for name in _TARS[part]:
        for folder in folders:
            if (folder / name).is_file():
                return _archive(folder / name)
    tree = "train/n01440764/*.JPEG" if part == "train" else "val/*.JPEG or val/n01440764/*.JPEG"
    raise UserError(
        f"ImageNet's {part} images are not in {root} or {root / 'imagenet'}. Expected there: "
        f"{_TARS[part][0]} (as image-net.org gives it, not unpacked), the folder {tree}, or what "
        "'python -m imgrec.prepare imagenet --from=FOLDER --to=FOLDER' wrote. Say where they are "
        "with --config.data.root=FOLDER or the environment variable IMGREC_DATA. Data prepared "
        "by TensorFlow Datasets is read with --config.data.dataset=tfds:imagenet2012."
    )


def _tree(folder: Path) -> _Part | None:
    """The images of a folder and its subfolders; None where there are none."""
    if not folder.is_dir():
        return None
    names = [
        str(path.relative_to(folder).as_posix())
        for inside in (folder, *sorted(path for path in folder.iterdir() if path.is_dir()))
        for path in inside.iterdir()
        if _is_image(path.name)
    ]
    names.sort(key=_order)
    if not names:
        return None

    def images(rows: Int64[np.ndarray, "n"], labels: Int32[np.ndarray, "n"]) -> Encoded:
        return FileImages(folder, [names[row] for row in rows], labels)

    return _Part(folder, names, images)


def _archive(path: Path) -> _Part:
    found = archive.members(path)
    decoded = [name.decode() for name in found.names]
    order = sorted(
        (row for row, name in enumerate(decoded) if _is_image(PurePosixPath(name).name)),
        key=lambda row: _order(decoded[row]),
    )
    if not order:
        raise UserError(f"{path} holds no image ({', '.join(_EXTENSIONS)}); is it another archive?")

    def images(rows: Int64[np.ndarray, "n"], labels: Int32[np.ndarray, "n"]) -> Encoded:
        chosen = np.array(order)[rows]
        members = archive.Members(found.names[chosen], found.offsets[chosen], found.sizes[chosen])
        return ArchiveImages(path, members, labels)

    return _Part(path, [decoded[row] for row in order], images)


def _is_image(name: str) -> bool:
    return name.lower().endswith(_EXTENSIONS) and not name.startswith(".")


def _order(name: str) -> tuple[str, str]:
    # Official file names start with the class in train and are numbered in val, so this order
    # is the same for a tree, an archive, and a val split that is sorted into folders or not.
    stem = name.rsplit("/", 1)[-1]
    return ("" if "_val_" in stem else _wnid(name) or "", stem)


def _wnid(name: str) -> str | None:
    """The class that a path tells: the name of the folder or archive that the file lies in."""
    match = re.search(r"(?:^|/)(n\d{8})(?:\.tar)?/[^/]+$", name)
    return match[1] if match else None


def _validation_wnids(val: _Part, folders: Sequence[Path]) -> list[str]:
    told = [_wnid(name) for name in val.names]
    if None not in told:
        return [wnid for wnid in told if wnid]
    stems = [PurePosixPath(name).stem for name in val.names]
    return synsets.validation_wnids(stems, folders, str(val.place))


def _provenance(train: _Part, val: _Part, classes: int, left_out: int) -> str:
    text = f"ILSVRC2012: train from {train.place}, test is the official validation of {val.place}"
    if classes != NUM_CLASSES:
        text += f"; a subset of {classes} of {NUM_CLASSES:,} classes"
    if left_out:
        text += f" ({left_out:,} validation images of other classes left out)"
    return text
