"""Classes added as means of features: counted out by hand, and what they cost the old ones."""

import json

import numpy as np
import pytest
from scipy import stats

from imgrec.evaluation.unknown import new_classes

OLD, NEW, WIDTH = 4, 2, 16
CENTRES = np.random.default_rng(0).normal(size=(OLD + NEW, WIDTH))
HEAD = CENTRES[:OLD].T


def outputs(n, seed, new=False, spread=0.7):
    rng = np.random.default_rng(seed)
    label = (np.arange(n) % (NEW if new else OLD)).astype(np.int32)
    centre = CENTRES[label + OLD * new]
    features = (centre + spread * rng.normal(size=(n, WIDTH))).astype(np.float32)
    return {
        "features": features,
        "label": label,
        "logits": (features @ HEAD).astype(np.float32),
    }


SETS = {
    "train": outputs(200, 1),
    "test": outputs(160, 2),
    "held_out_train": outputs(60, 3, new=True),
    "held_out": outputs(50, 4, new=True),
}


def run(**changed):
    return new_classes.new_classes(**{**SETS, "held_out_names": ("x", "y"), **changed})


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def by_hand(rows):
    """Accuracies on old and new with these images of the pool, one class, one image at a time."""
    means = [
        unit(SETS["train"]["features"])[SETS["train"]["label"] == c].mean(0) for c in range(OLD)
    ]
    pool, labels = SETS["held_out_train"]["features"][rows], SETS["held_out_train"]["label"][rows]
    means += [unit(pool)[labels == c].mean(axis=0) for c in range(NEW)]
    right = {}
    for name, shift in (("test", 0), ("held_out", OLD)):
        said = [np.argmax([unit(x) @ unit(m) for m in means]) for x in SETS[name]["features"]]
        right[name] = np.mean(np.array(said) == SETS[name]["label"] + shift)
    return right["test"], right["held_out"]


def test_with_all_images_of_the_new_classes():
    found = run()["added"][-1]
    old, new = by_hand(np.arange(60))
    assert found["shots"] is None and found["draws"] == 1
    assert (found["old_accuracy"], found["new_accuracy"]) == (old, new)
    assert found["overall_accuracy"] == pytest.approx((160 * old + 50 * new) / 210)
    assert found["std"] == dict.fromkeys(found["std"])
    for name in ("old_accuracy", "new_accuracy", "overall_accuracy"):
        low, high = found["intervals"][name]
        assert low <= found[name] <= high


def test_a_draw_is_so_many_of_each_class_and_keeps_the_fewer(monkeypatch):
    drawn = []
    means = new_classes.prototypes.class_means

    def watched(features, labels, num_classes):
        if num_classes == NEW:
            drawn.append((features, labels))
        return means(features, labels, num_classes)

    monkeypatch.setattr(new_classes.prototypes, "class_means", watched)
    found = run(draws=3)
    one, five, few = drawn[0], drawn[3], drawn[6]
    for k, (_, labels) in zip((1, 5, 25), (one, five, few), strict=True):
        assert np.bincount(labels).tolist() == [k, k]
    rows = [{tuple(x) for x in features.tolist()} for features, _ in (one, five, few)]
    assert rows[0] < rows[1] < rows[2]
    assert rows[0] != {tuple(x) for x in drawn[1][0].tolist()}  # another draw, other images
    everything = unit(SETS["held_out_train"]["features"]).tolist()
    accuracies = []
    for features, _ in drawn[:3]:
        near = np.abs(np.array(everything)[None] - features[:, None]).sum(axis=2).argmin(axis=1)
        accuracies.append(by_hand(near))
    assert found["added"][0]["old_accuracy"] == pytest.approx(np.mean(accuracies, axis=0)[0])
    assert found["added"][0]["new_accuracy"] == pytest.approx(np.mean(accuracies, axis=0)[1])
    assert found["added"][0]["std"]["new_accuracy"] == pytest.approx(
        np.std(accuracies, axis=0, ddof=1)[1]
    )


def test_the_section():
    found = run()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["n"], found["n_old"], found["n_new"]) == (210, 160, 50)
    assert [each["shots"] for each in found["added"]] == [1, 5, 25, None]
    assert [each["draws"] for each in found["added"]] == [20, 20, 20, 1]
    assert found["reasons"] == {} and found["held_out_names"] == ["x", "y"]
    one, _, many, _ = (each["new_accuracy"] for each in found["added"])
    assert one < many  # with more images it is better known
    alone = found["old_alone"]
    right = SETS["test"]["logits"].argmax(axis=1) == SETS["test"]["label"]
    assert alone["network_accuracy"] == right.mean() and alone["n"] == 160
    for each in found["added"]:  # a class more never helps those that were there
        assert each["old_accuracy"] <= alone["prototype_accuracy"]
    assert run() == found and run(seed=1)["added"][0] != found["added"][0]


def test_the_interval_of_a_mean_is_students():
    values = np.random.default_rng(0).random(12)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = new_classes.mean_over_draws(values)
    np.testing.assert_allclose(found, [expected.low, expected.high])
    assert new_classes.mean_over_draws(values[:1]) is None


def test_classes_with_too_few_images_say_so():
    few = {key: values[:19] for key, values in SETS["held_out_train"].items()}
    found = run(held_out_train=few)
    assert [each["shots"] for each in found["added"]] == [1, 5, None]
    assert found["reasons"] == {"shots_25": "The class 'y' has 9 training images."}


def test_what_cannot_be_added():
    first = {k: v[SETS["held_out_train"]["label"] == 0] for k, v in SETS["held_out_train"].items()}
    with pytest.raises(ValueError, match="no image to add the class 'y' from"):
        run(held_out_train=first)
    with pytest.raises(ValueError, match="both need training and test images"):
        run(held_out={key: values[:0] for key, values in SETS["held_out"].items()})
    broken = {**SETS["test"], "features": np.full_like(SETS["test"]["features"], np.nan)}
    with pytest.raises(ValueError, match="not all finite"):
        run(test=broken)
