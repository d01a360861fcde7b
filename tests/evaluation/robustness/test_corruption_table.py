import json

import numpy as np
import pytest

from imgrec.evaluation import bootstrap
from imgrec.evaluation.robustness import corruption_table
from imgrec.evaluation.robustness.conditions import Answers

KINDS = ("gaussian_noise", "shot_noise", "fog")
SEVERITIES = (1, 3, 5)
N = 200


def random_answers(seed, rates, n=N):
    rng = np.random.default_rng(seed)
    rates = np.asarray(rates).ravel()
    return Answers(
        correct=rng.uniform(size=(n, 1)) * 0.7 + rng.uniform(size=(n, len(rates))) * 0.3 < rates,
        nll=rng.gamma(1, size=(n, len(rates))).astype(np.float32),
        confidence=rng.uniform(0.2, 1, size=(n, len(rates))).astype(np.float32),
    )


RATES = np.array([[0.9, 0.7, 0.4], [0.8, 0.6, 0.3], [0.85, 0.8, 0.75]])
FOUND = random_answers(0, RATES)
CLEAN = random_answers(1, [0.95])


def table(found=FOUND, clean=CLEAN, kinds=KINDS, severities=SEVERITIES, **given):
    given = {"profile": "cifar_c"} | given
    return corruption_table.table(found, kinds, severities, clean=clean, **given)


def test_tables_and_means_by_hand():
    report = table()
    accuracy = FOUND.correct.mean(axis=0).reshape(3, 3)
    np.testing.assert_allclose(report["accuracy"], accuracy)
    np.testing.assert_allclose(report["error"], 1 - accuracy)
    np.testing.assert_allclose(report["nll"], FOUND.nll.mean(axis=0).reshape(3, 3), rtol=1e-5)
    hits = int(FOUND.correct[:, 5].sum())
    assert report["accuracy_interval"][1][2] == bootstrap.wilson(hits, N)

    assert report["n"] == N
    assert (report["kinds"], report["severities"]) == (list(KINDS), list(SEVERITIES))
    assert report["categories"] == {
        "gaussian_noise": "noise",
        "shot_noise": "noise",
        "fog": "weather",
    }
    by_kind = {entry["name"]: entry["accuracy"] for entry in report["per_kind"]}
    assert by_kind == pytest.approx(dict(zip(KINDS, accuracy.mean(axis=1), strict=True)))
    by_category = {entry["name"]: entry["error"] for entry in report["per_category"]}
    assert by_category == pytest.approx(
        {"noise": 1 - accuracy[:2].mean(), "weather": 1 - accuracy[2].mean()}
    )
    by_severity = {entry["severity"]: entry["nll"] for entry in report["per_severity"]}
    nll = FOUND.nll.reshape(N, 3, 3).mean(axis=(0, 1), dtype=np.float64)
    assert by_severity == pytest.approx(dict(zip(SEVERITIES, nll, strict=True)))
    assert report["mean_corrupted_accuracy"] == pytest.approx(accuracy.mean())
    assert report["mean_corruption_error_unnormalised"] == pytest.approx(1 - accuracy.mean())
    assert report["cnll"] == pytest.approx(FOUND.nll.mean(dtype=np.float64))
    assert report["clean_accuracy"] == pytest.approx(CLEAN.correct.mean())
    drop = CLEAN.correct.mean() - accuracy.mean()
    assert report["accuracy_drop"] == pytest.approx(drop)

    worst = report["worst_conditions"]
    assert [entry["accuracy"] for entry in worst] == sorted(accuracy.ravel())[:5]
    assert (worst[0]["kind"], worst[0]["severity"]) == ("shot_noise", 5)


def ece(confidence, correct):
    """Guo et al. 2017, equation 3, bin by bin."""
    error = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            gap = abs(confidence[inside].mean() - correct[inside].mean())
            error += inside.mean() * gap
    return error


def test_calibration_errors_are_those_of_the_definition():
    report = table()
    errors = [ece(FOUND.confidence[:, i].astype(float), FOUND.correct[:, i]) for i in range(9)]
    np.testing.assert_allclose(report["ece_equal_width_15"], np.reshape(errors, (3, 3)), rtol=1e-6)
    assert report["cece_equal_width_15"] == pytest.approx(np.mean(errors), rel=1e-6)
    clean = ece(CLEAN.confidence[:, 0].astype(float), CLEAN.correct[:, 0])
    assert report["clean_ece_equal_width_15"] == pytest.approx(clean, rel=1e-6)
    low, high = report["intervals"]["cece_equal_width_15"]
    assert low < report["cece_equal_width_15"] <= high


