"""Other data sets, by name, as images that a network takes: what it is to tell from its own.

--ood=fashion_mnist@/usr/share/datasets/fashion-mnist,scenes
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, Shaped, UInt8, UInt64
from ml_collections import ConfigDict
from PIL import Image

from imgrec import data
from imgrec.config import DataConfig
from imgrec.data import Source, Split
from imgrec.data.dataset import Batch, Example
from imgrec.errors import UserError

_GREY_OR_RGB = (1, 3)


class Named(NamedTuple):
    """A data set by name, and the folder of its files; "" is where the run's own are."""

    dataset: str
    root: str


def named(text: str, flag: str = "--ood") -> dict[str, Named]:
    """The data sets that "NAME,NAME@FOLDER,..." names, by the names they are reported under.

    A folder or prepared set of one's own (`folder:PATH`, `prepared:PATH`) is a path already and
    takes no other, so that its path may have an "@" in it.

    Raises:
      UserError: an item is empty, lacks its folder, or comes twice.
    """
    found: dict[str, Named] = {}
    for item in text.split(",") if text.strip() else ():
        item = item.strip()
        own = item.partition(":")[0] in ("folder", "prepared")
        dataset, at, root = (item, "", "") if own else item.partition("@")
        if not dataset or (at and not root):
            raise UserError(
                f"{flag}={text!r} has the item {item!r}; expected NAME or NAME@FOLDER, as in "
                f"{flag}=scenes,fashion_mnist@/usr/share/datasets/fashion-mnist"
            )
        if dataset in found:
            raise UserError(f"{flag}={text!r} names {dataset!r} twice.")
        found[dataset] = Named(dataset, root)
    return found


def ood_split(other: Named, config: DataConfig, image_shape: tuple[int, int, int]) -> Split:
    """The test split of another data set, its images brought to the shape of a run's.

    They are cropped and resized as the run's own test images are; grey is repeated as RGB, and
    RGB turned grey.

    Args:
      other: which.
      config: the run's own data, whose view of images is taken over.
      image_shape: height, width and channels that the run's network takes.

    Raises:
      UserError: no such data set, its files are missing, it is the run's own, or its images
        cannot have that many channels.
    """
    if other.dataset == config.dataset:
        raise UserError(
            f"--ood={other.dataset}: the network was trained on {config.dataset!r}, so nothing of "
            "it is unknown. Name another data set; to leave classes of this one out of training, "
            "set data.holdout_classes."
        )
    height, width, channels = image_shape
    seen = DataConfig(
        dataset=other.dataset,
        root=other.root or config.root,
        validation="0",
        image_size=max(height, width),
        crop=config.crop,
        crop_fraction=config.crop_fraction,
        interpolation=config.interpolation,
        on_bad_image=config.on_bad_image,
        threads=config.threads,
        # Nothing is trained on, so of what is rendered one such image does.
        options=ConfigDict({"train": 1} if other.dataset == "scenes" else {}),
    )
    dataset = _with_channels(seen, channels)
    found = dataset.info.image_shape
    if found == image_shape:
        return dataclasses.replace(dataset.test, name=other.dataset)
    if found[2] != channels and {found[2], channels} != {*_GREY_OR_RGB}:
        raise UserError(
            f"--ood={other.dataset}: its images have {found[2]} channels, the network takes "
            f"{channels}, and only grey and RGB are turned into each other."
        )
    source = Fitted(dataset.test.source, image_shape)
    return Split(other.dataset, source, dataset.test.rows)


def _with_channels(config: DataConfig, channels: int) -> data.Dataset:
    """The data set with so many channels where it can be read so, else with its own.

    Files are decoded as grey or RGB; what is rendered comes as it is.
    """
    if channels in _GREY_OR_RGB and config.dataset != "scenes":
        config = dataclasses.replace(config, channels=channels)
    return data.load(config)


@dataclass(frozen=True, eq=False)
class Fitted:
    """Another source's images, resized and turned grey or RGB as they are read."""

    source: Source
    image_shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> Example:
        example = self.source[row]
        return {**example, "image": fitted(example["image"], self.image_shape)}

    def gather(
        self, rows: Int64[np.ndarray, "batch"], words: UInt64[np.ndarray, "batch"] | None = None
    ) -> Batch:
        """As of the source, each image fitted."""
        batch = self.source.gather(rows, words)
        images = np.stack([fitted(image, self.image_shape) for image in batch["image"]])
        return {**batch, "image": images}

    def labels(self) -> Int32[np.ndarray, "rows"]:
        """As of the source."""
        return self.source.labels()

    def columns(self) -> Mapping[str, Shaped[np.ndarray, "rows"]]:
        """As of the source."""
        return self.source.columns()

    @property
    def residency(self) -> str:
        """Never in memory as it is needed."""
        return "static" if self.source.residency == "memory" else self.source.residency


def fitted(
    image: UInt8[np.ndarray, "height width channels"], shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "h w c"]:
    """A grey or RGB image at another height and width, as grey or RGB, by Pillow."""
    height, width, channels = shape
    if image.shape[2] == channels and image.shape[2] not in _GREY_OR_RGB:
        planes = [fitted(image[..., c : c + 1], (height, width, 1)) for c in range(channels)]
        return np.concatenate(planes, axis=-1)
    picture = Image.fromarray(np.ascontiguousarray(image[..., 0] if image.shape[2] == 1 else image))
    picture = picture.convert("L" if channels == 1 else "RGB")
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture)
    return pixels if pixels.ndim == 3 else pixels[..., None]
