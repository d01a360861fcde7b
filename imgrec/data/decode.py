"""From the bytes of an image file to pixels: upright, in the channels asked, of the part asked.

Whatever the file holds (palette, transparency, CMYK, 16 or 1 bits, several frames) comes out
as grey, RGB or RGBA of 8 bits:

- The first frame of an animation is the image.
- Transparency is laid on white, which cut-outs, logos and plots are drawn for; 4 channels keep it.
- 16 bits a channel are scaled by 1/256 (the high byte), not clipped.
- CMYK in JPEG is read as Adobe writes it, inverted.
- EXIF orientation is honoured.

JPEG files are decoded at 1/2, 1/4 or 1/8 of their size, by leaving out high frequencies of
their cosine transform, where the part asked then still has twice the pixels of the result. The
antialiased resize goes on from there; `tests/data/test_decode.py` bounds what that changes.

The resize is Pillow's, to the bit. A random crop to train on may have a fast one instead
(`exact=False`), in two fifths of the time: the same triangle filter by vector instructions, with
weights of 16 bits for Pillow's 22 and its two passes the other way round. So a value may come out
1 away from Pillow's, as one in eight of a photograph does, up as often as down, or hardly ever 2.
It is the same bits with and without AVX2 or SSE4.1. Where the package has no wheel Pillow stands
in, so runs that are to have equal random crops to the bit have it all or have it none.
"""

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile

try:  # libjpeg-turbo straight into an array; where it has no wheel, Pillow gives the same bits
    import simplejpeg
except ImportError:
    simplejpeg = None
try:  # resizes faster, see above
    import cykooz_resizer
except ImportError:
    cykooz_resizer = None

Box = tuple[float, float, float, float]  # left, upper, right, lower
Window = tuple[int, int, int, int]  # likewise, whole pixels
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # what comes out, by number of channels

_BACKGROUND = 255
_OVERSAMPLING = 2  # least pixels of the decoded part for one of the result, along each side
_REACH = {Image.Resampling.BILINEAR: 1, Image.Resampling.BICUBIC: 2}  # pixels, not shrinking
_ORIENTATION = 0x0112  # EXIF tag


class BrokenImageError(Exception):
    """The bytes are no image that can be read in full; the message says why."""


def pixels(
    encoded: bytes,
    channels: int,
    size: int = 0,
    crop: Callable[[int, int], Box] | None = None,
    resample: Image.Resampling = Image.Resampling.BILINEAR,
    *,
    exact: bool = True,
) -> UInt8[np.ndarray, "height width {channels}"]:
    """The pixels of an image file.

    Args:
      encoded: the whole file.
      channels: 1 for grey, 3 for RGB, 4 for RGBA.
      size: side of the square that the part asked is resized to; 0 for no resizing.
      crop: function of the upright width and height that says which part; None for all of it.
      resample: Pillow's filter.
      exact: resize as Pillow does, to the bit; False where 2 of 255 do not matter and time does,
        which tells with bilinear grey and RGB. See the module.

    Raises:
      BrokenImageError: the file is truncated, damaged, or no image.
    """
    try:
        return _pixels(encoded, channels, size, crop, resample, exact)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise whatever broken bytes lead them to
        raise _broken(encoded, error) from None


def check(encoded: bytes) -> tuple[int, int]:
    """Reads a whole image file, as cheaply as that can be done; its upright width and height.

    Raises:
      BrokenImageError: as `pixels` would raise it.
    """
    try:
        image = Image.open(io.BytesIO(encoded))
        width, height = image.size
        if image.format in _JPEG:
            orientation = _orientation(image)
            image.draft(None, (1, 1))  # all bytes are still read
            image.load()
        else:
            if image.format == "PNG":  # its checksums, which decoding passes over
                Image.open(io.BytesIO(encoded)).verify()
            image.load()
            (width, height), orientation = image.size, _orientation(image)
        _converted(image, "RGB")
    except MemoryError:
        raise
    except Exception as error:
        raise _broken(encoded, error) from None
    return (height, width) if orientation >= 5 else (width, height)


