"""Features by hand: functions from images to one row of numbers an image.

Each takes uint8 [n, height, width, channels] and returns float32 [n, features]; its keyword-only
parameters are its options. Where a method knows grey images alone, colours are turned into grey.
"""

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from skimage import feature

from imgrec.errors import UserError

Images = UInt8[np.ndarray, "n height width channels"]
Rows = Float32[np.ndarray, "n features"]
Grey = UInt8[np.ndarray, "n height width"]


def pixels(images: Images) -> Rows:
    """The levels of all pixels, on the scale [0, 1]."""
    return images.reshape(len(images), -1).astype(np.float32) / 255


def hog(images: Images, *, orientations: int = 9, cell: int = 4, block: int = 2) -> Rows:
    """Histograms of oriented gradients (Dalal and Triggs 2005), by scikit-image.

    Args:
      images: of which, in colour, each pixel counts by its channel of the largest gradient.
      orientations: bins over 180 degrees.
      cell: side of a cell, whose gradients make a histogram, in pixels.
      block: side of a block, within which histograms are normalised (L2-Hys), in cells.
    """
    height, width = images.shape[1:3]
    if min(height, width) // cell < block:
        raise UserError(
            f"config.features.options: a block of {block}x{block} cells of {cell}x{cell} pixels "
            f"does not fit into images of {height}x{width}; make cell or block smaller."
        )
    described = [
        feature.hog(
            image,
            orientations=orientations,
            pixels_per_cell=(cell, cell),
            cells_per_block=(block, block),
            block_norm="L2-Hys",
            channel_axis=-1,
        )
        for image in images
    ]
    return np.asarray(described, np.float32)


def lbp(images: Images, *, points: int = 8, radius: float = 1.0, cells: int = 4) -> Rows:
    """Histograms of uniform local binary patterns (Ojala et al. 2002), cell by cell.

    A pattern tells which of the points around a pixel are at least as bright; those with more
    than two changes around the circle share one bin (the "u2" of Ahonen et al. 2006).

    Args:
      images: turned into grey.
      points: around each pixel.
      radius: of their circle, in pixels.
      cells: that the image is cut into along each axis; each has a histogram, of sum 1.
    """
    grey = grey_of(images)
    _check_cells(grey, cells)
    patterns = [feature.local_binary_pattern(g, points, radius, "nri_uniform") for g in grey]
    bins = points * (points - 1) + 3
    return _histograms(np.asarray(patterns).astype(np.int64), None, bins, cells)


def colour(images: Images, *, bins: int = 8, cells: int = 1) -> Rows:
    """The joint histogram of the channels' levels (Swain and Ballard 1991), of sum 1 a cell.

    Args:
      images: whose channels have `bins` bins each, so 512 together in colour, and 8 in grey.
      bins: of equal width for each channel.
      cells: that the image is cut into along each axis.
    """
    _check_cells(images, cells)
    joint = np.zeros(images.shape[:3], np.int64)
    for channel in range(images.shape[3]):
        joint = joint * bins + images[..., channel].astype(np.int64) * bins // 256
    return _histograms(joint, None, bins ** images.shape[3], cells)


def edges(images: Images, *, orientations: int = 8, cells: int = 4) -> Rows:
    """How strong edges are in each direction and cell: gradients of Sobel, by OpenCV.

    Args:
      images: turned into grey.
      orientations: bins over 360 degrees, so that dark on bright is not bright on dark.
      cells: that the image is cut into along each axis. All histograms together have the sum 1;
        of an image without an edge they are 0.
    """
    grey = grey_of(images)
    _check_cells(grey, cells)
    across = np.stack([cv2.Sobel(g, cv2.CV_32F, 1, 0) for g in grey])
    down = np.stack([cv2.Sobel(g, cv2.CV_32F, 0, 1) for g in grey])
    turn = np.arctan2(down, across) / (2 * np.pi)  # of a whole one, from -1/2 to 1/2
    # Bins have their middle at 0, 1/orientations, ...: edges along the axes are no borderline.
    bins = np.rint(turn * orientations).astype(np.int64) % orientations
    strength = np.hypot(across, down)
    rows = _histograms(bins, strength, orientations, cells)
    return rows / np.maximum(rows.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)


