"""Any image classification set of TensorFlow Datasets, as `tfds:NAME`.

Data that TFDS has prepared as ArrayRecord files is read at random by `builder.as_data_source`,
without TensorFlow; preparing it is a command of TFDS that needs TensorFlow once. Nothing is
downloaded from here. TFDS stores image files: they are handed on as they are, so that a crop is
decoded with the rest of the view, and by the same decoder as images from anywhere else.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64, Shaped, UInt64
from PIL import Image

from imgrec.data.dataset import (
    Batch,
    Encoded,
    Example,
    Info,
    Official,
    Source,
    channel_statistics,
)
from imgrec.data.view import DecodedSource, View
from imgrec.errors import UserError

_STATISTICS_SAMPLE = 1_000  # images that mean and standard deviation are taken from


def load(name: str, root: Path, channels: int = 0) -> Official:
    """Opens a prepared data set.

    The official split "test" is the test split; where it is missing or without labels (as in
    ImageNet), "validation" is, and `Info.source` says so.

    Args:
      name: as TFDS writes it, with configuration and version where wanted
        ("mnist", "imagenet2012:5.1.0").
      root: what TFDS calls `data_dir`.
      channels: 1 or 3 that images are converted to; 0 is what the images have.

    Raises:
      UserError: TFDS is not installed, does not know the name, has not prepared it in a format
        with random access, or it has no 8-bit images with class labels.
    """
    tfds = _import_tfds()
    builder = _prepared_builder(tfds, name, root)
    image_key, label_key = _keys(tfds, builder.info, name)
    sources = {
        split: TfdsImages(tfds, builder, split, image_key, label_key)
        for split in ("train", "test", "validation")
        if split in builder.info.splits and builder.info.splits[split].num_examples
    }
    test = next((s for s in ("test", "validation") if s in sources and _labelled(sources[s])), None)
    if "train" not in sources or test is None:
        raise UserError(
            f"'tfds:{name}' has the splits {', '.join(builder.info.splits) or 'none'}; expected "
            "'train', and 'test' or 'validation' with labels."
        )
    feature = builder.info.features[label_key]
    height, width, stored = _image_shape(builder.info, image_key, sources["train"])
    train: Source | Encoded = sources["train"]
    tested: Source | Encoded = sources[test]
    if stored in (1, 3):
        channels = channels or stored
        seen: Source = DecodedSource(sources["train"], View(size=0, channels=channels))
    else:
        # Pillow's conversion to grey or RGB would drop what the other channels hold.
        if channels not in (0, stored):
            raise UserError(
                f"The images of 'tfds:{name}' have {stored} channels, which are kept; leave out "
                f"--config.data.channels={channels}."
            )
        channels = stored
        train = seen = TfdsSource(tfds, builder, "train", image_key, label_key)
        tested = TfdsSource(tfds, builder, test, image_key, label_key)
    mean, std = channel_statistics(seen, _STATISTICS_SAMPLE)
    info = Info(
        name=f"tfds:{name}",
        num_classes=feature.num_classes,
        class_names=tuple(feature.names),
        image_shape=(height, width, channels),
        mean=mean,
        std=std,
        source=f"{builder.info.full_name} prepared by TFDS in {root}, official splits "
        f"'train' (train) and '{test}' (test)",
    )
    return Official(train, tested, info)


class TfdsImages:
    """One split of a prepared data set, its image files not decoded."""

    def __init__(self, tfds: ModuleType, builder: Any, split: str, image_key: str, label_key: str):
        """Opens the split of a prepared builder; the keys name the features to read."""
        undecoded = {image_key: tfds.decode.SkipDecoding()}
        self._records = builder.as_data_source(split=split, decoders=undecoded)
        self._image_key = image_key
        self._label_key = label_key
        self._num_classes = builder.info.features[label_key].num_classes
        self._split = f"{builder.info.full_name}, split {split!r}"
        self._labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._records)

    def encoded(self, row: int) -> bytes:
        """The image file of one row."""
        return bytes(self._records[row][self._image_key])

    def labels(self) -> Int32[np.ndarray, "rows"]:
        """The labels of all rows, in one pass over the records that decodes no image.

        Raises:
          UserError: one is out of range.
        """
        if self._labels is None:
            labels = np.array([self.label(row) for row in range(len(self))], np.int32)
            _check_labels(labels, self._num_classes, self._split)
            self._labels = labels
        return self._labels

    def columns(self) -> Mapping[str, Shaped[np.ndarray, "rows"]]:
        """Nothing more is told."""
        return {}

    def where(self, row: int) -> str:
        """The record's place."""
        return f"example {row} of {self._split}"

    def label(self, row: int) -> int:
        """The label of one row as it is stored, -1 where there is none."""
        return int(self._records[row][self._label_key])