def test_intervals_resample_images_with_all_their_conditions():
    intervals = table()["intervals"]
    low, high = intervals["mean_corrupted_accuracy"]
    per_image = FOUND.correct.mean(axis=1)
    normal = 1.96 * per_image.std() / np.sqrt(N)
    assert high - low == pytest.approx(2 * normal, rel=0.1)
    # As if all conditions were independent it would be far narrower.
    assert high - low > 1.5 * 2 * 1.96 * np.sqrt((RATES * (1 - RATES)).mean() / (9 * N))
    error = intervals["mean_corruption_error_unnormalised"]
    assert error == pytest.approx([1 - high, 1 - low])


def test_errors_relative_to_a_reference():
    reference = {
        "name": "another run",
        "profile": "cifar_c",
        "kinds": ["fog", "gaussian_noise", "frost", "shot_noise"],
        "severities": [1, 2, 3, 5],
        "error": [[0.2, 9, 0.3, 0.4], [0.1, 9, 0.3, 0.6], [9, 9, 9, 9], [0.2, 9, 0.4, 0.8]],
        "clean_error": 0.05,
    }
    report = table(reference=reference)
    own = np.array(report["error"])
    theirs = np.array([[0.1, 0.3, 0.6], [0.2, 0.4, 0.8], [0.2, 0.3, 0.4]])
    mce = (own.sum(axis=1) / theirs.sum(axis=1)).mean()
    assert report["mce_relative_to_reference"] == pytest.approx(mce)
    clean = report["clean_error"]
    relative = ((own - clean).sum(axis=1) / (theirs - 0.05).sum(axis=1)).mean()
    assert report["relative_mce_relative_to_reference"] == pytest.approx(relative)
    low, high = report["intervals"]["mce_relative_to_reference"]
    assert low < mce < high
    assert report["reference"] == {
        "name": "another run",
        "mean_corruption_error_unnormalised": pytest.approx(theirs.mean()),
        "clean_error": 0.05,
    }


def test_relative_to_itself_every_run_is_1():
    itself = table()
    report = table(reference=itself)
    assert report["mce_relative_to_reference"] == pytest.approx(1)
    assert report["relative_mce_relative_to_reference"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (None, "No reference run"),
        ({"profile": "imagenet_c"}, "by the profile 'imagenet_c', these by 'cifar_c'"),
        ({"kinds": ["fog", "frost", "snow"]}, "lacks the kinds gaussian_noise, shot_noise"),
        ({"severities": [1, 2, 3]}, "lacks the severities 5"),
        ({"error": [[0, 0, 0]] * 3}, "By gaussian_noise the reference loses nothing"),
    ],
)
def test_a_reference_that_does_not_fit_is_said_to(changed, reason):
    reference = None if changed is None else table() | changed
    report = table(reference=reference)
    assert report["mce_relative_to_reference"] is None
    assert report["intervals"]["mce_relative_to_reference"] is None
    assert reason in report["reasons"]["mce_relative_to_reference"]


def test_without_clean_answers_only_what_needs_them_is_missing():
    report = table(clean=None, reference=table())
    missing = {name for name, value in report.items() if value is None}
    assert missing == {
        "clean_accuracy",
        "clean_error",
        "clean_nll",
        "clean_ece_equal_width_15",
        "accuracy_drop",
        "relative_mce_relative_to_reference",
    }
    assert missing == set(report["reasons"])
    assert report["mce_relative_to_reference"] == pytest.approx(1)


def test_a_diverged_model_gets_a_report_without_a_nan():
    broken = Answers(
        np.zeros((N, 9), bool), np.full((N, 9), np.nan, np.float32), np.full((N, 9), np.nan, "f4")
    )
    report = table(found=broken)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["mean_corrupted_accuracy"] == 0
    assert report["cnll"] is None
    assert report["nll"] == [[None] * 3] * 3
    assert "not finite" in report["reasons"]["cnll"]
    assert "not finite" in report["reasons"]["cece_equal_width_15"]


def test_one_image_one_kind_one_severity():
    found = random_answers(0, [1.0], n=1)
    report = table(found=found, clean=found, kinds=("fog",), severities=(1,))
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["mean_corrupted_accuracy"] == 1
    assert report["intervals"]["mean_corrupted_accuracy"] == [1, 1]
    assert len(report["worst_conditions"]) == 1
