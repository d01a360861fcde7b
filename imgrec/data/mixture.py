"""Training sets mixed by weight: `data.mixture` beside `data.dataset`, in the latter's classes."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int32, Int64, Shaped, UInt64

from imgrec.data.dataset import Batch, Example, Info, Source
from imgrec.errors import UserError, nearest


def labels_in(info: Info, other: Info) -> Int32[np.ndarray, "classes"]:
    """For each class of another data set, the label of the class of that name in this one.

    Raises:
      UserError: the other has a class that this one has not.
    """
    label_of = {name: label for label, name in enumerate(info.class_names)}
    for name in other.class_names:
        if name not in label_of:
            guess = nearest(name, label_of)
            meant = f" (nearest: {guess!r})" if guess else ""
            raise UserError(
                f"config.data.mixture: {other.name!r} has the class {name!r}, which "
                f"{info.name!r} has not{meant}. Only data sets whose classes are among those of "
                "config.data.dataset can be mixed in; name the widest there."
            )
    return np.array([label_of[name] for name in other.class_names], np.int32)


def check_shapes(infos: Sequence[Info]) -> None:
    """Refuses data sets whose images differ in shape."""
    first = infos[0]
    for other in infos[1:]:
        if other.image_shape != first.image_shape:
            shapes = ["x".join(map(str, info.image_shape)) for info in (first, other)]
            raise UserError(
                f"config.data.mixture: images of {first.name!r} are {shapes[0]}, of "
                f"{other.name!r} {shapes[1]}. Give them one size and number of channels, for "
                "example with --config.data.image_size=32 --config.data.channels=3"
            )


class Concatenated:
    """Sources laid end to end, their labels turned into the first one's."""

    def __init__(self, sources: tuple[Source, ...], labels_of: tuple[Int32[np.ndarray, "_"], ...]):
        """Takes sources of one image shape, and for each a new label for every old one."""
        self._sources = sources
        self._starts = np.cumsum([0, *map(len, sources)])
        self._labels_of = labels_of
        self._labels = np.concatenate(
            [new[source.labels()] for source, new in zip(sources, labels_of, strict=True)]
        )

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def residency(self) -> str:
        """The least resident of all."""
        kinds = {source.residency for source in self._sources}
        return next(kind for kind in ("random", "static", "memory") if kind in kinds)

    def __getitem__(self, row: int) -> Example:
        which = int(np.searchsorted(self._starts, row, side="right")) - 1
        example = self._sources[which][row - int(self._starts[which])]
        return {"image": example["image"], "label": self._labels[row]}

    def gather(
        self, rows: Int64[np.ndarray, "batch"], words: UInt64[np.ndarray, "batch"] | None = None
    ) -> Batch:
        """Each source's rows at once, put back into the order asked for."""
        which = np.searchsorted(self._starts, rows, side="right") - 1
        images: np.ndarray | None = None
        for i in np.unique(which).tolist():
            mine = which == i
            part = self._sources[i].gather(
                rows[mine] - self._starts[i], None if words is None else words[mine]
            )["image"]
            images = np.empty((len(rows), *part.shape[1:]), np.uint8) if images is None else images
            images[mine] = part
        return {"image": images, "label": self._labels[rows]}

    def labels(self) -> Int32[np.ndarray, "rows"]:
        """In the first source's classes."""
        return self._labels

    def columns(self) -> Mapping[str, Shaped[np.ndarray, "rows"]]:
        """Which source each row is from, as "source"; others that all of them have."""
        sizes = np.diff(self._starts)
        columns = [source.columns() for source in self._sources]
        shared = set(columns[0]).intersection(*columns[1:])
        return {
            "source": np.repeat(np.arange(len(sizes)), sizes),
            **{name: np.concatenate([c[name] for c in columns]) for name in sorted(shared)},
        }
