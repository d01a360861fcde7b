"""What can be measured of the images themselves, as columns that results are grouped by.

Nobody labels images as dark or blurred, but a model may fail on those: each measure here is one
number (or one name) an image, and `imgrec.evaluation.groups.groups` cuts the numbers into quarters.
"""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float32, Int64, Shaped, UInt8
from PIL import Image, UnidentifiedImageError

from imgrec.data.dataset import Encoded, Split, Subset
from imgrec.data.view import DecodedSource

# Every name that `derived_columns` may give.
NAMES = ("brightness", "contrast", "sharpness", "colourfulness", "hue", "file_short_side")

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
# Red - green, and yellow - blue.
_OPPONENTS = np.array([[1, -1, 0], [0.5, 0.5, -1]], np.float32)
_HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")  # 60 degrees of the circle each
_GREY = 0.03  # chroma of the mean colour, on [0, 1], below which it has no hue to speak of
_PIXELS_AT_ONCE = 2**16  # of a batch, which then stays in the processor's cache
_PLAIN = 1e-3  # standard deviation, on [0, 1], below which an image has nothing to be sharp


def derived_columns(split: Split, *, threads: int = 4) -> dict[str, Shaped[np.ndarray, " n"]]:
    """`measures` of every image of a split, in its order; images are read once, in batches.

    Returns:
      The columns of `measures`, and of images that are files `file_short_side`: the pixels of
      the file's own shorter side, before any resizing (0 where its header cannot be read).
      Nothing for a split without images.
    """
    if not len(split):
        return {}
    height, width, _ = split[0]["image"].shape
    batch_size = max(1, _PIXELS_AT_ONCE // (height * width))
    positions = np.arange(len(split))
    batches = [positions[i : i + batch_size] for i in range(0, len(split), batch_size)]
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(lambda batch: measures(split.gather(batch)["image"]), batches))
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if (found := _files(split)) is not None:
            files, rows = found
            sides = pool.map(lambda row: _short_side(files.encoded(row)), rows.tolist())
            columns["file_short_side"] = np.fromiter(sides, np.int64, len(rows))
    return columns


def measures(
    images: UInt8[np.ndarray, "batch height width channels"],
) -> dict[str, Shaped[np.ndarray, " batch"]]:
    """What each image of a batch looks like.

    Everything but the sharpness follows from the mean and covariance of an image's colours.

    Returns:
      brightness: mean luma on [0, 1].
      contrast: standard deviation of the luma (RMS contrast, Peli 1990).
      sharpness: standard deviation of the luma's Laplacian (3x3) over the contrast, so that
        it tells fine detail from coarse at any contrast; 0 of a plain image.
      colourfulness: of colour images, about 0 to 1 (Hasler & Suesstrunk 2003, eq. 11).
      hue: of colour images, the name of the mean colour's hue, "grey" where it has none.
    """
    batch, height, width, channels = images.shape
    colours = 3 if channels >= 3 else 1  # a fourth channel is transparency
    planes = np.moveaxis(images[..., :colours], 3, 0).reshape(colours, batch, height * width)
    planes = planes.astype(np.float32) / np.float32(255)
    mean = planes.mean(axis=2)
    planes -= mean[..., None]
    luma = _luma(planes)

    contrast = np.sqrt(np.einsum("bp,bp->b", luma, luma) / np.float32(height * width))
    plain = contrast < _PLAIN
    detail = _laplacian(luma.reshape(batch, height, width)).std(axis=(1, 2))
    columns = {
        "brightness": _luma(mean),
        "contrast": contrast,
        "sharpness": np.where(plain, 0, detail / np.where(plain, 1, contrast)),
    }
    if colours == 3:
        columns["colourfulness"] = _colourfulness(planes, mean)
        columns["hue"] = _hue(mean)
    return columns


def _luma(planes: Float32[np.ndarray, "colours *shape"]) -> Float32[np.ndarray, "*shape"]:
    """Term by term, so that a number does not depend on the batch that it was computed in."""
    if len(planes) == 1:
        return planes[0]
    luma = planes[0] * _LUMA[0]
    for plane, weight in zip(planes[1:], _LUMA[1:], strict=True):
        luma += plane * weight
    return luma


def _laplacian(
    luma: Float32[np.ndarray, "batch height width"],
) -> Float32[np.ndarray, "batch h w"]:
    """The four neighbours minus four times the pixel, inside of the border."""
    if min(luma.shape[1:]) < 3:
        return np.zeros((len(luma), 1, 1), np.float32)
    inside = luma[:, 1:-1, 1:-1] * np.float32(-4)
    inside += luma[:, :-2, 1:-1]
    inside += luma[:, 2:, 1:-1]
    inside += luma[:, 1:-1, :-2]
    inside += luma[:, 1:-1, 2:]
    return inside


def _colourfulness(
    centred: Float32[np.ndarray, "3 batch pixels"], mean: Float32[np.ndarray, "3 batch"]
) -> Float32[np.ndarray, " batch"]:
    """From the standard deviations and means of red - green and of yellow - blue."""
    covariance = np.empty((3, 3, mean.shape[1]), np.float32)
    for i in range(3):
        for j in range(i, 3):
            product = np.einsum("bp,bp->b", centred[i], centred[j])
            covariance[i, j] = covariance[j, i] = product / np.float32(centred.shape[2])
    variance = np.einsum("oi,ijb,oj->b", _OPPONENTS, covariance, _OPPONENTS)
    away = np.einsum("oi,ib->ob", _OPPONENTS, mean)
    spread = np.sqrt(np.maximum(variance, 0))
    return spread + np.float32(0.3) * np.sqrt((away**2).sum(axis=0))


def _hue(mean: Float32[np.ndarray, "3 batch"]) -> Shaped[np.ndarray, " batch"]:
    """Names of hues, each 60 degrees wide around the pure colour."""
    red, green, blue = mean
    angle = np.arctan2(np.sqrt(np.float32(3)) * (green - blue), 2 * red - green - blue)
    sector = np.round(angle / (np.pi / 3)).astype(int) % 6
    return np.where(np.ptp(mean, axis=0) < _GREY, "grey", np.array(_HUES)[sector])


def _files(split: Split) -> tuple[Encoded, Int64[np.ndarray, " n"]] | None:
    """The image files that a split shows, and which of their rows; None of other sources."""
    source, rows = split.source, split.rows
    while isinstance(source, Subset):
        rows, source = source.rows[rows], source.source
    return (source.encoded, rows) if isinstance(source, DecodedSource) else None


def _short_side(encoded: bytes) -> int:
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return min(image.size)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return 0
