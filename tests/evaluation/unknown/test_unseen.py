"""The section on unknown images: what comes from where, and what is missing when something is."""

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from imgrec.evaluation.unknown import ood_metrics, ood_scores
from imgrec.evaluation.unknown.unseen import unseen

CLASSES, WIDTH = 3, 8
KERNEL = np.random.default_rng(5).normal(size=(WIDTH, CLASSES))
CENTRES = 2 * KERNEL.T + 3


def outputs(n, seed, known=True):
    """Features of clusters, or of the middle between them, and a head's logits."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES, n).astype(np.int32)
    centre = CENTRES[label] if known else np.full(WIDTH, 3.0)
    features = np.maximum(centre + rng.normal(size=(n, WIDTH)), 0).astype(np.float32)
    logits = ((features - 3) @ KERNEL).astype(np.float32)
    return {"features": features, "logits": logits, "label": label, "index": np.arange(n)}


TRAIN, VALIDATION, TEST = outputs(200, 0), outputs(400, 1), outputs(1000, 2)
OTHERS = {"near": outputs(300, 3, known=False), "far": outputs(80, 4, known=False)}
OTHERS["far"]["features"] = 30 * OTHERS["far"]["features"]
FEW = {"resamples": 50}


def odin_of(**sets):
    chosen = {"step": 0.01, "temperature": 1000.0, "n": 9, "tried": [[0.01, 0.5]]}
    scores = {name: ood_scores.max_logit(o["logits"]) for name, o in sets.items()}
    return {"chosen": chosen, "scores": scores}


@pytest.fixture(scope="module")
def report():
    odin = odin_of(validation=VALIDATION, test=TEST, **OTHERS)
    return unseen(train=TRAIN, validation=VALIDATION, test=TEST, ood=OTHERS, odin=odin, **FEW)


def test_it_is_plain_json(report):
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_every_score_is_there_for_every_set(report):
    names = list(ood_scores.SOURCES)
    assert list(report["scores"]) == names and list(report["sets"]) == ["near", "far"]
    for found in report["sets"].values():
        assert list(found["scores"]) == names
    assert report["odin"]["step"] == 0.01 and "odin" not in report["reasons"]


def test_numbers_are_those_of_the_scores(report):
    fitted = ood_scores.fit(TRAIN)
    for name, of in OTHERS.items():
        assert (report["sets"][name]["n"], report["sets"][name]["n_ood"]) == (
            1000,
            len(of["label"]),
        )
        for score, inside in fitted.of(TEST).items():
            found, outside = report["sets"][name]["scores"][score], fitted.of(of)[score]
            truth = np.repeat([1, 0], [len(inside), len(outside)])
            area = roc_auc_score(truth, np.concatenate([inside, outside]))
            assert found["auroc"] == pytest.approx(area, abs=1e-9)
            assert found["n_ood"] == len(outside) and found["reasons"] == {}
            low, high = found["intervals"]["auroc"]
            assert low <= found["auroc"] <= high
            assert sum(found["histogram"]["ood"]) == len(outside)
            threshold = report["scores"][score]["threshold"]
            assert found["rejected"] == np.mean(outside < threshold)
            assert report["scores"][score]["kept"] == np.mean(inside >= threshold)
        best = max(found["auroc"] for found in report["sets"][name]["scores"].values())
        chosen = report["sets"][name]["best_score"]
        assert report["sets"][name]["scores"][chosen]["auroc"] == best


def test_thresholds_come_from_validation_and_hold_on_test(report):
    for score, scores in ood_scores.fit(TRAIN).of(VALIDATION).items():
        assert report["scores"][score]["threshold"] == ood_metrics.threshold(scores)
        # Binomial noise of 400 and of 1000 images: three standard deviations are 4 points.
        assert abs(report["scores"][score]["kept"] - 0.95) < 0.04
        low, high = report["scores"][score]["intervals"]["kept"]
        assert low < report["scores"][score]["kept"] < high


def test_neither_test_nor_unknown_images_touch_what_is_fitted(report):
    """Poisoned labels and other unknown images change no threshold and no other set's numbers."""
    poisoned = {**TEST, "label": (TEST["label"] + 1) % CLASSES}
    odin = odin_of(validation=VALIDATION, test=TEST, near=OTHERS["near"])
    ood = {"near": OTHERS["near"]}
    again = unseen(train=TRAIN, validation=VALIDATION, test=poisoned, ood=ood, odin=odin, **FEW)
    assert again["scores"] == report["scores"] and again["sets"]["near"] == report["sets"]["near"]
    assert again["accuracy"] < 0.1 < 0.8 < report["accuracy"]


def test_without_validation_there_is_no_threshold():
    found = unseen(train=TRAIN, validation=None, test=TEST, ood=OTHERS, **FEW)
    assert "no validation split" in found["reasons"]["threshold"] and found["n_validation"] == 0
    assert "not asked for" in found["reasons"]["odin"] and found["odin"] is None
    for score in found["scores"].values():
        assert score["threshold"] is score["kept"] is score["intervals"]["kept"] is None
    near = found["sets"]["near"]["scores"]["energy"]
    assert near["rejected"] is None and near["reasons"] == {"rejected": "There is no threshold."}
    assert near["auroc"] > 0.5


def test_logits_that_are_not_numbers_leave_the_other_scores():
    broken = {**OTHERS["near"], "logits": np.full((300, CLASSES), np.nan, np.float32)}
    found = unseen(train=TRAIN, validation=VALIDATION, test=TEST, ood={"x": broken}, **FEW)
    scores = found["sets"]["x"]["scores"]
    assert (
        scores["energy"]["auroc"] is scores["energy"]["rejected"] is scores["energy"]["roc"] is None
    )
    assert "300 of 1300 scores are not finite" in scores["energy"]["reasons"]["auroc"]
    assert scores["knn"]["auroc"] is not None and found["sets"]["x"]["best_score"] in scores
    json.dumps(found, allow_nan=False)


def test_a_network_that_diverged():
    def broken(some):
        return {**some, **{k: np.full_like(some[k], np.nan) for k in ("features", "logits")}}

    found = unseen(
        train=broken(TRAIN), validation=broken(VALIDATION), test=broken(TEST), ood=OTHERS, **FEW
    )
    assert found["sets"]["near"]["best_score"] is None and "not all finite" in found["notes"][0]
    json.dumps(found, allow_nan=False)


def test_an_empty_set_and_one_image():
    nothing, one = ({k: v[:n] for k, v in OTHERS["near"].items()} for n in (0, 1))
    ood = {"nothing": nothing, "one": one}
    found = unseen(train=TRAIN, validation=VALIDATION, test=TEST, ood=ood, **FEW)
    assert found["sets"]["nothing"]["best_score"] is None
    assert found["sets"]["nothing"]["scores"]["energy"]["reasons"]["auroc"].startswith("There are")
    assert found["sets"]["one"]["scores"]["energy"]["auroc"] is not None
    json.dumps(found, allow_nan=False)


def test_what_makes_no_section():
    nothing = {k: v[:0] for k, v in TEST.items()}
    with pytest.raises(ValueError, match="no test images"):
        unseen(train=TRAIN, validation=VALIDATION, test=nothing, ood=OTHERS)
    with pytest.raises(ValueError, match="cannot be called 'test'"):
        unseen(train=TRAIN, validation=VALIDATION, test=TEST, ood={"test": TEST})
