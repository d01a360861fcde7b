"""From an image of any size to the pixels a model is given: crop, resize, channels.

A `View` says how; it is the same at training and at serving time but for the random crop. All
resizing is by Pillow's filters, which widen when they shrink an image, so there is no aliasing;
random crops of files are rounded otherwise where a faster package does it (`decode.pixels`).
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64, Shaped, UInt8, UInt64
from PIL import Image

from imgrec.data.dataset import (
    ArraySource,
    Batch,
    Encoded,
    Example,
    Official,
    Source,
    channel_statistics,
)
from imgrec.data.decode import Box, BrokenImageError, pixels
from imgrec.errors import UserError

CROPS = ("none", "center", "inception")
INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_MOST_BYTES_IN_MEMORY = 2**31
_ATTEMPTS = 10  # of the Inception crop before it falls back to the centre


@dataclass(frozen=True)
class View:
    """How an image of any size becomes `size` x `size` x `channels`.

    Attributes:
      size: side in pixels of what comes out; 0 keeps the image's own size, uncropped.
      channels: 1 for grey, 3 for RGB, 4 for RGBA.
      crop: "none" squashes the whole image; "center" resizes the shorter side to
        size / crop_fraction and cuts out the middle; "inception" does the same to evaluate, and
        to train cuts out a random box and resizes that (Szegedy et al. 2015, section 6).
      crop_fraction: see above; 0.875 is 224 of 256.
      interpolation: "bilinear" or "bicubic".
      area: least and largest share of the image's area that an Inception crop takes.
      aspect: least and largest width over height of it.
    """

    size: int
    channels: int
    crop: str = "none"
    crop_fraction: float = 0.875
    interpolation: str = "bilinear"
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)


def see(image: Image.Image, view: View, word: int | None = None) -> UInt8[np.ndarray, "h w c"]:
    """One image as the view has it.

    Args:
      image: upright, in mode L or RGB as `view.channels` says.
      view: what is wanted.
      word: 64 random bits that alone decide an Inception crop; None for the view to evaluate.
    """
    if not view.size:
        return _array(image)
    box = crop_box(image.width, image.height, view, word)
    size, resample = (view.size, view.size), INTERPOLATIONS[view.interpolation]
    if box == (0, 0, *size) and image.size == size:
        return _array(image)
    return _array(image.resize(size, resample, box=box))


def crop_box(width: int, height: int, view: View, word: int | None = None) -> Box:
    """The part of an image of this size that a view shows, before it is resized."""
    if view.crop == "none":
        return (0.0, 0.0, float(width), float(height))
    if view.crop == "inception" and word is not None:
        return _inception_box(width, height, view, word)
    side = min(width, height) * view.crop_fraction
    left, upper = (width - side) / 2, (height - side) / 2
    return (left, upper, left + side, upper + side)


def _inception_box(width: int, height: int, view: View, word: int) -> Box:
    """Area uniform, aspect log-uniform, place uniform; what does not fit is drawn again."""
    uniforms = _uniforms(word)
    low, high = map(math.log, view.aspect)
    for _ in range(_ATTEMPTS):
        u = [next(uniforms) for _ in range(4)]
        area = width * height * (view.area[0] + (view.area[1] - view.area[0]) * u[0])
        aspect = math.exp(low + (high - low) * u[1])
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, upper = int(u[2] * (width - w + 1)), int(u[3] * (height - h + 1))
            return (float(left), float(upper), float(left + w), float(upper + h))
    # An image longer than any aspect allowed: the largest box that is, in the middle.
    w = min(width, round(height * view.aspect[1]))
    h = min(height, round(width / view.aspect[0]))
    left, upper = (width - w) // 2, (height - h) // 2
    return (float(left), float(upper), float(left + w), float(upper + h))


def _uniforms(word: int) -> Iterator[float]:
    """Numbers in [0, 1) without end of one word, by splitmix64 (Steele et al. 2014, fig. 16)."""
    state = word
    while True:
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        yield ((z ^ (z >> 31)) >> 11) * 2.0**-53


def decode(encoded: bytes, view: View, word: int | None = None) -> UInt8[np.ndarray, "h w c"]:
    """An image file as the view has it; a random crop to within 2 of 255 (see `pixels`).

    Raises:
      BrokenImageError: the file is truncated, damaged, or no image.
    """
    return pixels(
        encoded,
        view.channels,
        view.size,
        (lambda width, height: crop_box(width, height, view, word)) if view.size else None,
        INTERPOLATIONS[view.interpolation],
        exact=view.crop != "inception" or word is None,
    )


def see_array(
    image: UInt8[np.ndarray, "height width channels"], view: View, word: int | None = None
) -> UInt8[np.ndarray, "h w channels"]:
    """An image in memory as the view has it, with the channels it has."""
    height, width, channels = image.shape
    if not view.size or (view.crop == "none" and height == width == view.size):
        return image
    if channels == 3:
        return see(Image.fromarray(np.ascontiguousarray(image)), view, word)
    # Pillow has no mode for most channel counts, and weights RGB by alpha in RGBA.
    planes = [
        see(Image.fromarray(np.ascontiguousarray(image[..., c])), view, word)
        for c in range(channels)
    ]
    return np.concatenate(planes, axis=-1)


def _array(image: Image.Image) -> UInt8[np.ndarray, "height width channels"]:
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def with_channels(official: Official, channels: int) -> Official:
    """A data set in memory turned grey, by Pillow's weights, or grey images repeated as RGB.

    Raises:
      UserError: its images are made or stored otherwise, or from or to another number.
    """
    info = official.info
    parts = (official.train, official.test, official.validation)
    pair = (info.image_shape[2], channels)
    if pair not in ((1, 3), (3, 1)) or not all(isinstance(p, ArraySource | None) for p in parts):
        raise UserError(
            f"config.data.channels={channels}: the images of {info.name!r} have {pair[0]}, and "
            "are not turned into other channels. Leave it at 0, which keeps them."
        )
    train, test, validation = (
        None if part is None else ArraySource(_with_channels(part.images), part.labels())
        for part in parts
        if part is None or isinstance(part, ArraySource)
    )
    assert train is not None and test is not None
    mean, std = channel_statistics(train, sample=len(train))
    shape = (*info.image_shape[:2], channels)
    info = dataclasses.replace(info, image_shape=shape, mean=mean, std=std)
    return Official(train, test, info, validation)


def _with_channels(
    images: UInt8[np.ndarray, "rows height width from"],
) -> UInt8[np.ndarray, "rows height width to"]:
    if images.shape[3] == 1:
        return np.repeat(images, 3, axis=3)
    # ITU-R BT.601 in Pillow's fixed point, so that files and arrays turn equally grey.
    weights = np.array([19595, 38470, 7471], np.uint32)
    return ((images @ weights + 0x8000) >> 16).astype(np.uint8)[..., None]


def viewed(source: Source | Encoded, view: View) -> Source:
    """The source with all its images as the view has them.

    An array is turned once, here, where nothing is random and the result needs at most 2 GiB;
    any other source is, image by image, as it is read.
    """
    if isinstance(source, Encoded):
        return DecodedSource(source, view)
    if isinstance(source, ArraySource) and view.crop != "inception":
        rows, height, width, channels = source.images.shape
        if not view.size or (view.crop == "none" and height == width == view.size):
            return source
        if rows * view.size**2 * channels <= _MOST_BYTES_IN_MEMORY:
            images = np.empty((rows, view.size, view.size, channels), np.uint8)
            for row, image in enumerate(source.images):
                images[row] = see_array(image, view)
            return ArraySource(images, source.labels())
    return ViewedSource(source, view) if view.size else source


def _residency(view: View) -> str:
    return "random" if view.size and view.crop == "inception" else "static"


class ViewedSource:
    """Another source's images, cropped and resized as they are read."""

    def __init__(self, source: Source, view: View):
        """Wraps a source of images in memory."""
        self._source = source
        self._view = view

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, row: int) -> Example:
        example = self._source[row]
        return {**example, "image": see_array(example["image"], self._view)}

    def gather(
        self, rows: Int64[np.ndarray, "batch"], words: UInt64[np.ndarray, "batch"] | None = None
    ) -> Batch:
        """One row after the other, because the originals may differ in size."""
        drawn = [None] * len(rows) if words is None else [int(word) for word in words]
        examples = [self._source[int(row)] for row in rows]
        images = [
            see_array(example["image"], self._view, word)
            for example, word in zip(examples, drawn, strict=True)
        ]
        labels = np.array([example["label"] for example in examples], np.int32)
        return {"image": np.stack(images), "label": labels}

    def labels(self) -> Int32[np.ndarray, "rows"]:
        """The labels of all rows."""
        return self._source.labels()

    def columns(self) -> Mapping[str, Shaped[np.ndarray, "rows"]]:
        """As of the source."""
        return self._source.columns()

    @property
    def residency(self) -> str:
        """Random where the crop is."""
        return _residency(self._view)


