import io

import numpy as np
import pytest
from PIL import Image

from imgrec.data.dataset import ArraySource, Split, Subset
from imgrec.data.view import DecodedSource, View
from imgrec.evaluation.groups import image_columns

RED, GREY = (255, 0, 0), (128, 128, 128)


def filled(colour, side=8):
    return np.broadcast_to(np.array(colour, np.uint8), (side, side, 3)).copy()


def split_of(images):
    source = ArraySource(images, np.zeros(len(images), np.int32))
    return Split("test", source, np.arange(len(images)))


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_measures_are_those_of_a_slow_computation():
    images = noise((5, 12, 9, 3))
    found = image_columns.measures(images)
    pixels = images / 255
    luma = pixels @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(found["brightness"], luma.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found["contrast"], luma.std((1, 2)), rtol=1e-5)
    around = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:]
    detail = (around - 4 * luma[:, 1:-1, 1:-1]).std((1, 2))
    np.testing.assert_allclose(found["sharpness"], detail / luma.std((1, 2)), rtol=1e-5)
    red_green = pixels[..., 0] - pixels[..., 1]
    yellow_blue = (pixels[..., 0] + pixels[..., 1]) / 2 - pixels[..., 2]
    spread = np.hypot(red_green.std((1, 2)), yellow_blue.std((1, 2)))
    away = np.hypot(red_green.mean((1, 2)), yellow_blue.mean((1, 2)))
    np.testing.assert_allclose(found["colourfulness"], spread + 0.3 * away, rtol=1e-4)


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        (RED, "red"),
        ((250, 240, 10), "yellow"),
        ((0, 90, 0), "green"),
        ((0, 200, 210), "cyan"),
        ((20, 20, 200), "blue"),
        ((200, 0, 190), "magenta"),
        ((255, 0, 60), "red"),  # on either side of the pure colour
        ((255, 60, 0), "red"),
        (GREY, "grey"),
        ((0, 0, 0), "grey"),
        ((130, 128, 126), "grey"),
    ],
)
def test_hues_have_the_names_people_give_them(colour, name):
    assert image_columns.measures(filled(colour)[None])["hue"].tolist() == [name]


def test_detail_is_sharp_and_a_ramp_is_not_at_any_contrast():
    board = (np.indices((16, 16)).sum(0) % 2 * 200 + 20).astype(np.uint8)
    faint = (np.indices((16, 16)).sum(0) % 2 * 20 + 100).astype(np.uint8)
    ramp = np.broadcast_to(np.arange(16, dtype=np.uint8) * 16, (16, 16))
    sharp, also_sharp, soft, plain = image_columns.measures(
        np.stack([board, faint, ramp, np.full_like(ramp, 77)])[..., None]
    )["sharpness"]
    assert sharp == pytest.approx(also_sharp, rel=1e-3)
    assert soft < 0.05 * sharp
    assert plain == 0


def test_grey_images_have_no_columns_of_colour_and_transparency_is_no_colour():
    names = {"brightness", "contrast", "sharpness"}
    assert image_columns.measures(noise((2, 4, 4, 1))).keys() == names
    colours = noise((2, 4, 4, 4))
    four, three = image_columns.measures(colours), image_columns.measures(colours[..., :3])
    assert four.keys() == names | {"colourfulness", "hue"}
    for name, values in three.items():
        np.testing.assert_array_equal(four[name], values)


def test_columns_are_in_the_order_of_the_split_whatever_the_batches(monkeypatch):
    images = noise((23, 6, 6, 3))
    rows = np.random.default_rng(1).permutation(23)[:17]
    split = Split("test", ArraySource(images, np.zeros(23, np.int32)), rows)
    expected = image_columns.measures(images[rows])
    for pixels in (36, 180, 2**16):
        monkeypatch.setattr(image_columns, "_PIXELS_AT_ONCE", pixels)
        found = image_columns.derived_columns(split)
        assert found.keys() == expected.keys() <= set(image_columns.NAMES)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)


def test_tiny_images_and_empty_splits_are_no_failure():
    assert image_columns.measures(noise((3, 2, 2, 3)))["sharpness"].tolist() == [0, 0, 0]
    assert image_columns.derived_columns(split_of(noise((0, 4, 4, 3)))) == {}


class Files:
    def __init__(self, files):
        self.files = files

    def __len__(self):
        return len(self.files)

    def encoded(self, row):
        return self.files[row]

    def labels(self):
        return np.zeros(len(self.files), np.int32)

    def columns(self):
        return {}

    def where(self, row):
        return str(row)


def test_files_tell_their_own_size():
    files = []
    for width, height in ((30, 20), (9, 12), (16, 16)):
        stream = io.BytesIO()
        Image.new("RGB", (width, height)).save(stream, "PNG")
        files.append(stream.getvalue())
    source = DecodedSource(Files(files), View(size=8, channels=3))
    split = Split("test", Subset(source, np.array([2, 0, 1])), np.array([1, 2]))
    found = image_columns.derived_columns(split)
    assert found["file_short_side"].tolist() == [20, 9]
    assert set(found) == set(image_columns.NAMES)


def test_a_header_that_cannot_be_read_has_no_size():
    assert image_columns._short_side(b"no image") == 0
