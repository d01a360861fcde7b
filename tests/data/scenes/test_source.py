from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ml_collections import ConfigDict

from imgrec import data
from imgrec.config import DataConfig
from imgrec.data import scenes
from imgrec.data.scenes import Knobs, SceneSource, render, scene
from imgrec.errors import UserError

BUSY = Knobs(
    n_objects=(1, 3),
    scale=(0.3, 0.5),
    occlusion=(0, 0.5),
    background=("stripes", "blobs"),
    clutter=(0, 4),
    light=(0.5, 1),
    shading=(0, 0.5),
    cue=0.7,
    label_noise=0.3,
    held_out_combinations=("red circle", "blue star"),
    novelty="mixed",
)


def config(**options):
    return DataConfig(dataset="scenes", options=ConfigDict(options))


def test_rows_are_indices_of_the_range():
    source = SceneSource(3, range(100, 110), BUSY)
    shown = [scene(3, index, BUSY) for index in range(100, 110)]
    assert len(source) == 10 and source.scene(7) == shown[7]
    batch = source.gather(np.array([7, 0, 7]))
    assert batch.keys() == {"image", "label"}
    assert batch["image"].dtype == np.uint8 and batch["image"].shape == (3, 32, 32, 3)
    assert (batch["image"] == [render(shown[i]) for i in (7, 0, 7)]).all()
    assert (source[7]["image"] == batch["image"][0]).all()
    expected = [s.label for s in shown]
    assert source.labels().tolist() == expected and source.labels().dtype == np.int32
    assert [int(source[row]["label"]) for row in range(10)] == expected
    assert batch["label"].tolist() == [expected[7], expected[0], expected[7]]
    with pytest.raises(IndexError):
        source[10]
    assert source.gather(np.array([], np.int64))["image"].shape == (0, 32, 32, 3)


def test_a_batch_is_the_callers_to_write_to_and_decided_by_nothing_but_its_rows():
    source = SceneSource(0, range(8), BUSY)
    first = source.gather(np.arange(8))
    source.gather(np.array([5]))["image"][:] = 0
    again = source.gather(np.arange(8)[::-1], words=np.arange(8, dtype=np.uint64))
    assert (again["image"][::-1] == first["image"]).all()


def test_columns_tell_what_the_scenes_are():
    source = SceneSource(0, range(2**32, 2**32 + 60), BUSY)
    columns = source.columns()
    for row in range(60):
        shown = source.scene(row)
        target = shown.objects[0]
        assert {name: values[row] for name, values in columns.items()} == {
            "clean_label": BUSY.classes.index(target.shape),
            "held_out": f"{target.colour} {target.shape}" in BUSY.held_out_combinations,
            "group": "agrees" if shown.background.tint == shown.clean_label else "conflicts",
            "tint": shown.background.tint,
            "colour": target.colour,
            "background": shown.background.kind,
            "n_objects": len(shown.objects),
            "clutter": len(shown.clutter),
            "scale": 2 * target.radius,
            "x": target.x,
            "y": target.y,
            "angle": target.angle % 360,
            "occlusion": shown.card.share,
            "light": shown.light,
            "shading": shown.shading,
            "direction": shown.direction,
            "index": 2**32 + row,
        }
    assert (columns["clean_label"] != source.labels()).any()
    assert set(columns["group"]) == {"agrees", "conflicts"}
    assert SceneSource(0, range(3), Knobs()).columns()["occlusion"].tolist() == [0, 0, 0]


def test_labels_and_columns_render_nothing_and_are_worked_out_once(monkeypatch):
    source = SceneSource(0, range(20), BUSY)
    monkeypatch.setattr(scenes.source, "render", None)
    labels, columns = source.labels(), source.columns()
    monkeypatch.setattr(scenes.source, "scene", None)
    assert source.labels() is labels
    assert all(source.columns()[name] is values for name, values in columns.items())
    with pytest.raises(ValueError, match="read-only"):
        labels[0] = 3


