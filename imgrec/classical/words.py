"""Bags of visual words (Csurka et al. 2004): which kinds of corners an image has, and how many.

Corners are found by Harris's measure or by ORB, described by ORB's 256 comparisons of levels
(Rublee et al. 2011), and told apart by a vocabulary: means of descriptors of training images.
"""

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from sklearn.cluster import MiniBatchKMeans

from imgrec.classical.descriptors import grey_of
from imgrec.errors import UserError

Images = UInt8[np.ndarray, "n height width channels"]
Vocabulary = Mapping[str, np.ndarray]

DETECTORS = ("harris", "orb")
SAMPLE = 5_000  # training images, at most, whose corners make the vocabulary
_SIDE = 96  # that smaller images are enlarged to, as ORB looks at 31x31 pixels around a corner
_BITS = 256
_MOST = 200_000  # descriptors that the vocabulary is made of


def words(
    images: Images,
    vocabulary: Vocabulary,
    *,
    detector: str = "harris",
    corners: int = 64,
    words: int = 256,
) -> Float32[np.ndarray, "n words"]:
    """The share of each word among an image's corners, as square roots; zeros without corners.

    Square roots make of Euclidean distances Hellinger's (Arandjelovic and Zisserman 2012).

    Args:
      images: turned into grey.
      vocabulary: that `learn` found with the same options.
      detector: "harris" or "orb".
      corners: of an image, at most: the strongest.
      words: of the vocabulary.
    """
    means = vocabulary["means"]
    # |bits - mean|^2 without |bits|^2, which all words share.
    squares = (means**2).sum(axis=1)
    rows = np.zeros((len(images), words), np.float32)
    for row, bits in zip(rows, _described(images, detector, corners), strict=True):
        if len(bits):
            nearest = (squares - 2 * bits @ means.T).argmin(axis=1)
            row[:] = np.sqrt(np.bincount(nearest, minlength=words) / len(bits))
    return rows


def learn(
    images: Images, seed: int, *, detector: str = "harris", corners: int = 64, words: int = 256
) -> dict[str, np.ndarray]:
    """The vocabulary of training images: means of their corners' descriptors, by k-means.

    Returns:
      {"means": float32[words, 256]}.

    Raises:
      UserError: the images have fewer corners than there are to be words.
    """
    if detector not in DETECTORS:
        raise UserError(
            f"config.features.options.detector={detector!r} is none of {', '.join(DETECTORS)}."
        )
    bits = np.concatenate([*_described(images, detector, corners), np.zeros((0, _BITS), "f4")])
    rng = np.random.default_rng(seed)
    bits = rng.permutation(bits)[:_MOST]
    if len(bits) < words:
        raise UserError(
            f"config.features.options.words={words}: the {len(images):,} training images have "
            f"{len(bits):,} corners together. Set fewer words, or more corners an image."
        )
    means = MiniBatchKMeans(words, random_state=seed, n_init=1, batch_size=4096).fit(bits)
    return {"means": means.cluster_centers_.astype(np.float32)}


def _described(images: Images, detector: str, corners: int) -> list[np.ndarray]:
    """Descriptors of each image's corners, float32 [corners, 256] of 0 and 1."""
    orb = cv2.ORB.create(nfeatures=corners, fastThreshold=5, edgeThreshold=16)
    found = []
    for image in grey_of(images):
        image = _enlarged(image)
        points = orb.detect(image) if detector == "orb" else _harris(image, corners)
        _, codes = orb.compute(image, points)
        codes = np.zeros((0, _BITS // 8)) if codes is None else codes  # none without corners
        found.append(np.unpackbits(codes.astype(np.uint8), axis=1).astype(np.float32))
    return found


def _enlarged(image: np.ndarray) -> np.ndarray:
    scale = _SIDE / min(image.shape)
    if scale <= 1:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def _harris(image: np.ndarray, corners: int) -> list[cv2.KeyPoint]:
    """The strongest local maxima of Harris and Stephens's measure (1988), as upright corners.

    Those below a hundredth of the image's strongest are none.
    """
    measure = cv2.cornerHarris(image.astype(np.float32) / 255, 3, 3, 0.04)
    peaks = (measure == cv2.dilate(measure, np.ones((5, 5)))) & (measure > 0.01 * measure.max())
    y, x = np.nonzero(peaks)
    strongest = np.argsort(-measure[y, x], kind="stable")[:corners]
    # ORB turns its comparisons by the angle of a corner, which is 0 here.
    return [cv2.KeyPoint(float(x[i]), float(y[i]), 31.0, 0.0) for i in strongest]
