"""Known and unknown classes together: rates counted out pair by pair, and the section."""

import json

import numpy as np
import pytest

from imgrec.evaluation.unknown import ood_metrics, ood_scores, open_set
from imgrec.evaluation.unknown.open_set import classification_rates

NUMBERS = ("oscr", "ccr_at_fpr_10")


def drawn(seed, n=50, m=37, ties=True):
    rng = np.random.default_rng(seed)
    known, unknown = rng.normal(0.8, 1, n), rng.normal(0, 1, m)
    right = rng.random(n) < 0.5 + 0.3 * (known > 0.5)  # surer ones are right more often
    return (*(np.round(2 * s) if ties else s for s in (known, unknown)), right)


def brute(known, unknown, right):
    pairs = known[:, None] - unknown[None]
    thresholds = [*np.unique(np.concatenate([known, unknown])), np.inf]
    few = [t for t in thresholds if np.mean(unknown >= t) <= 0.1 + 1e-12]
    return {
        "oscr": np.mean(right[:, None] * ((pairs > 0) + 0.5 * (pairs == 0))),
        "ccr_at_fpr_10": max(np.mean(right & (known >= t)) for t in few),
    }


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_rates_are_what_their_definitions_count(seed, ties):
    known, unknown, right = drawn(seed, ties=ties)
    found = classification_rates(known, unknown, right)
    for name, expected in brute(known, unknown, right).items():
        assert found[name] == pytest.approx(expected, abs=1e-12), name
    assert found["oscr"] <= right.mean()


def test_with_everything_right_the_area_is_the_auroc():
    known, unknown, _ = drawn(1)
    found = classification_rates(known, unknown, np.ones(50, bool))
    assert found["oscr"] == pytest.approx(ood_metrics.separation(known, unknown)["auroc"])
    nothing = classification_rates(known, unknown, np.zeros(50, bool))
    assert (nothing["oscr"], nothing["ccr_at_fpr_10"]) == (0, 0)
    apart = classification_rates(known + 100, unknown, known > 0)
    assert apart["oscr"] == apart["ccr_at_fpr_10"] == np.mean(known > 0)


def test_the_curve_by_the_papers_definition():
    known, unknown, right = drawn(2, ties=False)
    curve = classification_rates(known, unknown, right)["oscr_curve"]
    assert (curve["fpr"][0], curve["ccr"][0]) == (0, 0)
    assert curve["fpr"][-1] == 1 and curve["ccr"][-1] == pytest.approx(right.mean())
    assert (np.diff(curve["fpr"]) >= 0).all() and (np.diff(curve["ccr"]) >= 0).all()
    points = set(zip(np.round(curve["fpr"], 9), np.round(curve["ccr"], 9), strict=True))
    for t in unknown:  # thresholds at which the curve bends
        here = (np.mean(unknown >= t), np.mean(right & (known >= t)))
        assert tuple(np.round(here, 9)) in points


def test_resampled_rates_are_those_of_the_resampled_images(monkeypatch):
    known, unknown, right = drawn(3)
    weights = ood_metrics.resampled(50, 37, count=6)
    kept = []
    monkeypatch.setattr(ood_metrics.bootstrap, "interval", lambda values: kept.append(values))
    classification_rates(known, unknown, right, weights)
    for i in range(6):
        rows, others = (np.repeat(np.arange(w.shape[1]), w[i].astype(int)) for w in weights)
        expected = brute(known[rows], unknown[others], right[rows])
        for name, values in zip(NUMBERS, kept, strict=True):
            assert values[i] == pytest.approx(expected[name], abs=1e-12), name


CLASSES, WIDTH = 3, 8
CENTRES = np.random.default_rng(5).normal(3, 2, size=(CLASSES + 2, WIDTH))
KERNEL = CENTRES[:CLASSES].T - 3


def outputs(n, seed, unknown=False):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2 if unknown else CLASSES, n).astype(np.int32)
    centre = CENTRES[label + CLASSES * unknown]
    features = np.maximum(centre + 1.5 * rng.normal(size=(n, WIDTH)), 0).astype(np.float32)
    logits = ((features - 3) @ KERNEL).astype(np.float32)
    return {"features": features, "logits": logits, "label": label, "index": np.arange(n)}


TRAIN, VALIDATION, TEST = outputs(200, 0), outputs(300, 1), outputs(400, 2)
HELD_OUT = outputs(150, 3, unknown=True)
SETS = {"train": TRAIN, "validation": VALIDATION, "test": TEST, "held_out": HELD_OUT}


def run(**changed):
    return open_set.open_set(**{**SETS, "held_out_names": ("x", "y"), "resamples": 50, **changed})


def test_the_section():
    odin = {
        "chosen": {"step": 0.0},
        "scores": {
            name: ood_scores.max_softmax(SETS[name]["logits"])
            for name in ("validation", "test", "held_out")
        },
    }
    found = run(odin=odin)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["n"], found["n_unknown"], found["n_validation"]) == (400, 150, 300)
    assert found["held_out_names"] == ["x", "y"] and list(found["scores"]) == list(
        ood_scores.SOURCES
    )
    right = TEST["logits"].argmax(axis=1) == TEST["label"]
    assert found["closed_set_accuracy"] == right.mean()
    fitted = ood_scores.fit(TRAIN)
    of = {name: fitted.of(SETS[name]) for name in ("validation", "test", "held_out")}
    for name, score in found["scores"].items():
        if name == "odin":
            assert score["auroc"] == found["scores"]["max_softmax"]["auroc"]
            continue
        test, unknown = of["test"][name], of["held_out"][name]
        expected = classification_rates(test, unknown, right)
        assert {key: score[key] for key in NUMBERS} == {key: expected[key] for key in NUMBERS}
        assert score["threshold"] == ood_metrics.threshold(of["validation"][name])
        assert score["correct_and_kept"] == np.mean(right & (test >= score["threshold"]))
        assert score["kept"] == np.mean(test >= score["threshold"])
        assert score["rejected"] == np.mean(unknown < score["threshold"])
        assert score["oscr"] <= min(found["closed_set_accuracy"], score["auroc"] + 1e-12)
        for key in (*NUMBERS, "correct_and_kept", "kept", "rejected", "auroc"):
            low, high = score["intervals"][key]
            assert low <= score[key] <= high
    best = max(score["oscr"] for score in found["scores"].values())
    assert found["scores"][found["best_score"]]["oscr"] == best


def test_without_validation():
    found = run(validation=None)
    score = found["scores"]["energy"]
    assert score["threshold"] is score["kept"] is score["correct_and_kept"] is None
    assert score["oscr"] is not None and "no validation split" in found["reasons"]["threshold"]
    json.dumps(found, allow_nan=False)


def test_a_network_that_diverged():
    broken = {**TEST, "logits": np.full_like(TEST["logits"], np.nan)}
    found = run(test=broken)
    score = found["scores"]["energy"]
    assert score["oscr"] is score["oscr_curve"] is score["correct_and_kept"] is None
    assert "not finite" in score["reasons"]["oscr"]
    json.dumps(found, allow_nan=False)


def test_nothing_known_or_nothing_unknown():
    for name in ("test", "held_out"):
        with pytest.raises(ValueError, match="say nothing of an open set"):
            run(**{name: {key: values[:0] for key, values in SETS[name].items()}})
