"""Classes held out of training, so that it can be asked what a network makes of the unknown.

The classes that remain are renumbered, and the splits of an experiment hold nothing else; the
images of those held out become splits of their own (`Dataset.held_out`). Mean and standard
deviation of the normalisation stay those of the whole data set.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Int32, Int64, Shaped, UInt64

from imgrec.data.dataset import Batch, Example, Info, Source, Subset
from imgrec.errors import UserError, unknown


def labels_of(given: Sequence[str], info: Info) -> tuple[int, ...]:
    """The labels of the classes that `config.data.holdout_classes` names, ascending.

    Args:
      given: class names, or labels as text where no class has that name. A name that several
        classes share, as a few of ImageNet's do, holds out all of them.
      info: of the whole data set.

    Raises:
      UserError: no such class, or fewer than two would be left.
    """
    labels: set[int] = set()
    for name in given:
        found = {label for label, known in enumerate(info.class_names) if known == name}
        if not found and name.isdecimal() and int(name) < info.num_classes:
            found = {int(name)}
        if not found:
            raise unknown("class in config.data.holdout_classes", name, set(info.class_names))
        labels |= found
    left = info.num_classes - len(labels)
    if labels and left < 2:
        raise UserError(
            f"config.data.holdout_classes leaves {left} of the {info.num_classes} classes of "
            f"{info.name!r}, and a classifier needs 2. Hold out fewer."
        )
    return tuple(sorted(labels))


def shared(names: Collection[str], info: Info) -> tuple[int, ...]:
    """The labels of the classes with these names, as far as a data set has them."""
    return tuple(label for label, name in enumerate(info.class_names) if name in names)


def info_without(info: Info, held_out: Sequence[int]) -> Info:
    """What is known of a data set without the classes of these labels."""
    known = tuple(name for label, name in enumerate(info.class_names) if label not in held_out)
    names = tuple(info.class_names[label] for label in held_out)
    listed = ", ".join(names[:10]) + (f", ... ({len(names)} classes)" if len(names) > 10 else "")
    return dataclasses.replace(
        info,
        num_classes=len(known),
        class_names=known,
        held_out_names=names,
        source=f"{info.source}; held out of training: {listed}",
    )


class OfClasses:
    """The rows of some classes of a source, labelled by their places among these classes.

    Where the source tells true labels beside wrong ones, both are to be among these classes:
    an image of an unknown class is not trained on under the label of a known one.
    """

    def __init__(self, source: Source, classes: Sequence[int]):
        """Wraps a source; `classes` are labels of it, in their new order."""
        labels = source.labels()
        clean = source.columns().get("clean_label", labels)
        most = max(labels.max(initial=-1), clean.max(initial=-1), *classes)
        self._number = np.full(most + 1, -1, np.int32)
        self._number[list(classes)] = np.arange(len(classes))
        self._part = Subset(
            source, np.flatnonzero((self._number[labels] >= 0) & (self._number[clean] >= 0))
        )
        self._labels = self._number[self._part.labels()]
        self._labels.flags.writeable = False

    def __len__(self) -> int:
        return len(self._part)

    @property
    def residency(self) -> str:
        """As of the source."""
        return self._part.residency

    def __getitem__(self, row: int) -> Example:
        return {**self._part[row], "label": self._labels[row]}

    def gather(
        self, rows: Int64[np.ndarray, "batch"], words: UInt64[np.ndarray, "batch"] | None = None
    ) -> Batch:
        """As of the source, with the new labels."""
        return {**self._part.gather(rows, words), "label": self._labels[rows]}

    def labels(self) -> Int32[np.ndarray, "rows"]:
        """The new labels."""
        return self._labels

    def columns(self) -> Mapping[str, Shaped[np.ndarray, "rows"]]:
        """As of the source, its "clean_label" renumbered too."""
        columns = dict(self._part.columns())
        if "clean_label" in columns:
            columns["clean_label"] = self._number[columns["clean_label"]]
        return columns
