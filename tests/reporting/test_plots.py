import numpy as np
import pytest
from PIL import Image

from imgrec import augment
from imgrec.reporting import plots


def colour(name):
    return np.array([int(name[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)


def is_red(pixels):
    red, green, blue = np.moveaxis(pixels.astype(int), -1, 0)
    return (red > green + 3) & (red > blue + 3)


def is_blue(pixels):
    return pixels[..., 2].astype(int) > pixels[..., 0].astype(int) + 3


def frame(picture):
    """Rows and columns (top, bottom, left, right) just inside the frame about the cells."""
    framed = (picture == colour(plots.FAINT)).all(axis=-1)
    rows = np.flatnonzero(framed.sum(axis=1) > framed.sum(axis=1).max() - 5)
    columns = np.flatnonzero(framed.sum(axis=0) > framed.sum(axis=0).max() - 5)
    assert len(rows) == len(columns) == 4  # the frame is two pixels wide
    return rows[1] + 1, rows[2], columns[1] + 1, columns[2]


def cells(picture, classes):
    """The matrix of cells, [classes, classes, side, side, 3]."""
    top, bottom, left, right = frame(picture)
    side = (bottom - top) // classes
    assert bottom - top == right - left == side * classes
    squares = picture[top:bottom, left:right].reshape(classes, side, classes, side, 3)
    return squares.swapaxes(1, 2)


def random_counts(classes):
    rng = np.random.default_rng(0)
    return rng.poisson(0.3, (classes, classes)) + np.diag(rng.integers(1, 90, classes))


@pytest.mark.parametrize("classes", [2, 10, 37, 100])
def test_right_is_blue_and_wrong_is_red_and_nothing_is_white(classes):
    counts = random_counts(classes)
    picture = plots.confusion_matrix(counts, [f"class {i}" for i in range(classes)])
    assert picture.dtype == np.uint8
    corners = cells(picture, classes)[:, :, 3, 3]  # not hidden by a count
    diagonal = np.eye(classes, dtype=bool)
    np.testing.assert_array_equal(is_blue(corners), diagonal)
    np.testing.assert_array_equal(is_red(corners), ~diagonal & (counts > 0))
    assert (corners[counts == 0] == 255).all()


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_counts_are_written_into_their_cells(classes):
    counts = random_counts(classes)
    squares = cells(plots.confusion_matrix(counts, ["name"] * classes), classes)[:, :, 2:-2, 2:-2]
    written = (squares != squares[:, :, :1, :1]).any(axis=(2, 3, 4))
    np.testing.assert_array_equal(written, counts > 0)


def test_the_depth_is_the_share_of_the_row():
    counts = np.array([[50, 50, 0], [1, 900, 99], [0, 0, 0]])
    corners = cells(plots.confusion_matrix(counts, list("abc")), 3)[:, :, 3, 3].astype(int).sum(-1)
    assert corners[1, 1] < corners[0, 0]  # the deeper, the darker
    assert corners[0, 1] < corners[1, 2] < corners[1, 0] < 3 * 255


@pytest.mark.parametrize("which", [0, 2, 4])
@pytest.mark.parametrize("name", ["M", "a name too long to lie beneath its column"])
def test_each_name_stands_at_its_row_and_column(which, name):
    names = [""] * 5
    names[which] = name
    picture = plots.confusion_matrix(np.eye(5, dtype=int), names)
    top, bottom, left, right = frame(picture)
    side = (bottom - top) // 5
    inked = (picture == colour(plots.INK)).all(axis=-1)
    rows = np.flatnonzero(inked[top:bottom, : left - 2].any(axis=1))
    columns = np.flatnonzero(inked[bottom + 2 :, left:right].any(axis=0))
    for found in (rows, columns):
        assert len(found)
        assert set(found // side) == {which}
    assert abs(columns.mean() - side * (which + 0.5)) < side / 8


def test_a_thousand_classes_make_a_picture_of_bearable_size():
    counts = np.zeros((1000, 1000), int)
    counts[3, 998] = 1
    counts[500] = 7
    picture = plots.confusion_matrix(counts, [f"class {i}" for i in range(1000)])
    assert max(picture.shape) < 4000
    squares = cells(picture, 1000)[:, :, 0, 0]
    np.testing.assert_array_equal((squares != 255).any(axis=-1), counts > 0)


def test_lists_and_empty_matrices_can_be_drawn():
    given = [[3, 1], [0, 2]]
    picture = plots.confusion_matrix(given, ["a", "b"])
    np.testing.assert_array_equal(picture, plots.confusion_matrix(np.array(given), ["a", "b"]))
    plots.confusion_matrix(np.zeros((2, 2), int), ["a", "b"])


@pytest.mark.parametrize(("shape", "names"), [((2, 2), "abc"), ((2, 3), "abc"), ((0, 0), "")])
def test_a_matrix_that_does_not_fit_its_names_is_refused(shape, names):
    matrix = np.zeros(shape, int)
    with pytest.raises(ValueError, match=f"does not fit {len(names)} class names"):
        plots.confusion_matrix(matrix.tolist(), list(names))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 20), (60, 240)])
def test_each_pixel_of_a_grid_is_a_square(height, width, channels):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, height, width, channels), dtype=np.uint8)
    sheet = plots.image_grid(images, [str(i) for i in range(5)], columns=3)
    factor = max(1, round(112 / max(height, width)))
    gap = 10
    row_height = (sheet.shape[0] - gap) // 2
    assert sheet.shape[1] == gap + 3 * (width * factor + gap)
    for i, image in enumerate(images):
        y, x = gap + i // 3 * row_height, gap + i % 3 * (width * factor + gap)
        shown = sheet[y : y + height * factor, x : x + width * factor]
        expected = np.kron(image, np.ones((factor, factor, 1), np.uint8))
        np.testing.assert_array_equal(shown, np.broadcast_to(expected, shown.shape))


