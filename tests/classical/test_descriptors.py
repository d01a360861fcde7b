"""Features by hand against scikit-image and OpenCV called directly, and against sums by hand."""

import cv2
import numpy as np
import pytest
from skimage import feature

from imgrec.classical import descriptors
from imgrec.errors import UserError

GREY = np.random.default_rng(0).integers(0, 256, (3, 16, 20, 1), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (3, 16, 20, 3), np.uint8)


def test_pixels():
    rows = descriptors.pixels(COLOUR)
    np.testing.assert_array_equal(rows, COLOUR.reshape(3, -1) / np.float32(255))


def test_hog():
    rows = descriptors.hog(GREY, orientations=7, cell=5, block=2)
    for image, row in zip(GREY, rows, strict=True):
        expected = feature.hog(
            image[..., 0], 7, (5, 5), (2, 2), block_norm="L2-Hys", feature_vector=True
        )
        np.testing.assert_allclose(row, expected, atol=1e-6)
    assert rows.shape == (3, 2 * 3 * 2 * 2 * 7)
    assert descriptors.hog(COLOUR).shape == (3, 3 * 4 * 2 * 2 * 9)


def test_hog_of_an_image_too_small():
    with pytest.raises(UserError, match="does not fit into images of 16x20"):
        descriptors.hog(GREY, cell=9)


def test_lbp():
    (row,) = descriptors.lbp(GREY[:1], cells=1)
    codes = feature.local_binary_pattern(GREY[0, ..., 0], 8, 1.0, "nri_uniform").astype(int)
    np.testing.assert_allclose(row, np.bincount(codes.ravel(), minlength=59) / 320, atol=1e-7)
    assert descriptors.lbp(COLOUR, cells=3).shape == (3, 9 * 59)
    np.testing.assert_allclose(descriptors.lbp(COLOUR, cells=3).sum(1), 9, rtol=1e-5)


def test_colour():
    (row,) = descriptors.colour(COLOUR[:1], bins=4)
    expected = cv2.calcHist([COLOUR[0]], [0, 1, 2], None, [4, 4, 4], [0, 256] * 3)
    np.testing.assert_allclose(row, expected.ravel() / 320, atol=1e-7)


def test_cells_go_row_by_row():
    image = np.zeros((1, 4, 4, 1), np.uint8)
    image[0, :2, 2:] = 255  # the upper right
    rows = descriptors.colour(image, bins=2, cells=2)
    np.testing.assert_array_equal(rows, [[1, 0, 0, 1, 1, 0, 1, 0]])


def test_edges_of_a_step():
    image = np.zeros((1, 8, 8, 1), np.uint8)
    image[..., 4:, :] = 200
    np.testing.assert_allclose(
        descriptors.edges(image, orientations=4, cells=1), [[1, 0, 0, 0]], atol=1e-6
    )
    turned = np.swapaxes(image, 1, 2)
    np.testing.assert_allclose(
        descriptors.edges(turned, orientations=4, cells=1), [[0, 1, 0, 0]], atol=1e-6
    )
    np.testing.assert_allclose(
        descriptors.edges(255 - image, orientations=4, cells=1), [[0, 0, 1, 0]], atol=1e-6
    )
    assert not descriptors.edges(np.full((1, 8, 8, 1), 7, np.uint8)).any()


def test_gabor_answers_its_own_direction_and_no_brightness():
    wave = np.cos(2 * np.pi * np.arange(32) / 8)
    stripes = np.rint(127.5 + 100 * wave).astype(np.uint8)
    image = np.broadcast_to(stripes[None, None, :, None], (1, 32, 32, 1))
    rows = descriptors.gabor(image, orientations=4, wavelengths=(8.0,), cells=1)
    means = rows.reshape(4, 2)[:, 0]
    assert means.argmax() == 0
    assert means[0] > 5 * means[2]
    flat = np.full((1, 32, 32, 1), 180, np.uint8)
    assert np.abs(descriptors.gabor(flat)).max() < 1e-4


def test_deskewing_undoes_a_shear():
    image = np.zeros((40, 40), np.uint8)
    image[8:32, 18:22] = 255
    slanted = cv2.warpAffine(image, np.array([[1, 0.4, -8], [0, 1, 0]], np.float32), (40, 40))
    (upright,) = descriptors.deskewed(slanted[None, ..., None])
    moments = cv2.moments(upright[..., 0])
    assert abs(cv2.moments(slanted)["mu11"] / cv2.moments(slanted)["mu02"]) > 0.3
    assert abs(moments["mu11"] / moments["mu02"]) < 0.02
    empty = np.zeros((1, 8, 8, 3), np.uint8)
    np.testing.assert_array_equal(descriptors.deskewed(empty), empty)


def test_channels_that_are_no_colours():
    with pytest.raises(UserError, match="these have 4"):
        descriptors.lbp(np.zeros((1, 8, 8, 4), np.uint8))


def test_more_cells_than_pixels():
    with pytest.raises(UserError, match=r"cells=17: images of 16x20"):
        descriptors.edges(GREY, cells=17)
