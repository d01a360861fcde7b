import numpy as np
import pytest

from imgrec.data import scenes


def test_a_scene_is_a_pure_function_of_seed_and_index():
    first = scenes.render(0, 5)
    scenes.render(0, 6)
    assert (first == scenes.render(0, 5)).all()
    assert (first != scenes.render(0, 6)).any()
    assert (first != scenes.render(1, 5)).any()


def test_rows_are_indices_of_the_range():
    source = scenes.SceneSource(3, range(100, 110))
    assert len(source) == 10
    batch = source.gather(np.array([7, 0]))
    assert batch["image"].dtype == np.uint8 and batch["image"].shape == (2, 32, 32, 3)
    assert (batch["image"] == [scenes.render(3, 107), scenes.render(3, 100)]).all()
    assert (source[7]["image"] == batch["image"][0]).all()
    expected = [scenes.label(3, index) for index in range(100, 110)]
    assert source.labels().tolist() == expected
    assert [int(source[row]["label"]) for row in range(10)] == expected
    assert batch["label"].tolist() == [expected[7], expected[0]]
    with pytest.raises(IndexError):
        source[10]


def test_train_and_test_share_no_scene():
    official = scenes.load()
    assert (len(official.train), len(official.test)) == (2000, 500)
    train = {official.train[row]["image"].tobytes() for row in range(300)}
    assert len(train) == 300
    assert not train & {official.test[row]["image"].tobytes() for row in range(300)}


def test_classes_are_equally_likely():
    counts = np.bincount(scenes.load().train.labels())
    assert len(counts) == len(scenes.SHAPES) >= 4
    # Binomial counts of mean 400 and standard deviation 17.9; the seed is fixed.
    assert abs(counts - 400).max() < 4 * 17.9


# (shape, area over radius squared, by elementary geometry)
AREAS = {
    "circle": np.pi,
    "square": 2.0,
    "triangle": 3 * np.sqrt(3) / 4,
    "cross": 5 * (2 / np.sqrt(10)) ** 2,
    "ring": np.pi * (1 - 0.5**2),
}


@pytest.mark.parametrize("name", scenes.SHAPES)
def test_shapes_have_their_area_and_fill_their_circle(name):
    offset = np.linspace(-1.2, 1.2, 1201)
    x, y = np.meshgrid(offset, offset)
    inside = scenes.SHAPES[name](x, y, 1.0) < 0
    cell = (offset[1] - offset[0]) ** 2
    assert inside.sum() * cell == pytest.approx(AREAS[name], rel=0.01)
    assert np.hypot(x, y)[inside].max() == pytest.approx(1, abs=0.01)


def test_every_scene_shows_its_shape_clear_of_the_background():
    for index in range(40):
        image = scenes.render(0, index).astype(float)
        border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        background = np.median(border, axis=0)
        # The shape is a quarter of the scale away in every channel, the noise less than a tenth.
        differs = (abs(image - background) > 40).all(axis=-1)
        assert 15 < differs.sum() < 400