class TfdsSource:
    """One split of a prepared data set, decoded by TFDS as it is read."""

    def __init__(self, tfds: ModuleType, builder: Any, split: str, image_key: str, label_key: str):
        """Opens the split of a prepared builder; the keys name the features to read."""
        self._records = builder.as_data_source(split=split)
        self._files = TfdsImages(tfds, builder, split, image_key, label_key)
        self._image_key = image_key

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, row: int) -> Example:
        return {"image": self._records[row][self._image_key], "label": self.labels()[row]}

    def gather(
        self, rows: Int64[np.ndarray, "batch"], words: UInt64[np.ndarray, "batch"] | None = None
    ) -> Batch:
        """Reads and decodes one record after the other."""
        images = [self[int(row)]["image"] for row in rows]
        return {"image": np.stack(images), "label": self.labels()[rows]}

    def labels(self) -> Int32[np.ndarray, "rows"]:
        """As of `TfdsImages`."""
        return self._files.labels()

    def columns(self) -> Mapping[str, Shaped[np.ndarray, "rows"]]:
        """Nothing more is told."""
        return {}

    residency = "static"


def _check_labels(labels: Int32[np.ndarray, "rows"], classes: int, split: str) -> None:
    for row in np.flatnonzero((labels < 0) | (labels >= classes))[:1]:
        raise UserError(
            f"{split}: label {labels[row]} of example {row} is out of range, expected 0 to "
            f"{classes - 1}."
        )


def _import_tfds() -> ModuleType:
    # Here, because the rest of the package must work where TFDS is not installed.
    try:
        import array_record.python  # noqa: F401
        import tensorflow_datasets
    except ImportError as error:
        raise UserError(
            f"'tfds:...' needs TensorFlow Datasets, which cannot be imported ({error}). Install "
            "it with: pip install tensorflow-datasets array-record"
        ) from None
    # Where an import of its own fails, TFDS logs that and stays behind half empty.
    if not hasattr(tensorflow_datasets, "builder"):
        raise UserError(
            "'tfds:...' needs TensorFlow Datasets, which is installed but failed to start (its log "
            "is above). Install it anew with: pip install --upgrade tensorflow-datasets"
        )
    return tensorflow_datasets


def _prepared_builder(tfds: ModuleType, name: str, root: Path) -> Any:
    command = (
        f"tfds build {name} --data_dir={root} --file_format=array_record\n"
        "once, with network; it needs: pip install tensorflow importlib_resources"
    )
    try:
        builder = tfds.builder(name, data_dir=root)
    except tfds.core.DatasetNotFoundError:
        raise UserError(
            f"TensorFlow Datasets knows no {name!r}, and {root} holds no prepared data of that "
            "name. Its names are listed at https://www.tensorflow.org/datasets/catalog/overview; "
            "another folder is set with --config.data.root=FOLDER."
        ) from None
    except (ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"TensorFlow Datasets refuses the name {name!r}; it is written NAME, NAME/CONFIG or "
            f"NAME:VERSION, as in tfds:mnist:3.0.1. It says: {reason}."
        ) from None
    if not builder.is_prepared():
        raise UserError(
            f"'tfds:{name}' is not prepared in {root}. Set the folder where it is with "
            f"--config.data.root=FOLDER, or prepare it:\n  {command}"
        )
    try:
        builder.as_data_source(split=next(iter(builder.info.splits)))
    except NotImplementedError:
        raise UserError(
            f"'tfds:{name}' is prepared in {root} as {builder.info.file_format.value}, which has "
            f"no random access. Prepare it in another folder as ArrayRecord:\n  {command}"
        ) from None
    return builder


def _keys(tfds: ModuleType, info: Any, name: str) -> tuple[str, str]:
    image_key, label_key = (info.supervised_keys or ("image", "label"))[:2]
    features = info.features
    if not (
        isinstance(features, tfds.features.FeaturesDict)
        and image_key in features
        and isinstance(features[image_key], tfds.features.Image)
        and label_key in features
        and isinstance(features[label_key], tfds.features.ClassLabel)
    ):
        listed = ", ".join(
            f"{key} ({type(value).__name__})" for key, value in sorted(features.items())
        )
        raise UserError(
            f"'tfds:{name}' is no image classification set: expected an image and a class label, "
            f"it has {listed}."
        )
    kind = np.dtype(features[image_key].np_dtype)
    if kind != np.uint8:
        raise UserError(f"The images of 'tfds:{name}' are {kind}; expected uint8.")
    return image_key, label_key


def _labelled(images: TfdsImages) -> bool:
    return images.label(0) >= 0


def _image_shape(info: Any, image_key: str, images: TfdsImages) -> tuple[int, int, int]:
    height, width, channels = info.features[image_key].shape
    # What the declaration leaves open differs from image to image, but for the channels.
    if not channels:
        with Image.open(io.BytesIO(images.encoded(0))) as first:
            channels = 1 if first.mode in ("1", "L") else 3
    return (height, width, channels) if height and width else (0, 0, channels)
