"""What an image is recognised by: hashes of its bytes and pixels, and a small picture of it.

The perceptual hash is the sign of neighbouring differences on a 9x9 grey picture (dHash: N.
Krawetz, "Kind of like that", 2013), along rows and along columns, 64 bits each. Brightness,
contrast, re-encoding and resizing hardly change it.
"""

import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, Shaped, UInt8, UInt64
from PIL import Image, UnidentifiedImageError

from imgrec.data.dataset import Encoded, Source
from imgrec.data.view import View, decode

THUMBNAIL = 16  # pixels a side
_GRID = 9


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """Of all examples of a split, by row; what could not be read has zeros and no mode.

    Attributes:
      files: hash of the image file; None of sources that hold pixels.
      pixels: hash of the decoded image with its size.
      along_rows: 64 bits, whether the grid's pixels are brighter than their left neighbour.
      along_columns: likewise, their upper neighbour.
      thumbnails: a grey picture of 16x16, row by row.
      sizes: width and height.
      modes: Pillow's names ("RGB", "L", "CMYK"), before conversion.
      formats: "JPEG", "PNG", ...; "pixels" of sources that hold those.
      errors: what was said of a row that could not be read.
    """

    files: Shaped[np.ndarray, "rows"] | None
    pixels: Shaped[np.ndarray, "rows"]
    along_rows: UInt64[np.ndarray, "rows"]
    along_columns: UInt64[np.ndarray, "rows"]
    thumbnails: UInt8[np.ndarray, "rows 256"]
    sizes: Int32[np.ndarray, "rows 2"]
    modes: Shaped[np.ndarray, "rows"]
    formats: Shaped[np.ndarray, "rows"]
    errors: dict[int, str]

    def readable(self) -> Bool[np.ndarray, "rows"]:
        """Which rows could be read."""
        return self.modes != ""


@dataclass(frozen=True)
class _One:
    file: bytes
    pixels: bytes
    grid: UInt8[np.ndarray, "9 9"]
    thumbnail: UInt8[np.ndarray, "256"]
    size: tuple[int, int]
    mode: str
    format: str


def take(
    part: Source | Encoded,
    channels: int,
    workers: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Fingerprints:
    """Reads every example once, in several threads.

    Args:
      part: to read.
      channels: 1 or 3 that image files are converted to.
      workers: threads.
      progress: called now and then with the examples done and in all.
    """
    n = len(part)
    grids = np.zeros((n, _GRID, _GRID), np.uint8)
    thumbnails = np.zeros((n, THUMBNAIL * THUMBNAIL), np.uint8)
    files, pixels = np.zeros(n, "V16"), np.zeros(n, "V16")
    sizes, modes, formats = np.zeros((n, 2), np.int32), np.full(n, "", "U8"), np.full(n, "", "U8")
    errors: dict[int, str] = {}
    for row, one in enumerate(_in_order(part, channels, workers)):
        if isinstance(one, str):
            errors[row] = one
        else:
            files[row], pixels[row] = np.void(one.file), np.void(one.pixels)
            grids[row], thumbnails[row] = one.grid, one.thumbnail
            sizes[row], modes[row], formats[row] = one.size, one.mode, one.format
        if row % 256 == 255 or row == n - 1:
            progress(row + 1, n)
    return Fingerprints(
        files=files if isinstance(part, Encoded) else None,
        pixels=pixels,
        along_rows=_packed(grids[:, :-1, 1:] > grids[:, :-1, :-1]),
        along_columns=_packed(grids[:, 1:, :-1] > grids[:, :-1, :-1]),
        thumbnails=thumbnails,
        sizes=sizes,
        modes=modes,
        formats=formats,
        errors=errors,
    )


def picture(part: Source | Encoded, row: int, channels: int) -> Image.Image:
    """One example as a picture in mode L or RGB.

    Raises:
      Exception: whatever Pillow or the source raise on an image that cannot be read.
    """
    if isinstance(part, Encoded):
        return _image(decode(part.encoded(row), View(size=0, channels=channels)))
    return _image(part[row]["image"])


def _in_order(part: Source | Encoded, channels: int, workers: int) -> Iterator[_One | str]:
    waiting: deque[Future[list[_One | str]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="check")

    def several(rows: range) -> list[_One | str]:
        return [_read(part, row, channels) for row in rows]

    try:
        for first in range(0, len(part), 16):
            waiting.append(pool.submit(several, range(first, min(first + 16, len(part)))))
            if len(waiting) >= 4 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(part: Source | Encoded, row: int, channels: int) -> _One | str:
    try:
        if isinstance(part, Encoded):
            encoded = part.encoded(row)
            with Image.open(io.BytesIO(encoded)) as opened:
                size, mode, kind = opened.size, opened.mode, opened.format or "?"
            pixels = decode(encoded, View(size=0, channels=channels))
        else:
            encoded, pixels, kind = b"", part[row]["image"], "pixels"
            size, mode = (pixels.shape[1], pixels.shape[0]), _image(pixels).mode
    except UnidentifiedImageError:
        return "no image file that Pillow knows"
    except Exception as error:  # Pillow raises many kinds on damaged files; each is reported
        return f"{type(error).__name__}: {error}"
    # Grey, because re-encoding does most of its harm to colours.
    grey = _image(pixels).convert("L")
    small = grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    grid = grey.resize((_GRID, _GRID), Image.Resampling.BILINEAR)
    digest = hashlib.blake2b(f"{pixels.shape}".encode(), digest_size=16)
    digest.update(pixels.tobytes())
    return _One(
        file=hashlib.blake2b(encoded, digest_size=16).digest(),
        pixels=digest.digest(),
        grid=np.asarray(grid),
        thumbnail=np.asarray(small).reshape(-1),
        size=size,
        mode=mode,
        format=kind,
    )


def _image(pixels: UInt8[np.ndarray, "height width channels"]) -> Image.Image:
    return Image.fromarray(
        pixels[..., 0] if pixels.shape[-1] == 1 else np.ascontiguousarray(pixels)
    )


def _packed(bits: Bool[np.ndarray, "rows 8 8"]) -> UInt64[np.ndarray, "rows"]:
    return np.packbits(bits.reshape(len(bits), 64), axis=1).view(np.uint64)[:, 0]
