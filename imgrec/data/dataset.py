"""What a data set is: `Dataset` holds splits, a `Split` picks rows of a `Source`.

A source is anything with random access to labelled uint8 images: an array in memory, record
files on disk, a renderer. Everything downstream (batches, evaluation, reports) speaks to
splits only, so a new format is one new source.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, Int64, Integer, Shaped, UInt8, UInt64

from imgrec.data.sampling import Sampling

Example = dict[str, Any]  # "image": uint8[H, W, C], "label": np.int32
Batch = dict[str, np.ndarray]  # "image": uint8[n, H, W, C], "label": int32[n], ...


@dataclass(frozen=True)
class Info:
    """What is known of a data set besides its images.

    Attributes:
      name: as in `config.data.dataset`.
      num_classes: labels are 0 to num_classes - 1.
      class_names: one for each label.
      image_shape: (height, width, channels) after any resizing; height and width are 0 in a
        format's own description of images that differ in size, never after `data.load`.
      mean: of the official training images before any resizing, per channel, scale [0, 1].
      std: likewise, over all pixels of all images.
      source: one line on where the images came from and how they were split.
      record: text of files that a run keeps with it, by name: which image went to which split,
        where that is not the publishers' choice.
      held_out_names: classes that were left out of the training, validation and test splits.
    """

    name: str
    num_classes: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    record: Mapping[str, str] = field(default_factory=dict, repr=False)
    held_out_names: tuple[str, ...] = ()


@runtime_checkable  # so that the tests can check annotations that name it
class Source(Protocol):
    """Random access to labelled images; safe to read from several threads."""

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def __getitem__(self, row: int) -> Example:
        """{"image": uint8[H, W, C], "label": np.int32} of one row."""
        ...

    def gather(
        self, rows: Int64[np.ndarray, "batch"], words: UInt64[np.ndarray, "batch"] | None = None
    ) -> Batch:
        """{"image": uint8[batch, H, W, C], "label": int32[batch]} of many rows at once.

        New arrays, which the caller may write to.

        Args:
          rows: which, in this order.
          words: to train on, one random word an example, which alone decides what is random
            on the host (the crop that is decoded). None asks for the view that is evaluated.
        """
        ...

    def labels(self) -> Int32[np.ndarray, "rows"]:
        """The labels of all rows, without decoding an image."""
        ...

    def columns(self) -> Mapping[str, Shaped[np.ndarray, "rows"]]:
        """What else is known of each row, by name: the groups a manifest tells; {} for nothing."""
        ...

    @property
    def residency(self) -> str:
        """What the images to train on cost: "memory" where they lie there in full already,

        "static" where they are read, decoded or rendered but always the same, "random" where
        `words` decide what they show.
        """
        ...


@runtime_checkable
class Encoded(Protocol):
    """Random access to labelled image files, not decoded; safe to read from several threads.

    `imgrec.data.view.DecodedSource` makes a source of it.
    """

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def encoded(self, row: int) -> bytes:
        """The image file of one row, in any format that Pillow reads."""
        ...

    def labels(self) -> Int32[np.ndarray, "rows"]:
        """The labels of all rows."""
        ...

    def columns(self) -> Mapping[str, Shaped[np.ndarray, "rows"]]:
        """As of `Source`."""
        ...

    def where(self, row: int) -> str:
        """Names the row's file for an error: "cats/1.jpg", "n01440764_18.JPEG in train.tar"."""
        ...


class ArraySource:
    """A source whose images lie in memory, in `images` and `targets` (both read-only views)."""

    def __init__(
        self,
        images: UInt8[np.ndarray, "rows height width channels"],
        labels: Integer[np.ndarray, "rows"],
    ):
        """Keeps the images without a copy, and the labels as int32."""
        self.images = images.view()
        self.targets = labels.astype(np.int32)
        self.images.flags.writeable = False
        self.targets.flags.writeable = False

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Example:
        return {"image": self.images[row], "label": self.targets[row]}

    def gather(
        self, rows: Int64[np.ndarray, "batch"], words: UInt64[np.ndarray, "batch"] | None = None
    ) -> Batch:
        """Copies of the rows, by one fancy index; nothing is random here."""
        return {"image": self.images[rows], "label": self.targets[rows]}

    def labels(self) -> Int32[np.ndarray, "rows"]:
        """The labels of all rows."""
        return self.targets

    def columns(self) -> Mapping[str, Shaped[np.ndarray, "rows"]]:
        """Nothing more is known."""
        return {}

    residency = "memory"


@dataclass(frozen=True, eq=False)
class Subset:
    """Some rows of a source, as a source."""

    source: Source
    rows: Int64[np.ndarray, "examples"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Example:
        return self.source[int(self.rows[row])]

    def gather(
        self, rows: Int64[np.ndarray, "batch"], words: UInt64[np.ndarray, "batch"] | None = None
    ) -> Batch:
        """As of the source."""
        return self.source.gather(self.rows[rows], words)

    def labels(self) -> Int32[np.ndarray, "examples"]:
        """As of the source."""
        return self.source.labels()[self.rows]

    def columns(self) -> Mapping[str, Shaped[np.ndarray, "rows"]]:
        """As of the source."""
        return {name: values[self.rows] for name, values in self.source.columns().items()}

    @property
    def residency(self) -> str:
        """As of the source."""
        return self.source.residency


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of a source under a name; position i of the split is row `rows[i]`.

    The `index` of an example, in batches and in saved predictions, is its position here.
    """

    name: str
    source: Source
    rows: Int64[np.ndarray, "examples"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Example:
        return self.source[int(self.rows[position])]

    def gather(
        self,
        positions: Int64[np.ndarray, "batch"],
        words: UInt64[np.ndarray, "batch"] | None = None,
    ) -> Batch:
        """{"image": uint8[batch, H, W, C], "label": int32[batch]} of the positions given.

        With `words`, as `Source.gather` takes them, the images are views to train on.
        """
        return self.source.gather(self.rows[positions], words)

    def labels(self) -> Int32[np.ndarray, "examples"]:
        """The labels in the order of the split."""
        return self.source.labels()[self.rows]

    def columns(self) -> Mapping[str, Shaped[np.ndarray, "examples"]]:
        """What else is known of the examples, in the order of the split."""
        return {name: values[self.rows] for name, values in self.source.columns().items()}


@dataclass(frozen=True, eq=False)
class Official:
    """A data set as its publishers cut it.

    `validation` is None where they hold none out; it is then cut from train.
    """

    train: Source | Encoded
    test: Source | Encoded
    info: Info
    validation: Source | Encoded | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """The splits an experiment works with; `validation` is None where none was asked for.

    `sampling` says how the training stream visits `train`. With `data.holdout_classes`, all of
    these are of the other classes, and `held_out` and `held_out_train` have the test and training
    images of the held-out ones, labelled by their places in `info.held_out_names`.
    """

    train: Split
    validation: Split | None
    test: Split
    info: Info
    sampling: Sampling
    held_out: Split | None = None
    held_out_train: Split | None = None


def channel_statistics(source: Source, sample: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, on the scale [0, 1].

    Exact over the pixels read: they are counted by value, in integers.

    Args:
      source: the training images, not resized.
      sample: most images to read; of a larger source, this many at equal distances.

    Returns:
      (mean, std), each one float per channel.
    """
    chosen = min(sample, len(source))
    rows = np.arange(chosen) * len(source) // chosen
    channels = source[0]["image"].shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    for row in rows:
        image = source[int(row)]["image"]
        for channel in range(channels):
            counts[channel] += np.bincount(image[..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
    return tuple(map(float, mean)), tuple(map(float, std))
