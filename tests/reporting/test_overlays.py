import numpy as np
import pytest
from PIL import Image

from imgrec.reporting import overlays, plots
from imgrec.reporting.overlays import Column


def noise(n, height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(
        0, 256, (n, height, width, channels), dtype=np.uint8
    )


def ramp(height, width, low=0.0):
    return np.linspace(low, 1, height * width).reshape(height, width)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_map_of_nothing_leaves_the_grey_image(channels):
    image = noise(1, 6, 7, channels)[0]
    found = overlays.overlay(image, np.zeros((6, 7)))
    grey = image.astype(float).mean(axis=-1, keepdims=True)
    assert found.shape == (6, 7, 3)
    np.testing.assert_allclose(found, np.broadcast_to(grey, found.shape), atol=0.5)


def test_a_map_glows_the_more_the_higher_it_is():
    image = np.zeros((1, 64, 3), np.uint8)
    found = overlays.overlay(image, ramp(1, 64)).astype(int).sum(axis=-1)[0]
    assert np.all(np.diff(found) >= 0)
    assert found[0] == 0
    assert found[-1] > 500


def test_signed_maps_are_red_above_and_blue_below_zero():
    image = np.full((1, 5, 3), 128, np.uint8)
    values = np.array([[-1.0, -0.5, 0.0, 0.5, 1.0]])
    red, _, blue = np.moveaxis(overlays.overlay(image, values, signed=True).astype(int), -1, 0)
    np.testing.assert_array_equal(np.sign(red - blue)[0], [-1, -1, 0, 1, 1])
    mirrored = overlays.overlay(image, -values, signed=True)
    np.testing.assert_array_equal(
        np.sign(mirrored[..., 0].astype(int) - mirrored[..., 2])[0], [1, 1, 0, -1, -1]
    )


def test_one_peak_does_not_hide_the_rest_of_a_signed_map():
    image = np.full((20, 20, 3), 128, np.uint8)
    values = np.where(ramp(20, 20) < 0.5, 0.05, -0.05)
    values[0, 0] = 1.0
    found = overlays.overlay(image, values, signed=True).astype(int)
    assert np.abs(found[5, 5] - found[15, 15]).max() > 100
    lonely = np.zeros((20, 20))
    lonely[3, 4] = 1e-3  # fewer than one pixel in a hundred
    found = overlays.overlay(image, lonely, signed=True).astype(int)
    assert found[3, 4, 0] - found[3, 4, 2] > 50
    flat = overlays.overlay(image, np.zeros((20, 20)), signed=True)
    assert len(np.unique(flat)) == 1


@pytest.mark.parametrize(("height", "width", "size"), [(28, 28, 112), (32, 16, 128), (8, 8, 112)])
def test_a_sheet_shows_each_image_and_each_map_with_squares_for_pixels(height, width, size):
    images = noise(2, height, width)
    maps = np.stack([ramp(height, width), ramp(height, width)[::-1]]).astype(np.float32)
    columns = [Column("a method", maps), Column("another", 2 * maps - 1, signed=True)]
    sheet = overlays.explanation_sheet(images, ["first\nsaid", "second"], columns)
    factor = size // height
    expected = [images[1], overlays.overlay(images[1], maps[1])]
    expected.append(overlays.overlay(images[1], 2 * maps[1] - 1, signed=True))
    top, left = find(sheet, np.kron(images[0], np.ones((factor, factor, 1), np.uint8)))
    for j, picture in enumerate(expected):
        enlarged = np.kron(picture, np.ones((factor, factor, 1), np.uint8))
        y, x = top + size + 8, left + j * (width * factor + 8)
        shown = sheet[y : y + size, x : x + width * factor]
        np.testing.assert_array_equal(shown, enlarged)


def find(sheet, picture):
    """Where a picture is in a sheet."""
    height, width, _ = picture.shape
    first = (sheet == picture[0, 0]).all(axis=-1)
    for y, x in np.argwhere(first):
        if np.array_equal(sheet[y : y + height, x : x + width], picture):
            return y, x
    raise AssertionError("The picture is not in the sheet.")


def test_large_images_are_reduced(tmp_path):
    images = noise(8, 224, 300)
    maps = np.random.default_rng(1).random((8, 224, 300)).astype(np.float32)
    columns = [Column(f"method {i}", maps) for i in range(7)]
    sheet = overlays.explanation_sheet(images, ["caption"] * 8, columns)
    assert max(sheet.shape) < 1200
    plots.save_png(sheet, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size < 2e6


def test_captions_and_titles_stay_in_their_places():
    images = np.zeros((1, 28, 28, 1), np.uint8)
    column = Column(
        "a title of very many words that never would fit above it", np.zeros((1, 28, 28))
    )
    plain = overlays.explanation_sheet(images, ["a"], [Column("", column.maps)])
    titled = overlays.explanation_sheet(images, ["a"], [column])
    top, left = find(titled, np.zeros((112, 112, 3), np.uint8))
    assert (titled[: top - 1, left + 120 + 112 + 4 :] == 255).all()
    assert (titled[:top, left + 120 : left + 232] != 255).any()
    assert titled.shape[0] - plain.shape[0] == 2 * 17  # three lines and not one
    long = overlays.explanation_sheet(
        images, ["a caption that is far too long to be shown"], [column]
    )
    _, moved = find(long, np.zeros((112, 112, 3), np.uint8))
    assert moved <= 150 + 3 * 8


def test_the_legend_explains_the_kinds_that_are_shown():
    images = np.zeros((1, 28, 28, 1), np.uint8)
    maps = np.zeros((1, 28, 28))

    def legend(*signs):
        columns = [Column("", maps, signed=signed) for signed in signs]
        return overlays.explanation_sheet(images, ["a"], [*columns, *columns])[-50:]

    def has(colour, picture):
        return (np.abs(picture.astype(int) - colour).max(axis=-1) < 12).any()

    blue, glow = (33, 102, 172), (252, 253, 191)
    assert has(blue, legend(True))
    assert not has(glow, legend(True))
    assert has(glow, legend(False))
    assert not has(blue, legend(False))
    assert has(blue, legend(True, False))
    assert has(glow, legend(True, False))


@pytest.mark.parametrize(
    ("n", "captions", "maps", "channels"), [(0, 0, 0, 3), (2, 1, 2, 3), (2, 2, 1, 3), (2, 2, 2, 4)]
)
def test_a_sheet_that_cannot_be_is_refused(n, captions, maps, channels):
    with pytest.raises(ValueError, match="No sheet can be made of"):
        overlays.explanation_sheet(
            np.zeros((n, 8, 8, channels), np.uint8),
            [""] * captions,
            [Column("", np.zeros((maps, 8, 8)))],
        )


@pytest.mark.parametrize(
    ("shape", "across", "down", "side"),
    [((5, 5, 1, 6), 6, 1, 55), ((3, 3, 3, 16), 8, 2, 57), ((4, 4, 3, 192), 16, 4, 56)],
)
def test_filters_are_pictures_with_a_contrast_of_their_own(shape, across, down, side):
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    kernel[..., 0] *= 100
    sheet = overlays.filter_sheet(kernel)
    assert sheet.shape == (4 + down * (side + 4), 4 + across * (side + 4), 3)
    factor = side // shape[0]
    for i in (0, 1, across * down - 1 if shape[-1] >= across * down else shape[-1] - 1):
        y, x = 4 + i // across * (side + 4), 4 + i % across * (side + 4)
        shown = sheet[y : y + side : factor, x : x + side : factor].astype(float) / 255
        expected = 0.5 + 0.5 * kernel[..., i] / np.abs(kernel[..., i]).max()
        np.testing.assert_allclose(shown, np.broadcast_to(expected, shown.shape), atol=0.003)


def test_filters_of_zeros_and_of_odd_channels_can_be_shown():
    assert (overlays.filter_sheet(np.zeros((3, 3, 1, 1), np.float32))[10, 10] == 128).all()
    sheet = overlays.filter_sheet(np.ones((3, 3, 4, 2), np.float32))
    assert Image.fromarray(sheet).getpixel((10, 10)) == (255, 255, 255)
