"""Reads a whole data set once and says what is in it, and what is wrong with it.

Counts, sizes, class balance, groups, images that cannot be read, copies within a split, and
copies across splits, which make a test score a score on the training images.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64, Shaped

from imgrec.data import duplicates, fingerprints
from imgrec.data.dataset import Encoded, Official, Source
from imgrec.data.fingerprints import Fingerprints

SPLITS = ("train", "validation", "test")
NEAR_EMPTY = 10  # images a class has at least, and at least a tenth of the median class
_MOST_PAIRS = 1_000  # that are listed; all are counted
_MOST_VALUES = 50  # of a column that are listed
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class Group:
    """A value of a column: how many examples have it, in all and of each class."""

    value: str
    examples: int
    per_class: tuple[int, ...]


@dataclass(frozen=True)
class Column:
    """A column of a split; `groups` are the largest first, at most 50 of `values`."""

    name: str
    values: int
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class SplitAudit:
    """What is in one split.

    Attributes:
      name: of the split.
      examples: that it has.
      unreadable: (where, what was said) of each image that could not be read.
      class_counts: examples by label.
      missing_classes: names of the classes without an example.
      near_empty_classes: (name, examples) of those with fewer than 10, or than a tenth of the
        median class.
      imbalance: examples of the largest class over those of the smallest that has any.
      sizes: ("500x375", images) of the commonest sizes, ten at most.
      different_sizes: how many sizes there are.
      width_quantiles: pixels at 0, 5, 25, 50, 75, 95 and 100 %.
      height_quantiles: likewise.
      modes: images by Pillow's mode before conversion.
      formats: images by file format.
      same_files: images whose file is the same, byte for byte, as an earlier one's.
      same_pixels: images whose pixels are the same as an earlier one's; they count above too.
      near_duplicates: images that show the same as an earlier one, with other pixels.
      plain: images with too little in them to be compared but by their pixels.
      columns: the groups that a manifest tells.
    """

    name: str
    examples: int
    unreadable: tuple[tuple[str, str], ...]
    class_counts: tuple[int, ...]
    missing_classes: tuple[str, ...]
    near_empty_classes: tuple[tuple[str, int], ...]
    imbalance: float
    sizes: tuple[tuple[str, int], ...]
    different_sizes: int
    width_quantiles: tuple[int, ...]
    height_quantiles: tuple[int, ...]
    modes: Mapping[str, int]
    formats: Mapping[str, int]
    same_files: int
    same_pixels: int
    near_duplicates: int
    plain: int
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Leak:
    """Examples of one split that have a copy in another.

    Attributes:
      known: split in which the copies are, as "train".
      leaked: split whose examples are counted, as "test".
      exact: examples with a copy of the same pixels.
      near: further examples with one of other pixels.
      conflicting: of both, those with no copy of the same label.
    """

    known: str
    leaked: str
    exact: int
    near: int
    conflicting: int


@dataclass(frozen=True)
class Copy:
    """Two examples that show the same.

    Attributes:
      kind: "pixels" or "near".
      first: (split, row, label).
      second: likewise.
      correlation: of their thumbnails; 1 of equal pixels.
    """

    kind: str
    first: tuple[str, int, int]
    second: tuple[str, int, int]
    correlation: float

    @property
    def across(self) -> bool:
        """Whether they are of different splits."""
        return self.first[0] != self.second[0]

    @property
    def conflicting(self) -> bool:
        """Whether they have different labels."""
        return self.first[2] != self.second[2]


@dataclass(frozen=True)
class Audit:
    """All that was found.

    Attributes:
      name: of the data set.
      source: where it came from.
      class_names: by label.
      splits: in the order train, validation, test.
      leaks: for every two splits, the earlier of which is known.
      copies: pairs, those across splits and with different labels first; 1,000 at most.
      total_copies: how many pairs there are; of n equal images, n - 1.
      copies_across: those of them across splits.
      conflicting_copies: those of them with different labels.
      least_correlation: of thumbnails, from which on images are called near-duplicates.
      damaged_files: messages on files of the data set itself, as shards with a wrong checksum.
    """

    name: str
    source: str
    class_names: tuple[str, ...]
    splits: tuple[SplitAudit, ...]
    leaks: tuple[Leak, ...]
    copies: tuple[Copy, ...]
    total_copies: int
    copies_across: int
    conflicting_copies: int
    least_correlation: float
    damaged_files: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether everything could be read."""
        return not self.damaged_files and not any(split.unreadable for split in self.splits)

    @property
    def leaking(self) -> bool:
        """Whether any split has a copy of an example of another."""
        return any(leak.exact or leak.near for leak in self.leaks)