_JPEG = ("JPEG", "MPO")  # MPO: a JPEG followed by others, as some cameras write


def _broken(encoded: bytes, error: Exception) -> BrokenImageError:
    if not encoded:
        return BrokenImageError("the file is empty")
    if isinstance(error, Image.UnidentifiedImageError):
        return BrokenImageError("no image format that Pillow knows")
    return BrokenImageError(str(error) or type(error).__name__)


def _pixels(
    encoded: bytes,
    channels: int,
    size: int,
    crop: Callable[[int, int], Box] | None,
    resample: Image.Resampling,
    exact: bool,
) -> UInt8[np.ndarray, "height width channels"]:
    image: Image.Image = Image.open(io.BytesIO(encoded))
    is_jpeg = image.format in _JPEG
    if not is_jpeg:
        image.load()  # some formats tell orientation or transparency only then
    orientation = _orientation(image)
    width, height = image.size
    upright = (height, width) if orientation >= 5 else (width, height)
    box = crop(*upright) if crop is not None else (0.0, 0.0, float(upright[0]), float(upright[1]))
    box = _as_stored(box, orientation, *upright)
    factor = _reduction(box, size) if is_jpeg and min(width, height) >= 8 else 1
    # Pixel i of a reduced image covers pixels factor * i to factor * (i + 1).
    # Pillow keeps boxes in single precision. Rounded here, they are shifted below without another
    # rounding, and the pixels are those of the whole image's box, to the bit.
    left, upper, right, lower = (float(np.float32(edge / factor)) for edge in box)
    part: Image.Image | _Array = image
    if is_jpeg:
        window = _window((left, upper, right, lower), size, resample) if size else None
        part, (x, y) = _jpeg(encoded, image, channels, factor, window)
        left, upper, right, lower = left - x, upper - y, right - x, lower - y
    box = (left, upper, right, lower)
    if exact or not size or not _is_fast(channels, resample):
        image = _converted(_image(part), MODES[channels])
        if size and (image.size != (size, size) or box != (0, 0, size, size)):
            image = image.resize((size, size), resample, box=box)
        array = _array(image)
    else:
        if isinstance(part, Image.Image) or part.shape[2] != channels:
            part = _array(_converted(_image(part), MODES[channels]))
        array = _fast_resize(part, size, box)
    return _upright(array, orientation)


_Array = UInt8[np.ndarray, "height width channels"]


def _image(part: Image.Image | _Array) -> Image.Image:
    if isinstance(part, Image.Image):
        return part
    return Image.fromarray(part[..., 0] if part.shape[2] == 1 else part)


def _array(image: Image.Image) -> _Array:
    array = np.asarray(image)
    return array if array.ndim == 3 else array[..., None]


def _is_fast(channels: int, resample: Image.Resampling) -> bool:
    # Of four channels Pillow weighs three by the last. The fast bicubic filter is up to 24 off.
    bilinear = resample == Image.Resampling.BILINEAR
    return cykooz_resizer is not None and bilinear and channels in (1, 3)


def _fast_resize(image: _Array, size: int, box: Box) -> UInt8[np.ndarray, "{size} {size} channels"]:
    """The box of an image, bilinearly and antialiased, at most 2 from Pillow's.

    Both are within 1 of the exact value, as each of the two passes rounds by a half at most.
    """
    height, width, channels = image.shape
    kind = cykooz_resizer.PixelType.U8 if channels == 1 else cykooz_resizer.PixelType.U8x3
    left, upper, right, lower = box
    options = cykooz_resizer.ResizeOptions(
        cykooz_resizer.ResizeAlg.convolution(cykooz_resizer.FilterType.bilinear),
        crop_box=cykooz_resizer.CropBox(left, upper, right - left, lower - upper),
    )
    result = cykooz_resizer.ImageData(size, size, kind)
    resizer = cykooz_resizer.Resizer()  # costs nothing; a shared one lets one thread in at a time
    resizer.resize(cykooz_resizer.ImageData(width, height, kind, image.tobytes()), result, options)
    return np.frombuffer(result.get_buffer(), np.uint8).reshape(size, size, channels)


