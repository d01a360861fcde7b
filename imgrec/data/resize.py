"""Square resizing on the host, where images of any size become images of one size.

Pillow's bilinear filter, which widens its support when it shrinks an image (so there is no
aliasing) and is therefore the same filter at training and at serving time.
"""

import numpy as np
from jaxtyping import Int32, Int64, UInt8
from PIL import Image

from imgrec.data.dataset import ArraySource, Batch, Example, Source

_MOST_BYTES_IN_MEMORY = 2**31


def resized(source: Source, size: int) -> Source:
    """The source with all its images at `size` x `size`.

    An array is resized once, here, unless the result would need more than 2 GiB; that, and
    any other source, is resized image by image as it is read.
    """
    if isinstance(source, ArraySource):
        rows, height, width, channels = source.images.shape
        if height == width == size:
            return source
        if rows * size * size * channels <= _MOST_BYTES_IN_MEMORY:
            images = np.empty((rows, size, size, channels), np.uint8)
            for row, image in enumerate(source.images):
                images[row] = resize(image, size)
            return ArraySource(images, source.labels())
    return ResizedSource(source, size)


class ResizedSource:
    """Another source's images, resized as they are read."""

    def __init__(self, source: Source, size: int):
        """Wraps a source; `size` is the side of the images it then yields."""
        self._source = source
        self._size = size

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, row: int) -> Example:
        example = self._source[row]
        return {**example, "image": resize(example["image"], self._size)}

    def gather(self, rows: Int64[np.ndarray, "batch"]) -> Batch:
        """One row after the other, because the originals may differ in size."""
        examples = [self[int(row)] for row in rows]
        return {
            "image": np.stack([example["image"] for example in examples]),
            "label": np.array([example["label"] for example in examples], np.int32),
        }

    def labels(self) -> Int32[np.ndarray, "rows"]:
        """The labels of all rows."""
        return self._source.labels()


def resize(
    image: UInt8[np.ndarray, "height width channels"], size: int
) -> UInt8[np.ndarray, "{size} {size} channels"]:
    """One image at `size` x `size`; the aspect ratio is not kept."""
    height, width, channels = image.shape
    if height == width == size:
        return image
    if channels == 3:
        return _bilinear(image, size)
    # Pillow has no mode for most channel counts, and weights RGB by alpha in RGBA.
    planes = [_bilinear(image[..., channel], size) for channel in range(channels)]
    return np.stack(planes, axis=-1)


def _bilinear(pixels: np.ndarray, size: int) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
