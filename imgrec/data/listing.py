"""Which image files a data set of one's own has, their classes, and splits where they are given.

A folder holds one folder a class (`PATH/cat/1.jpg`), or first one a split (`PATH/train/cat/1.jpg`,
with `validation` or `val`, and `test`).
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imgrec.data.assign import SPLITS, TEST, TRAIN, UNDECIDED, VALIDATION
from imgrec.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SPLIT_NAMES: Mapping[str, int] = {
    "train": TRAIN,
    "validation": VALIDATION,
    "valid": VALIDATION,
    "val": VALIDATION,
    "test": TEST,
}
_LISTED = 10
_LAYOUT = (
    "one folder a class (PATH/cat/1.jpg), or one a split and in it one a class "
    "(PATH/train/cat/1.jpg, PATH/test/cat/2.jpg)"
)


@dataclass
class Listing:
    """Image files, in a fixed order.

    Attributes:
      paths: to open.
      names: as the user knows them: relative to the folder, or as the manifest has them.
      labels: the class of each.
      splits: index in `assign.SPLITS`, or UNDECIDED.
      columns: what else a manifest tells of each.
      notes: what the user should know of what was left out, in a few words each.
    """

    paths: list[Path]
    names: list[str]
    labels: list[str]
    splits: list[int]
    columns: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def of(self, rows: Sequence[int]) -> "Listing":
        """Only these files."""
        return Listing(
            [self.paths[row] for row in rows],
            [self.names[row] for row in rows],
            [self.labels[row] for row in rows],
            [self.splits[row] for row in rows],
            {name: [values[row] for row in rows] for name, values in self.columns.items()},
            self.notes,
        )


def of_folder(root: Path) -> Listing:
    """Lists the image files below a folder, sorted by name.

    Links are followed; hidden files and files of other kinds are left out and counted.

    Raises:
      UserError: no such folder, no images in it, or a layout that can be read in two ways.
    """
    if not root.is_dir():
        raise UserError(
            f"{root} is {'no folder' if root.exists() else 'not there'}. Write "
            "--config.data.dataset=folder:PATH with the path of a folder that holds "
            f"{_LAYOUT}, or of a manifest (.csv, .jsonl, .parquet)."
        )
    ignored: Counter[str] = Counter()
    folders = _visible(root, ignored)
    found = Listing([], [], [], [])
    if _has_splits(root, folders):
        for folder in folders:
            split = SPLIT_NAMES[folder.name.lower()]
            for of_class in _visible(folder, ignored):
                _add(found, root, of_class, split, ignored)
    else:
        for of_class in folders:
            _add(found, root, of_class, UNDECIDED, ignored)
    if not found.paths:
        what = ", ".join(_counted(ignored)) or "nothing"
        raise UserError(
            f"{root} has no image in a folder of its class; found: {what}. Expected: {_LAYOUT}, "
            f"with files that end in {', '.join(SUFFIXES)}."
        )
    found.notes = [f"{text} ignored" for text in _counted(ignored)]
    return found


def _visible(folder: Path, ignored: Counter[str]) -> list[Path]:
    """The folders directly in this one, sorted; files beside them have no class."""
    folders = []
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            ignored[_kind(path, "image file without a class")] += 1
        elif not path.name.startswith("."):
            folders.append(path)
    return folders


def _kind(path: Path, of_images: str = "") -> str:
    if path.name.startswith("."):
        return "hidden file"
    return of_images if path.suffix.lower() in SUFFIXES else "file of another kind"


def _counted(ignored: Counter[str]) -> list[str]:
    """{"hidden file": 2} as ["2 hidden files"]."""
    return [
        f"{n:,} {kind.replace('file', 'file' if n == 1 else 'files', 1)}"
        for kind, n in sorted(ignored.items())
    ]


def _has_splits(root: Path, folders: Sequence[Path]) -> bool:
    """Whether the folders are splits: `train` is there, and holds classes, not images."""
    names = [path.name.lower() for path in folders]
    if "train" not in names:
        return False
    train = folders[names.index("train")]
    inside = [path for path in train.iterdir() if not path.name.startswith(".")]
    if any(path.is_file() and path.suffix.lower() in SUFFIXES for path in inside):
        return False
    others = [path.name for path in folders if path.name.lower() not in SPLIT_NAMES]
    if others and any(path.is_dir() for path in inside):
        raise UserError(
            f"{root} holds train/ with folders in it, as a split has, and {others[0]}/, which is "
            f"no split ({', '.join(SPLIT_NAMES)}). Move {others[0]}/ away; or if train is a class, "
            "put its images directly in train/."
        )
    splits = Counter(SPLIT_NAMES[name] for name in names if name in SPLIT_NAMES)
    for split, count in splits.items():
        if count > 1:
            twice = [n for n in names if SPLIT_NAMES.get(n) == split]
            raise UserError(
                f"{root} holds {' and '.join(f'{n}/' for n in twice)}, which are both the "
                f"{SPLITS[split]} split; put their images into one."
            )
    return not others


def _add(found: Listing, root: Path, folder: Path, split: int, ignored: Counter[str]) -> None:
    """Adds the images of one class, from all folders below its own."""
    before = len(found.paths)
    for path in _files(folder):
        if kind := _kind(path):
            ignored[kind] += 1
            continue
        found.paths.append(path)
        found.names.append(path.relative_to(root).as_posix())
        found.labels.append(folder.name)
        found.splits.append(split)
    if len(found.paths) == before:
        raise UserError(
            f"The class folder {folder} holds no image. Put images there ({', '.join(SUFFIXES)}), "
            "or remove the folder."
        )


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder in the order of their names; a link in a circle is not followed."""
    walked = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        real = os.path.realpath(place)
        if real in walked:
            folders.clear()
            continue
        walked.add(real)
        for name in sorted(files):
            yield Path(place) / name


def listed(names: Sequence[str]) -> str:
    """The first of many names, a line each."""
    more = len(names) - _LISTED
    text = "".join(f"\n  {name}" for name in names[:_LISTED])
    return text + (f"\n  ... and {more:,} more" if more > 0 else "")