def _upright(
    image: _Array, orientation: int
) -> UInt8[np.ndarray, "upright_height upright_width channels"]:
    """A stored image as it is to be seen."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):  # x runs against what it is stored as
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image


def _orientation(image: Image.Image) -> int:
    """EXIF's 1 to 8; 1, upright, where it says nothing or nonsense."""
    if image.format in _JPEG and not image.info.keys() & {"exif", "xmp"}:
        return 1  # at once, as most files are
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF does not damage the pixels
        return 1
    return orientation if orientation in range(1, 9) else 1


def _as_stored(box: Box, orientation: int, width: int, height: int) -> Box:
    """A box of the upright image of this size, as the box of the stored one that shows it."""
    left, upper, right, lower = box
    if orientation in (2, 3, 6, 7):  # upright x runs against what it is stored as
        left, right = width - right, width - left
    if orientation in (3, 4, 7, 8):
        upper, lower = height - lower, height - upper
    return (left, upper, right, lower) if orientation < 5 else (upper, left, lower, right)


def _reduction(box: Box, size: int) -> int:
    """The largest of 1, 2, 4, 8 that leaves the box enough pixels."""
    if not size:
        return 1
    side = min(box[2] - box[0], box[3] - box[1])
    return next(k for k in (8, 4, 2, 1) if k == 1 or side >= k * _OVERSAMPLING * size)


def _window(box: Box, size: int, resample: Image.Resampling) -> Window:
    """What Pillow's filter reads of an image to resize a box of it, in whole pixels and amply."""
    reach = _REACH[resample]
    left, upper, right, lower = box
    x, y = (
        math.ceil(reach * max(1.0, length / size)) + 1 for length in (right - left, lower - upper)
    )
    return (
        max(0, math.floor(left) - x),
        max(0, math.floor(upper) - y),
        math.ceil(right) + x,
        math.ceil(lower) + y,
    )


def _jpeg(
    encoded: bytes, header: Image.Image, channels: int, factor: int, window: Window | None
) -> tuple[Image.Image | _Array, tuple[int, int]]:
    """A JPEG at 1/factor of its size: by simplejpeg if it can, else by Pillow.

    Returns:
      The image, or a part of it that holds the window, and the part's left and upper edge.
    """
    # The luma of a colour JPEG is its grey, so neither decoder makes colours to drop them.
    grey = header.mode == "L" or (channels == 1 and header.mode == "RGB")
    width, height = -(-header.width // factor), -(-header.height // factor)
    if simplejpeg is not None and header.mode in ("L", "RGB"):
        try:
            array = simplejpeg.decode_jpeg(
                encoded, "GRAY" if grey else "RGB", min_height=height, min_width=width
            )
            if array.shape[:2] == (height, width):
                x, y = 0, 0
                if window is not None:  # both resizes copy it, so no more than needed
                    x, y, right, lower = window
                    array = array[y:lower, x:right]
                return array, (x, y)
        except ValueError:
            pass  # it is stricter; what is an image and what is not, Pillow decides
    assert isinstance(header, ImageFile.ImageFile)
    if grey or factor > 1:
        # Pillow rounds this way: the least size that it may come to.
        header.draft("L" if grey else None, (header.width // factor, header.height // factor))
    header.load()
    return header, (0, 0)


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """The image in mode L, RGB or RGBA, see the module."""
    if image.mode.startswith("I"):
        image = _of_16_bits(image)
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ValueError(
            "its pixels are floats, whose white is not known; save it with 8 or 16 bits"
        )
    if _has_alpha(image):
        image = image.convert("RGBA")
        if mode == "RGBA":
            return image
        background = Image.new("RGBA", image.size, (_BACKGROUND,) * 4)
        image = Image.alpha_composite(background, image).convert("RGB")
    elif image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    return image.convert(mode)


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _of_16_bits(image: Image.Image) -> Image.Image:
    values: Any = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError(
            "its pixels have more than 16 bits, whose white is not known; save it with 8 or 16"
        )
    return Image.fromarray((values >> 8).astype(np.uint8))