def test_train_and_test_share_no_scene():
    official = scenes.load(config())
    assert (len(official.train), len(official.test)) == (2000, 500)
    first, second = (set(s.columns()["index"].tolist()) for s in (official.train, official.test))
    assert (len(first), len(second)) == (2000, 500) and not first & second
    train = {official.train[row]["image"].tobytes() for row in range(100)}
    assert len(train) == 100
    assert not train & {official.test[row]["image"].tobytes() for row in range(100)}
    most = scenes.load(config(train=2**32, test=3))
    assert most.train.indices[-1] < most.test.indices[0]


def test_the_options_of_a_configuration_decide_both_splits():
    dataset = data.load(
        config(
            train=40,
            test=30,
            seed=5,
            resolution=24,
            shapes="star,ring,circle,heart",
            held_out_shapes="ring",
            n_objects=(1, 2),
            scale=0.4,
            test_occlusion=0.5,
            label_noise=0.5,
            cue=1.0,
        )
    )
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (36, 4, 30)
    assert dataset.info.class_names == ("star", "circle", "heart", "ring")
    assert dataset.info.image_shape == (24, 24, 3) and "seed 5" in dataset.info.source
    assert dataset.train.gather(np.array([0]))["image"].shape == (1, 24, 24, 3)
    train, test = dataset.train.columns(), dataset.test.columns()
    assert set(train["clean_label"]) == {0, 1, 2} and set(test["clean_label"]) == {0, 1, 2, 3}
    assert (test["held_out"] == (test["clean_label"] == 3)).all()
    assert set(train["occlusion"]) == {0.0} and set(test["occlusion"]) == {0.5}
    assert set(train["group"]) == {"agrees"} and set(test["group"]) == {"agrees", "conflicts"}
    assert (train["clean_label"] != dataset.train.labels()).any()
    assert (test["clean_label"] == dataset.test.labels()).all()
    assert set(train["n_objects"]) == set(test["n_objects"]) == {1, 2}


def test_image_size_resizes_what_resolution_draws():
    wanted = config(train=20, test=10, resolution=48)
    wanted.image_size = 16
    dataset = data.load(wanted)
    assert dataset.info.image_shape == (16, 16, 3)
    assert dataset.train.gather(np.array([0]))["image"].shape == (1, 16, 16, 3)


def test_statistics_are_those_of_the_training_images():
    official = scenes.load(config(train=50, test=10))
    images = official.train.gather(np.arange(50))["image"] / 255
    assert official.info.mean == pytest.approx(images.mean(axis=(0, 1, 2)))
    assert official.info.std == pytest.approx(images.std(axis=(0, 1, 2)))


def test_threads_see_the_same():
    """Read from several threads at once, in any order."""
    source = SceneSource(0, range(64), BUSY)
    expected = SceneSource(0, range(64), BUSY).gather(np.arange(64))["image"]
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda k: source.gather(np.arange(k, 64, 4))["image"], range(4)))
        labels = list(pool.map(lambda _: source.labels(), range(4)))
    assert all((parts[k] == expected[k::4]).all() for k in range(4))
    assert all((values == labels[0]).all() for values in labels)


def test_options_that_cannot_be_are_refused_before_any_work():
    with pytest.raises(UserError, match="Did you mean 'occlusion'"):
        data.load(config(ocllusion=0.5))


FIXED = ((3, 2, "stripes"), [0.728268, 0.301879], ["blue cross", "cyan ring"], 135183)


def test_the_world_stays_as_it_is():
    """Results are compared over releases: these scenes are what they were, or say so."""
    first = scene(0, 3, BUSY)
    assert (first.label, len(first.objects), first.background.kind) == FIXED[0]
    assert [round(v, 6) for v in (first.objects[0].x, first.objects[0].y)] == FIXED[1]
    assert [f"{t.colour} {t.shape}" for t in first.objects] == FIXED[2]
    assert int(render(first).astype(np.int64).sum()) == pytest.approx(FIXED[3], rel=1e-4)
