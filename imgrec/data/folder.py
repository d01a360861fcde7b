"""Images of one's own: a folder with one folder a class, or a manifest.

    --config.data.dataset=folder:PATH

Every file is checked once (`imgrec.data.index`). Splits are those given, by folders or by the
manifest's column; what is not given is decided by the files' content (`imgrec.data.assign`).
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import Int, Int32, Shaped

from imgrec.config import DataConfig
from imgrec.data import assign, index, manifest, record
from imgrec.data.assign import SPLITS, TEST, TRAIN, VALIDATION, Cut
from imgrec.data.dataset import Info, Official, channel_statistics
from imgrec.data.decode import MODES
from imgrec.data.index import Entry, Memory
from imgrec.data.listing import Listing, listed, of_folder
from imgrec.data.view import DecodedSource, View
from imgrec.errors import UserError, unknown

# The mean and std are of at most 500 images, of fewer where they are large, to start fast.
_SAMPLE, _LEAST_SAMPLE, _SAMPLE_PIXELS = 500, 64, 2.5e8


def load(argument: str, config: DataConfig) -> Official:
    """The data set at a path.

    Args:
      argument: of a folder, or a manifest.
      config: `test`, `validation`, `split_seed`, `group`, `channels`, `on_bad_image` and
        `threads` are read.

    Raises:
      UserError: there are no images, fewer than two classes, files that cannot be read, or a
        split without images of some class.
    """
    root = Path(argument).expanduser()
    channels = config.channels or 3
    if channels not in MODES:
        raise UserError(
            f"config.data.channels={channels}: image files become 1 (grey), 3 (RGB) or 4 (RGBA)."
        )
    test = assign.share(config.test, "test")
    validation = assign.share(config.validation, "validation")
    listing = _list(root)
    class_names = _class_names(root, listing.labels)
    if config.group and config.group not in listing.columns:
        _refuse_group(config.group, root, listing)

    memory = index.memory_of(root)
    entries = index.scan(listing.paths, config.threads, memory)
    good = _readable(listing, entries, skip=config.on_bad_image == "skip")
    files, kept = listing.of(good), [entries[row] for row in good]
    if TEST not in files.splits:
        assign.check_shares(test, validation)
    label_of = {name: label for label, name in enumerate(class_names)}
    cut = Cut(
        keys=_keys(files, kept, config.group),
        labels=np.array([label_of[label] for label in files.labels], np.int32),
        given=np.array(files.splits),
        num_classes=len(class_names),
        test=test,
        validation=validation,
    )
    splits = cut.by(config.split_seed)
    _check_whole(files, kept, splits, cut, config.group)
    if lacking := cut.lacking(splits):
        _refuse_lacking(root, class_names, cut, lacking)

    sources = {
        split: FileImages(files, cut.labels, np.flatnonzero(splits == split)) for split in range(3)
    }
    mean, std = _statistics(sources[TRAIN], channels, splits, kept, memory)
    sizes = {(entry.height, entry.width) for entry in kept}
    height, width = sizes.pop() if len(sizes) == 1 else (0, 0)
    of_row = dict(zip(good, (SPLITS[split] for split in splits), strict=True))
    lines = (
        (name, label, of_row.get(row, record.SKIPPED), entries[row].hash)
        for row, (name, label) in enumerate(zip(listing.names, listing.labels, strict=True))
    )
    info = Info(
        name=f"folder:{argument}",
        num_classes=len(class_names),
        class_names=class_names,
        image_shape=(height, width, channels),
        mean=mean,
        std=std,
        source="; ".join(
            [
                f"{len(good):,} image files of {root}",
                _how(cut, config),
                *_repeats(files, kept, splits),
                *([f"{n:,} unreadable skipped"] if (n := len(entries) - len(good)) else []),
                *listing.notes,
            ]
        ),
        record=record.write(class_names, lines),
    )
    held_out = sources[VALIDATION]
    return Official(sources[TRAIN], sources[TEST], info, held_out if len(held_out) else None)


class FileImages:
    """Image files by path: encoded images, as `imgrec.data.dataset.Encoded`."""

    def __init__(
        self, files: Listing, labels: Int32[np.ndarray, "files"], rows: Int[np.ndarray, "rows"]
    ):
        """Nothing is read yet.

        Args:
          files: all of a data set.
          labels: of all files.
          rows: which of them these are.
        """
        self._paths = tuple(str(files.paths[row]) for row in rows)
        self._labels = labels[rows]
        self._columns = {n: np.array(values)[rows] for n, values in files.columns.items()}

    def __len__(self) -> int:
        return len(self._paths)

    def encoded(self, row: int) -> bytes:
        """The bytes of the file.

        Raises:
          UserError: it is no longer there, or may not be read.
        """
        try:
            return Path(self._paths[row]).read_bytes()
        except OSError as error:
            raise UserError(
                f"{self._paths[row]} could be read at the start and cannot now: {error.strerror}. "
                "Restore it and start again."
            ) from None

    def labels(self) -> Int32[np.ndarray, "rows"]:
        """The labels of all rows."""
        return self._labels

    def columns(self) -> Mapping[str, Shaped[np.ndarray, "rows"]]:
        """The further columns of a manifest, as text."""
        return self._columns

    def where(self, row: int) -> str:
        """The path of the file."""
        return self._paths[row]


def _list(root: Path) -> Listing:
    if not root.is_file():
        return of_folder(root)
    if root.suffix.lower() not in manifest.SUFFIXES:
        raise UserError(
            f"{root} is a file, and no manifest by its name; a manifest ends in "
            f"{', '.join(manifest.SUFFIXES)}."
        )
    return manifest.read(root)


def _class_names(root: Path, labels: Sequence[str]) -> tuple[str, ...]:
    """The classes sorted: as numbers where all of them are."""
    distinct = set(labels)
    if len(distinct) < 2:
        raise UserError(
            f"{root} has images of one class only, {labels[0]!r}, and there is nothing to tell "
            "apart. Add a folder (or, in a manifest, rows) of another class; if the folders here "
            "are no classes, name the folder that holds those."
        )
    if all(re.fullmatch(r"-?\d+", name) for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))


def _refuse_group(group: str, root: Path, listing: Listing) -> NoReturn:
    if listing.columns:
        raise unknown(f"group column of {root}", group, listing.columns)
    raise UserError(
        f"config.data.group={group!r} needs a column of that name, and {root} has no columns "
        "beside path, label and split. Write a manifest (.csv with the columns path, label, "
        f"{group}), and give its path to --config.data.dataset=folder:PATH."
    )


def _readable(listing: Listing, entries: Sequence[Entry], *, skip: bool) -> list[int]:
    """The rows of files that are good images; all must be, unless others are skipped."""
    faults = {n: e.fault for n, e in zip(listing.names, entries, strict=True) if e.fault}
    if faults and (not skip or len(faults) == len(entries)):
        raise index.refuse(faults)
    return [row for row, entry in enumerate(entries) if not entry.fault]


def _keys(files: Listing, entries: Sequence[Entry], group: str) -> np.ndarray:
    """Of each file: by its group if it has one, else by its content."""
    hashes = [entry.hash for entry in entries]
    groups = files.columns[group] if group else [""] * len(hashes)
    texts = [f"group {g}" if g else h for g, h in zip(groups, hashes, strict=True)]
    return np.array([assign.key(text) for text in texts], np.uint64)


def _check_whole(
    files: Listing, entries: Sequence[Entry], splits: np.ndarray, cut: Cut, group: str
) -> None:
    """Refuses splits that part a group, and drawn ones that part copies of one image."""
    if not group:
        return
    first: dict[str, int] = {}
    for row, value in enumerate(files.columns[group]):
        if value and splits[other := first.setdefault(value, row)] != splits[row]:
            raise UserError(
                f"The column {group!r} has the value {value!r} both in {SPLITS[splits[other]]} "
                f"({files.names[other]}) and in {SPLITS[splits[row]]} ({files.names[row]}), as the "
                "splits are given. Give all rows of a group one split, or remove the column "
                "'split' to have groups kept together."
            )
    if cut.present:
        return
    for row, entry in enumerate(entries):
        if splits[other := first.setdefault(f"\0{entry.hash}", row)] != splits[row]:
            raise UserError(
                f"{files.names[other]} and {files.names[row]} are the same image and have "
                f"different values of {group!r}, which would put it both into "
                f"{SPLITS[splits[other]]} and {SPLITS[splits[row]]}. Remove one of them, or give "
                "both the same group."
            )


def _refuse_lacking(
    root: Path, class_names: Sequence[str], cut: Cut, lacking: Sequence[tuple[int, int]]
) -> NoReturn:
    sizes = np.bincount(cut.labels, minlength=cut.num_classes)
    lines = listed(
        [f"{SPLITS[split]} has none of {class_names[label]!r}" for label, split in lacking]
    )
    few = [name for name, n in zip(class_names, sizes, strict=True) if n < len(cut.wanted)]
    seed = cut.seed_that_works()
    if seed is not None:
        remedy = f"--config.data.split_seed={seed} gives each split images of every class."
    elif few and cut.drawn:
        remedy = (
            f"{', '.join(map(repr, few[:10]))} {'have' if len(few) > 1 else 'has'} fewer than "
            f"{len(cut.wanted)} images, one a split: add images, or leave the class out."
        )
    elif cut.drawn:
        remedy = (
            "No seed below 1,000 does better. Add images (or groups) of these classes, or name "
            "each image's split in a manifest's column 'split'."
        )
    else:
        remedy = (
            "The splits are used as they are given: add images of these classes to them, or "
            "remove the class throughout."
        )
    raise UserError(f"Every split of {root} needs images of every class:{lines}\n{remedy}")


def _how(cut: Cut, config: DataConfig) -> str:
    """How the files were split, in a few words."""
    cuts = [split for split in cut.wanted if split not in cut.present and split != TRAIN]
    asked = {VALIDATION: config.validation, TEST: config.test}
    if not cuts:
        return "splits as given"
    text = " and ".join(f"{asked[split].strip()} {SPLITS[split]}" for split in sorted(cuts)[::-1])
    by = f"column {config.group!r}" if config.group else "content"
    given = "the rest as given, " if cut.present else ""
    return f"{given}{text} by {by} with seed {config.split_seed}"


def _repeats(files: Listing, entries: Sequence[Entry], splits: np.ndarray) -> list[str]:
    """What to know of files with the same bytes, in a few words each."""
    copies = Counter(entry.hash for entry in entries)
    said = []
    if repeated := sum(copies.values()) - len(copies):
        said.append(f"{repeated:,} repeat the bytes of others")
    labels, places = (
        Counter(h for h, _ in {(e.hash, v) for e, v in zip(entries, values, strict=True)})
        for values in (files.labels, splits.tolist())
    )
    for counts, what in ((labels, "under several labels"), (places, "in several splits")):
        if several := sum(n > 1 for n in counts.values()):
            said.append(f"{several:,} images lie {what}")
    return said


def _statistics(
    train: FileImages, channels: int, splits: np.ndarray, entries: Sequence[Entry], memory: Memory
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of the training images, or of a sample; remembered by what they are of."""
    chosen = [e for e, split in zip(entries, splits, strict=True) if split == TRAIN]
    pixels = np.mean([entry.width * entry.height for entry in chosen])
    sample = int(np.clip(_SAMPLE_PIXELS / pixels, _LEAST_SAMPLE, _SAMPLE))
    of = f"{channels} {sample} " + " ".join(entry.hash for entry in chosen)
    key = hashlib.blake2b(of.encode(), digest_size=16).hexdigest()
    content = memory.load()
    if key not in content["statistics"]:
        source = DecodedSource(train, View(size=0, channels=channels))
        content["statistics"][key] = channel_statistics(source, sample)
        memory.save(content)
    mean, std = content["statistics"][key]
    return tuple(mean), tuple(std)