def audit(
    official: Official,
    workers: int = 2,
    least: float = duplicates.LEAST_CORRELATION,
    damaged_files: Sequence[str] = (),
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Audit:
    """Reads all images of all splits and looks for what is wrong.

    Args:
      official: the data set, as its publishers cut it.
      workers: threads.
      least: correlation of thumbnails from which on two images are near-duplicates.
      damaged_files: what is known of the files already; handed through.
      progress: called with what is being done, how much of it is done, and how much there is.
    """
    info, parts = official.info, parts_of(official)
    taken: dict[str, Fingerprints] = {}
    for name, part in parts.items():
        taken[name] = fingerprints.take(
            part,
            info.image_shape[2],
            workers,
            lambda done, total, name=name: progress(f"reading {name}", done, total),  # type: ignore[misc]
        )
    images = _Images(parts, taken)
    links = _link(images, least, workers, lambda done, total: progress("comparing", done, total))
    copies = _copies(images, links)
    return Audit(
        name=info.name,
        source=info.source,
        class_names=info.class_names,
        splits=tuple(
            _split_audit(name, part, taken[name], info.class_names, images, links)
            for name, part in parts.items()
        ),
        leaks=tuple(
            _leak(known, leaked, images, links)
            for i, known in enumerate(parts)
            for leaked in list(parts)[i + 1 :]
        ),
        copies=tuple(copies[:_MOST_PAIRS]),
        total_copies=len(copies),
        copies_across=sum(copy.across for copy in copies),
        conflicting_copies=sum(copy.conflicting for copy in copies),
        least_correlation=least,
        damaged_files=tuple(damaged_files),
    )


def parts_of(official: Official) -> dict[str, Source | Encoded]:
    """The splits that there are, by name, in the order of `SPLITS`."""
    return {name: part for name in SPLITS if (part := getattr(official, name)) is not None}


class _Images:
    """The readable images of all splits in one row: train, then validation, then test."""

    def __init__(self, parts: Mapping[str, Source | Encoded], taken: Mapping[str, Fingerprints]):
        self.names = tuple(parts)
        rows = [np.flatnonzero(taken[name].readable()) for name in parts]
        self.split = np.repeat(np.arange(len(rows)), [len(some) for some in rows])
        self.row = np.concatenate(rows)
        self.label = np.concatenate(
            [part.labels()[some] for part, some in zip(parts.values(), rows, strict=True)]
        )
        prints = [(taken[name], some) for name, some in zip(parts, rows, strict=True)]
        self.pixels = np.concatenate([each.pixels[some] for each, some in prints])
        self.along_rows = np.concatenate([each.along_rows[some] for each, some in prints])
        self.along_columns = np.concatenate([each.along_columns[some] for each, some in prints])
        self.thumbnails = np.concatenate([each.thumbnails[some] for each, some in prints])

    def example(self, position: int) -> tuple[str, int, int]:
        return (
            self.names[self.split[position]],
            int(self.row[position]),
            int(self.label[position]),
        )


@dataclass(frozen=True, eq=False)
class _Links:
    """Which images are copies: `first[i]` is the first one with the pixels of image i.

    `pairs` are near-duplicates among those first ones.
    """

    first: Int64[np.ndarray, "images"]
    members: Mapping[int, Int64[np.ndarray, "members"]]
    near: duplicates.Near


def _link(
    images: _Images, least: float, workers: int, progress: Callable[[int, int], None]
) -> _Links:
    first = np.arange(len(images.row))
    groups = duplicates.exact(images.pixels)
    for group in groups:
        first[group] = group[0]
    unique = np.flatnonzero(first == np.arange(len(first)))
    found = duplicates.near(
        images.along_rows[unique],
        images.along_columns[unique],
        images.thumbnails[unique],
        least,
        workers,
        progress,
    )
    near = duplicates.Near(unique[found.pairs], found.correlations)
    return _Links(first, {int(group[0]): group for group in groups}, near)


def _copies(images: _Images, links: _Links) -> list[Copy]:
    copies = [
        Copy("pixels", images.example(int(group[0])), images.example(int(other)), 1.0)
        for group in links.members.values()
        for other in group[1:]
    ]
    copies += [
        Copy("near", images.example(a), images.example(b), round(float(correlation), 4))
        for (a, b), correlation in zip(
            links.near.pairs.tolist(), links.near.correlations, strict=True
        )
    ]
    return sorted(
        copies, key=lambda c: (not c.across, not c.conflicting, -c.correlation, c.first, c.second)
    )


def _leak(known: str, leaked: str, images: _Images, links: _Links) -> Leak:
    sides = [images.split == images.names.index(name) for name in (known, leaked)]
    exact: dict[int, set[int]] = {}  # of each leaked image, the labels of its copies
    near: dict[int, set[int]] = {}

    def meet(ones: Sequence[int], others: Sequence[int], found: dict[int, set[int]]) -> None:
        labels = {int(images.label[other]) for other in others if sides[0][other]}
        if labels:
            for one in ones:
                if sides[1][one]:
                    found.setdefault(one, set()).update(labels)

    for group in links.members.values():
        meet(group.tolist(), group.tolist(), exact)
    for a, b in links.near.pairs.tolist():
        some = [links.members.get(each, np.array([each])).tolist() for each in (a, b)]
        meet(some[0], some[1], near)
        meet(some[1], some[0], near)
    together = {one: exact.get(one, set()) | near.get(one, set()) for one in {*exact, *near}}
    return Leak(
        known,
        leaked,
        exact=len(exact),
        near=len(near.keys() - exact.keys()),
        conflicting=sum(int(images.label[one]) not in labels for one, labels in together.items()),
    )


def _split_audit(
    name: str,
    part: Source | Encoded,
    taken: Fingerprints,
    class_names: Sequence[str],
    images: _Images,
    links: _Links,
) -> SplitAudit:
    labels = part.labels()
    counts = np.bincount(labels, minlength=len(class_names))
    limit = max(NEAR_EMPTY, float(np.median(counts)) / 10)
    good = taken.readable()
    sizes = taken.sizes[good]
    common = Counter(f"{width}x{height}" for width, height in sizes.tolist())
    mine = images.split == images.names.index(name)
    earlier = {
        int(b)
        for a, b in links.near.pairs.tolist()
        if images.split[a] == images.split[b] and mine[b]
    }
    return SplitAudit(
        name=name,
        examples=len(part),
        unreadable=tuple(
            (part.where(row) if isinstance(part, Encoded) else f"row {row}", message)
            for row, message in taken.errors.items()
        ),
        class_counts=tuple(counts.tolist()),
        missing_classes=tuple(class_names[label] for label in np.flatnonzero(counts == 0).tolist()),
        near_empty_classes=tuple(
            (class_names[label], int(counts[label]))
            for label in np.flatnonzero((counts > 0) & (counts < limit)).tolist()
        ),
        imbalance=float(counts.max() / counts[counts > 0].min()) if counts.any() else 1.0,
        sizes=tuple(common.most_common(10)),
        different_sizes=len(common),
        width_quantiles=_quantiles(sizes[:, 0]),
        height_quantiles=_quantiles(sizes[:, 1]),
        modes=dict(Counter(taken.modes[good].tolist()).most_common()),
        formats=dict(Counter(taken.formats[good].tolist()).most_common()),
        same_files=0 if taken.files is None else _repeated(taken.files[good]),
        same_pixels=_repeated(taken.pixels[good]),
        near_duplicates=len(earlier),
        plain=int(duplicates.plain(taken.thumbnails[good]).sum()),
        columns=tuple(
            _column(key, values, labels, len(class_names))
            for key, values in sorted(part.columns().items())
        ),
    )


def _quantiles(values: Int32[np.ndarray, "images"]) -> tuple[int, ...]:
    if not len(values):
        return ()
    return tuple(int(q) for q in np.quantile(values, _QUANTILES, method="nearest"))


def _repeated(hashes: Shaped[np.ndarray, "images"]) -> int:
    return sum(len(group) - 1 for group in duplicates.exact(hashes))


def _column(
    name: str, values: Shaped[np.ndarray, "rows"], labels: Int32[np.ndarray, "rows"], classes: int
) -> Column:
    known, inverse, counts = np.unique(values.astype(str), return_inverse=True, return_counts=True)
    largest = np.argsort(-counts, kind="stable")[:_MOST_VALUES]
    return Column(
        name,
        len(known),
        tuple(
            Group(
                str(known[value]),
                int(counts[value]),
                tuple(np.bincount(labels[inverse == value], minlength=classes).tolist()),
            )
            for value in largest
        ),
    )


def as_json(found: Audit) -> dict[str, Any]:
    """All of it, for `json.dumps`."""
    return dataclasses.asdict(found)