def test_floats_are_shown_as_their_nearest_level_and_clipped():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    floats = (levels / 255).astype(np.float32)
    captions = ["grey"]
    expected = plots.image_grid(levels, captions, 1)
    np.testing.assert_array_equal(plots.image_grid(floats, captions, 1), expected)
    beyond = np.where(levels == 255, 7.0, np.where(levels == 0, -3.0, floats))
    np.testing.assert_array_equal(plots.image_grid(beyond, captions, 1), expected)


def test_captions_stay_beneath_their_images():
    images = np.full((2, 32, 32, 3), 255, np.uint8)
    short = plots.image_grid(images, ["cat\n97 %", ""], columns=2)
    long = plots.image_grid(images, ["a caption that is much too long for it\nb", ""], columns=2)
    assert short.shape == long.shape
    for sheet in (short, long):
        inked = (sheet < 128).any(axis=-1)
        assert inked[10 + 128 :, : 10 + 128 + 10].any()
        assert not inked[: 10 + 128].any()
        assert not inked[:, 10 + 128 + 10 :].any()


def test_a_row_that_is_not_full_makes_a_narrower_sheet():
    images = np.zeros((2, 8, 8, 1), np.uint8)
    wide, narrow = (plots.image_grid(images, ["", ""], columns) for columns in (9, 2))
    np.testing.assert_array_equal(wide, narrow)


@pytest.mark.parametrize(
    ("shape", "captions", "columns"),
    [((0, 8, 8, 3), 0, 1), ((2, 8, 8, 3), 1, 1), ((2, 8, 8, 3), 2, 0), ((2, 8, 8, 4), 2, 1)],
)
def test_a_grid_that_cannot_be_is_refused(shape, captions, columns):
    with pytest.raises(ValueError, match="No sheet can be made of"):
        plots.image_grid(np.zeros(shape, np.uint8), [""] * captions, columns)


def test_denormalise_is_the_inverse_of_normalise():
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.21, 0.22)
    back = plots.denormalise(np.asarray(augment.normalise(images, mean, std)), mean, std)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, images / 255, atol=1e-6)
    np.testing.assert_array_equal(
        plots.image_grid(back, [""] * 4, 4), plots.image_grid(images, [""] * 4, 4)
    )


def test_a_picture_is_read_back_as_it_was_saved(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = tmp_path / "new" / "picture.png"
    plots.save_png(picture, path)
    with Image.open(path) as read:
        assert read.format == "PNG"
        np.testing.assert_array_equal(np.asarray(read), picture)
    assert list(path.parent.iterdir()) == [path]


def test_a_picture_that_cannot_be_saved_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(self, file, format):
        file.write(b"half a pi")
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        plots.save_png(np.zeros((2, 2, 3), np.uint8), tmp_path / "picture.png")
    assert list(tmp_path.iterdir()) == []
