import numpy as np
import pytest

from imgrec.data import view as view_module
from imgrec.data.dataset import ArraySource
from imgrec.data.view import View, ViewedSource, crop_box, see_array, viewed


def resize(image, size):
    return see_array(image, View(size, image.shape[-1]))


def random_images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [3, 8, 20])
def test_shape_type_and_channels(size, channels):
    image = random_images(8, 6, channels)
    result = resize(image, size)
    assert result.shape == (size, size, channels) and result.dtype == np.uint8
    for channel in range(channels):
        alone = resize(image[..., channel : channel + 1], size)
        assert (result[..., channel : channel + 1] == alone).all()


def test_a_uniform_image_stays_uniform():
    assert (resize(np.full((7, 5, 3), 93, np.uint8), 16) == 93).all()


def test_the_size_it_has_changes_nothing():
    image = random_images(8, 8, 3)
    assert resize(image, 8) is image


def test_halving_weighs_by_a_triangle_over_four_pixels():
    # Output pixel 0 lies at 1.0; pixels at 0.5, 1.5, 2.5 weigh 3/4, 3/4, 1/4, normalised by 7/4.
    image = np.zeros((4, 4, 1), np.uint8)
    image[:, 0], image[:, 2] = 70, 140
    assert (resize(image, 2)[..., 0] == [70 * 3 / 7 + 140 / 7, 70 * 0 + 140 * 3 / 7]).all()


def test_doubling_interpolates():
    image = np.array([[0, 100]] * 2, np.uint8)[..., None]
    assert (resize(image, 4)[..., 0] == [0, 25, 75, 100]).all()


def test_shrinking_does_not_alias():
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::2] = 200
    assert abs(resize(stripes, 8)[:, 1:-1].astype(int) - 100).max() <= 4


def test_in_memory_and_on_demand_agree(monkeypatch):
    source = ArraySource(random_images(5, 8, 8, 3), np.arange(5))
    at_once = viewed(source, View(12, 3))
    assert isinstance(at_once, ArraySource)
    monkeypatch.setattr(view_module, "_MOST_BYTES_IN_MEMORY", 100)
    on_demand = viewed(source, View(12, 3))
    assert isinstance(on_demand, ViewedSource)
    rows = np.array([4, 0, 2])
    for batch in (at_once.gather(rows), on_demand.gather(rows)):
        assert batch["label"].tolist() == [4, 0, 2] and batch["label"].dtype == np.int32
        assert (batch["image"] == [resize(source.images[row], 12) for row in rows]).all()
    assert (at_once[1]["image"] == on_demand[1]["image"]).all()
    assert on_demand.labels().tolist() == at_once.labels().tolist() == [0, 1, 2, 3, 4]
    assert len(on_demand) == 5


def test_images_of_the_right_size_are_kept():
    source = ArraySource(random_images(5, 8, 8, 3), np.arange(5))
    assert viewed(source, View(8, 3)) is source


def test_inception_crops_stay_what_they_were():
    # A run that is resumed draws them again.
    view = View(224, 3, "inception")
    boxes = [crop_box(500, 375, view, word) for word in (0, 1, 2**64 - 1)]
    assert boxes == [
        (56.0, 141.0, 230.0, 333.0),
        (136.0, 27.0, 496.0, 340.0),
        (8.0, 4.0, 471.0, 369.0),
    ]


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (64, 64), (900, 40), (1, 7)])
def test_inception_crops_keep_within_their_limits(width, height):
    view = View(8, 3, "inception", area=(0.2, 0.6), aspect=(0.5, 2.0))
    for word in range(200):
        left, upper, right, lower = crop_box(width, height, view, word * 2**55)
        assert 0 <= left < right <= width and 0 <= upper < lower <= height
        w, h = right - left, lower - upper
        if 0.5 < width / height < 2 and width > 1:
            assert 0.19 < w * h / (width * height) < 0.61 and 0.49 < w / h < 2.05