def gabor(
    images: Images,
    *,
    orientations: int = 6,
    wavelengths: tuple[float, ...] = (4.0, 8.0),
    cells: int = 4,
) -> Rows:
    """Texture by Gabor filters (Manjunath and Ma 1996): mean and deviation of answers in cells.

    The answer of a pair of filters, even and odd, is its magnitude. The even one has no answer to
    an even grey, and neither depends on how bright the image is.

    Args:
      images: turned into grey, on the scale [0, 1].
      orientations: of the filters over 180 degrees.
      wavelengths: of the filters, in pixels; their width (sigma) is half of it.
      cells: that the image is cut into along each axis.
    """
    grey = grey_of(images)
    _check_cells(grey, cells)
    rows = []
    for image in grey.astype(np.float32) / 255:
        for even, odd in _gabor_pairs(orientations, wavelengths):
            answers = [
                cv2.filter2D(image, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT)
                for kernel in (even, odd)
            ]
            magnitude = np.hypot(*answers)
            for part in _parts(magnitude, cells):
                rows.append((part.mean(), part.std()))
    return np.asarray(rows, np.float32).reshape(len(images), -1)


def _gabor_pairs(
    orientations: int, wavelengths: tuple[float, ...]
) -> list[tuple[np.ndarray, np.ndarray]]:
    pairs = []
    for wavelength in wavelengths:
        sigma = wavelength / 2
        side = 2 * int(np.ceil(3 * sigma)) + 1
        for i in range(orientations):
            even, odd = (
                cv2.getGaborKernel(
                    (side, side), sigma, np.pi * i / orientations, wavelength, 1.0, phase
                )
                for phase in (0.0, np.pi / 2)
            )
            envelope = cv2.getGaborKernel((side, side), sigma, 0.0, 1e9, 1.0, 0.0)
            even = even - envelope * (even.sum() / envelope.sum())
            scale = envelope.sum()
            pairs.append((even / scale, odd / scale))
    return pairs


def deskewed(images: Images) -> Images:
    """Images sheared so that bright strokes stand upright: their second mixed moment vanishes.

    An image without anything bright, or flat in height, stays as it is.
    """
    return np.stack([_deskewed(image) for image in images])


def _deskewed(image: UInt8[np.ndarray, "height width channels"]) -> np.ndarray:
    moments = cv2.moments(grey_of(image[None])[0])
    if abs(moments["mu02"]) < 1e-2:
        return image
    slant = moments["mu11"] / moments["mu02"]
    centre = moments["m01"] / moments["m00"]  # the row that stays in its place
    matrix = np.array([[1, slant, -slant * centre], [0, 1, 0]], np.float32)
    sheared = cv2.warpAffine(
        image,
        matrix,
        (image.shape[1], image.shape[0]),
        flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR,
    )
    return sheared.reshape(image.shape)


def grey_of(images: Images) -> Grey:
    """Images in grey, by ITU-R 601's weights where they have three channels."""
    if images.shape[3] == 1:
        return images[..., 0]
    if images.shape[3] != 3:
        raise UserError(
            f"Features in grey are made of images with 1 or 3 channels; these have "
            f"{images.shape[3]}. Set --config.data.channels=3."
        )
    return np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images])


def _histograms(bins: np.ndarray, weights: np.ndarray | None, count: int, cells: int) -> Rows:
    """Histograms of each cell of each image, one after the other; of sum 1 without weights."""
    n = len(bins)
    found = []
    first = np.arange(n)[:, None] * count
    across = _parts(np.moveaxis(bins, 0, -1), cells)
    heavy = across if weights is None else _parts(np.moveaxis(weights, 0, -1), cells)
    for part, weight in zip(across, heavy, strict=True):
        rows = part.reshape(-1, n).T  # [n, pixels]
        heights = None if weights is None else weight.reshape(-1, n).T.ravel()
        counted = np.bincount((rows + first).ravel(), heights, minlength=n * count)
        counted = counted.reshape(n, count).astype(np.float64)
        found.append(counted if weights is not None else counted / rows.shape[1])
    return np.concatenate(found, axis=1).astype(np.float32)


def _parts(array: np.ndarray, cells: int) -> list[np.ndarray]:
    """The cells of the first two axes, row by row, as equal as whole pixels allow."""
    return [
        part
        for strip in np.array_split(array, cells, axis=0)
        for part in np.array_split(strip, cells, axis=1)
    ]


def _check_cells(images: np.ndarray, cells: int) -> None:
    height, width = images.shape[1:3]
    if cells > min(height, width):
        raise UserError(
            f"config.features.options.cells={cells}: images of {height}x{width} have not as many "
            "pixels along an axis."
        )