class DecodedSource:
    """Encoded images as a source, decoded as they are read."""

    def __init__(self, encoded: Encoded, view: View):
        """Nothing is read yet."""
        self.encoded = encoded
        self.view = view

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, row: int) -> Example:
        return {"image": self._decode(row, None), "label": self.encoded.labels()[row]}

    def gather(
        self, rows: Int64[np.ndarray, "batch"], words: UInt64[np.ndarray, "batch"] | None = None
    ) -> Batch:
        """Decodes one row after the other: it is batches that threads and workers share out.

        Both decoders and the resize let other threads run meanwhile.

        Raises:
          UserError: a file is damaged; it is named.
        """
        drawn = [None] * len(rows) if words is None else [int(word) for word in words]
        size, channels = self.view.size, self.view.channels
        if not size:
            images = np.stack([self._decode(int(row), None) for row in rows])
        else:
            images = np.empty((len(rows), size, size, channels), np.uint8)
            for i, (row, word) in enumerate(zip(rows, drawn, strict=True)):
                images[i] = self._decode(int(row), word)
        return {"image": images, "label": self.encoded.labels()[rows]}

    def labels(self) -> Int32[np.ndarray, "rows"]:
        """The labels of all rows."""
        return self.encoded.labels()

    def columns(self) -> Mapping[str, Shaped[np.ndarray, "rows"]]:
        """As of the encoded images."""
        return self.encoded.columns()

    @property
    def residency(self) -> str:
        """Random where the crop is."""
        return _residency(self.view)

    def _decode(self, row: int, word: int | None) -> UInt8[np.ndarray, "h w c"]:
        try:
            return decode(self.encoded.encoded(row), self.view, word)
        except BrokenImageError as error:
            raise UserError(
                f"{self.encoded.where(row)} cannot be read: {error}. It may have changed after the "
                "start; restore it and start again."
            ) from None
