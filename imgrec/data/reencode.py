"""Image files for a prepared data set: as they are, smaller, or made of pixels."""

import io

from PIL import Image

from imgrec.data.dataset import Encoded, Source
from imgrec.data.view import View, decode


def shrink(encoded: bytes, channels: int, short_side: int, quality: int) -> bytes:
    """The image file with its shorter side shrunk, as JPEG; as it is where it is not longer.

    Raises:
      Exception: whatever Pillow raises on a file that it cannot read.
    """
    with Image.open(io.BytesIO(encoded)) as opened:
        width, height = opened.size
    if min(width, height) <= short_side:
        return encoded
    pixels = decode(encoded, View(size=0, channels=channels))
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    smaller = image.resize(shrunk(*image.size, short_side), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    smaller.save(stream, "JPEG", quality=quality, subsampling="4:2:0")
    return stream.getvalue()


def as_file(part: Source | Encoded, row: int) -> bytes:
    """The image file of a row; a PNG, which loses nothing, where the source holds pixels."""
    if isinstance(part, Encoded):
        return part.encoded(row)
    pixels = part[row]["image"]
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(stream, "PNG")
    return stream.getvalue()


def shrunk(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height with the shorter one shrunk, never enlarged, and the aspect kept."""
    scale = short_side / min(width, height)
    return (round(width * scale), round(height * scale)) if scale < 1 else (width, height)
