"""The few-shot probe: its ridge is scikit-learn's, and only validation chooses."""

import json

import numpy as np
import pytest
from sklearn.linear_model import Ridge as ScikitRidge
from sklearn.preprocessing import StandardScaler

from imgrec.evaluation.features import few_shot as module
from imgrec.evaluation.features.few_shot import Ridge, few_shot

CLASSES = 4


def outputs(n, seed, width=12, spread=1.5):
    rng = np.random.default_rng(seed)
    label = (np.arange(n) % CLASSES).astype(np.int32)
    centres = np.random.default_rng(0).normal(size=(CLASSES, width))
    features = centres[label] + spread * rng.normal(size=(n, width))
    return {"features": features.astype(np.float32), "label": label}


TRAIN, VALIDATION, TEST = outputs(200, 1), outputs(120, 2), outputs(400, 3)
SETS = {"train": TRAIN, "validation": VALIDATION, "test": TEST, "num_classes": CLASSES}


@pytest.mark.parametrize("strength", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("n", [8, 200])  # fewer examples than features, and more
def test_the_ridge_is_scikit_learns(n, strength):
    x, labels = TRAIN["features"][:n].astype(np.float64), TRAIN["label"][:n]
    scaler = StandardScaler().fit(x)
    expected = ScikitRidge(alpha=strength).fit(scaler.transform(x), np.eye(CLASSES)[labels])
    fitted = Ridge(TRAIN["features"][:n], labels)
    found = fitted.outputs(TEST["features"], (1.0, strength))[:, 1]
    queries = scaler.transform(TEST["features"].astype(np.float64))
    np.testing.assert_allclose(found, expected.predict(queries), atol=1e-9)
    said = fitted.classes(TEST["features"], (1.0, strength))
    assert said.shape == (2, 400) and (said[1] == found.argmax(axis=1)).all()


def test_features_that_do_not_vary_say_nothing():
    x = np.concatenate([TRAIN["features"], np.full((200, 2), 3, np.float32)], axis=1)
    plain, padded = Ridge(TRAIN["features"], TRAIN["label"]), Ridge(x, TRAIN["label"])
    test = np.concatenate([TEST["features"], np.full((400, 2), 1e6, np.float32)], axis=1)
    np.testing.assert_allclose(
        padded.outputs(test, (1.0,)),
        plain.outputs(TEST["features"], (1.0,)),
        atol=1e-9,
    )


def test_draws_are_so_many_of_each_class_and_keep_the_fewer():
    one, five = (module._draw(TRAIN["label"], k, (0, 1, 2)) for k in (1, 5))
    assert np.bincount(TRAIN["label"][one]).tolist() == [1] * CLASSES
    assert np.bincount(TRAIN["label"][five]).tolist() == [5] * CLASSES
    assert set(one) < set(five) and len(set(five)) == 20
    assert set(module._draw(TRAIN["label"], 5, (0, 1, 3))) != set(five)


def test_the_section():
    found = few_shot(**SETS)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["n"], found["n_validation"], found["seeds"]) == (400, 120, 5)
    assert [each["shots"] for each in found["shots"]] == [1, 5, 10, 25]
    for each in found["shots"]:
        assert each["accuracy"] == pytest.approx(np.mean(each["accuracies"]))
        assert each["std"] == pytest.approx(np.std(each["accuracies"], ddof=1))
        assert len(each["strengths"]) == 5 and set(each["strengths"]) <= set(module.STRENGTHS)
        low, high = each["intervals"]["accuracy"]
        assert low < each["accuracy"] < high
    one, *_, many = (each["accuracy"] for each in found["shots"])
    assert one + 0.1 < many
    assert few_shot(**SETS) == found and few_shot(**SETS, seed=1) != found


def test_an_accuracy_is_that_of_the_draw_and_the_strength_named():
    found = few_shot(**SETS, shots=(5,), seeds=2)["shots"][0]
    for i in range(2):
        rows = module._draw(TRAIN["label"], 5, (0, module._STREAM, i))
        fitted = Ridge(TRAIN["features"][rows], TRAIN["label"][rows])
        right = {
            strength: [
                np.mean(fitted.classes(o["features"], (strength,))[0] == o["label"])
                for o in (VALIDATION, TEST)
            ]
            for strength in module.STRENGTHS
        }
        best = found["strengths"][i]
        assert right[best][0] == max(value for value, _ in right.values())
        assert found["accuracies"][i] == right[best][1]


def test_test_labels_choose_nothing():
    poisoned = {**TEST, "label": (TEST["label"] + 1) % CLASSES}
    one, other = few_shot(**SETS), few_shot(**{**SETS, "test": poisoned})
    for a, b in zip(one["shots"], other["shots"], strict=True):
        assert a["strengths"] == b["strengths"] and a["accuracy"] > b["accuracy"]


def test_what_cannot_be_had_says_why():
    few = {key: values[:30] for key, values in TRAIN.items()}
    found = few_shot(**{**SETS, "train": few})
    assert [each["shots"] for each in found["shots"]] == [1, 5]
    assert found["reasons"]["shots_10"] == "Class number 2 has 7 images to draw from."
    lacking = {key: values[TRAIN["label"] != 3] for key, values in TRAIN.items()}
    assert few_shot(**{**SETS, "train": lacking})["shots"] == []
    nothing = {key: values[:0] for key, values in TEST.items()}
    broken = {**TRAIN, "features": np.full_like(TRAIN["features"], np.inf)}
    for changed, why in (
        ({"validation": None}, "no validation images"),
        ({"validation": nothing}, "no validation images"),
        ({"test": nothing}, "no test images"),
        ({"train": broken}, "not all finite"),
    ):
        found = few_shot(**{**SETS, **changed})
        assert found["shots"] == [] and why in found["reasons"]["shots"]


def test_one_draw_has_no_interval():
    found = few_shot(**SETS, shots=(5,), seeds=1)["shots"][0]
    assert found["std"] is None and found["intervals"]["accuracy"] is None
