import json
from itertools import pairwise

import numpy as np
import pytest
from scipy import optimize
from sklearn import metrics as sklearn

from imgrec.evaluation import bootstrap
from imgrec.evaluation.confidence import calibration
from imgrec.evaluation.metrics import negative_log_likelihood

MEANS = ("mean_confidence", "overconfidence", "nll", "brier_sum_over_classes")
ERRORS = (
    "ece_equal_width_15",
    "ece_equal_mass_15",
    "ece_class_wise_equal_width_15",
    "mce_equal_width_15",
)


def draw(seed, n, classes, temperature=1.0):
    """Logits of a model whose likelihood is the greatest at this temperature."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, classes))
    logits[np.arange(n), rng.integers(0, classes, n)] += 3
    sums = calibration.softmax(logits, temperature).cumsum(axis=1)
    labels = (sums < rng.random((n, 1))).sum(axis=1).clip(max=classes - 1)
    return logits.astype(np.float32), labels.astype(np.int32)


CASES = {
    "two classes": draw(0, 50, 2),
    "ten classes": draw(1, 400, 10, 2.0),
    "forty classes": draw(2, 60, 40),
    "one example": draw(3, 1, 10),
    "one class of labels": (draw(4, 30, 5)[0], np.full(30, 3, np.int32)),
    "one class of logits": (np.ones((6, 1), np.float32), np.zeros(6, np.int32)),
    "constant predictions": (np.zeros((20, 4), np.float32), np.arange(20, dtype=np.int32) % 4),
    "all right": (10 * np.eye(5, dtype=np.float32), np.arange(5, dtype=np.int32)),
    "all wrong": (10 * np.eye(5, dtype=np.float32), (np.arange(5, dtype=np.int32) + 1) % 5),
    "ties": (np.repeat(draw(5, 8, 3)[0], 5, axis=0), np.arange(40, dtype=np.int32) % 3),
}


@pytest.mark.parametrize("case", list(CASES))
def test_every_case_gives_plain_numbers_that_fit_together(case):
    logits, labels = CASES[case]
    found = calibration.calibration(logits, labels, logits, labels)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert calibration.calibration(logits, labels, logits, labels) == found
    assert found["n"] == found["n_validation"] == len(labels)
    assert 0 < found["temperature"] < np.inf
    assert found["before"]["accuracy"] == found["after"]["accuracy"]
    for scores in (found["before"], found["after"]):
        assert scores["accuracy"] == np.mean(logits.argmax(axis=1) == labels)
        assert scores["overconfidence"] == pytest.approx(
            scores["mean_confidence"] - scores["accuracy"]
        )
        assert set(scores["intervals"]) == {"accuracy", *MEANS, *ERRORS}
        assert set(scores["if_calibrated"]) == set(ERRORS)
        for name in ERRORS:
            low, high = scores["intervals"][name]
            assert 0 <= low <= scores[name] <= high
        # The finer the bins, the less can cancel.
        assert scores["mce_equal_width_15"] >= scores["ece_equal_width_15"] - 1e-12
        assert scores["ece_equal_width_15"] >= abs(scores["overconfidence"]) - 1e-12
        assert scores["ece_equal_mass_15"] >= abs(scores["overconfidence"]) - 1e-12
        assert sum(scores["histogram"]["right"]) == round(len(labels) * scores["accuracy"])
        assert sum(scores["histogram"]["right"] + scores["histogram"]["wrong"]) == len(labels)
        for way in ("width", "mass"):
            bins = scores[f"reliability_equal_{way}_15"]
            assert [b["lower"] for b in bins[1:]] == [b["upper"] for b in bins[:-1]]
            assert (bins[0]["lower"], bins[-1]["upper"]) == (0, 1)
            assert sum(b["count"] for b in bins) == len(labels)
            gaps = [
                b["count"] * abs(b["mean_confidence"] - b["accuracy"]) for b in bins if b["count"]
            ]
            assert sum(gaps) / len(labels) == pytest.approx(scores[f"ece_equal_{way}_15"])


@pytest.mark.parametrize("case", list(CASES))
def test_the_order_of_the_examples_does_not_matter(case):
    logits, labels = CASES[case]
    order = np.random.default_rng(0).permutation(len(labels))
    found, permuted = (
        calibration.calibration(x, y, x, y)
        for x, y in ((logits, labels), (logits[order], labels[order]))
    )
    assert permuted["temperature"] == pytest.approx(found["temperature"])
    for name in ("accuracy", *MEANS, *ERRORS):
        for when in ("before", "after"):
            assert permuted[when][name] == pytest.approx(found[when][name], abs=1e-9)


@pytest.mark.parametrize("case", ["two classes", "ten classes", "forty classes"])
def test_proper_scores_agree_with_scikit_learn(case):
    logits, labels = CASES[case]
    classes = np.arange(logits.shape[1])
    before = calibration.calibration(logits, labels)["before"]
    probabilities = calibration.softmax(logits)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    expected = sklearn.log_loss(labels, probabilities, labels=classes)
    assert before["nll"] == pytest.approx(expected, rel=1e-12)
    one_hot = labels[:, None] == classes
    expected = len(classes) * sklearn.mean_squared_error(one_hot.astype(float), probabilities)
    assert before["brier_sum_over_classes"] == pytest.approx(expected, rel=1e-12)


def binned(confidence, right, edges):
    """Counts and gaps of bins, one at a time."""
    inside = [(confidence > low) & (confidence <= high) for low, high in pairwise(edges)]
    return [(sum(i), abs(confidence[i].mean() - right[i].mean())) for i in inside if any(i)]


@pytest.mark.parametrize("case", ["two classes", "ten classes", "forty classes", "ties"])
def test_binned_errors_agree_with_loops(case):
    logits, labels = CASES[case]
    before = calibration.calibration(logits, labels)["before"]
    probabilities = calibration.softmax(logits)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    edges, n = np.linspace(0, 1, 16), len(labels)
    bins = binned(confidence, right, edges)
    assert before["ece_equal_width_15"] == pytest.approx(sum(k * gap for k, gap in bins) / n)
    assert before["mce_equal_width_15"] == pytest.approx(max(gap for _, gap in bins))
    by_class = [
        sum(k * gap for k, gap in binned(probabilities[:, c], labels == c, edges)) / n
        for c in range(logits.shape[1])
    ]
    assert before["ece_class_wise_equal_width_15"] == pytest.approx(np.mean(by_class))


def test_bins_of_equal_mass_hold_equally_many():
    logits, labels = draw(6, 300, 4)
    before = calibration.calibration(logits, labels)["before"]
    assert [b["count"] for b in before["reliability_equal_mass_15"]] == [20] * 15
    confidence = calibration.softmax(logits).max(axis=1)
    right = logits.argmax(axis=1) == labels
    parts = np.array_split(np.argsort(confidence), 15)
    gaps = [abs(confidence[part].mean() - right[part].mean()) for part in parts]
    assert before["ece_equal_mass_15"] == pytest.approx(np.mean(gaps))


def test_values_worked_out_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.7, 0.3], [0.4, 0.6]])
    logits, labels = np.log(probabilities), np.array([0, 1, 0, 1])
    before = calibration.calibration(logits, labels)["before"]
    assert before["accuracy"] == 0.75
    assert before["mean_confidence"] == pytest.approx(0.775)
    assert before["overconfidence"] == pytest.approx(0.025)
    # The two of 0.9 are half right: a gap of 0.4 in a bin of two; then gaps of 0.3 and 0.4.
    assert before["ece_equal_width_15"] == pytest.approx((2 * 0.4 + 0.3 + 0.4) / 4)
    assert before["mce_equal_width_15"] == pytest.approx(0.4)
    # Both classes see the same gaps, from either side.
    assert before["ece_class_wise_equal_width_15"] == pytest.approx((2 * 0.4 + 0.3 + 0.4) / 4)
    assert before["brier_sum_over_classes"] == pytest.approx(
        2 * (0.1**2 + 0.9**2 + 0.3**2 + 0.4**2) / 4
    )
    assert before["nll"] == pytest.approx(-np.log([0.9, 0.1, 0.7, 0.6]).mean())
    of_nine_tenths = before["reliability_equal_width_15"][13]
    assert of_nine_tenths["count"] == 2
    assert of_nine_tenths["interval"] == bootstrap.wilson(1, 2)
    assert before["reliability_equal_width_15"][0] == {
        "lower": 0.0,
        "upper": pytest.approx(1 / 15),
        "count": 0,
        "mean_confidence": None,
        "accuracy": None,
        "interval": None,
    }


def test_errors_are_resampled_as_if_computed_on_each_resample():
    logits, labels = draw(7, 80, 4, 1.5)
    weights = bootstrap.resamples(80, count=3)
    gaps, resampled = calibration._class_wise(logits, labels, 1.0, weights)
    edges = np.linspace(0, 1, 16)
    for weight, of_resample in zip(weights, resampled, strict=True):
        rows = np.repeat(np.arange(80), weight.astype(int))
        probabilities = calibration.softmax(logits)[rows]
        by_class = [
            sum(k * gap for k, gap in binned(probabilities[:, c], labels[rows] == c, edges)) / 80
            for c in range(4)
        ]
        assert np.abs(of_resample).sum() == pytest.approx(np.mean(by_class), rel=1e-5)
    assert gaps.shape == (60,)


@pytest.mark.parametrize("true", [0.5, 1.0, 2.65])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e5])
def test_the_temperature_is_the_minimum_that_scipy_finds(true, scale):
    logits, labels = draw(8, 500, 6, true)

    def loss(log_temperature):
        return negative_log_likelihood(logits / np.exp(log_temperature), labels).mean()

    best = optimize.minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-9})
    # Temperature is in the units of the logits.
    assert calibration.fit_temperature(logits * scale, labels) == pytest.approx(
        scale * np.exp(best.x), rel=1e-6
    )


def test_the_temperature_does_not_depend_on_how_the_examples_are_cut(monkeypatch):
    logits, labels = draw(9, 300, 4)
    whole = calibration.fit_temperature(logits, labels)
    scores = calibration.calibration(logits, labels)
    monkeypatch.setattr(calibration, "BLOCK", 100)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(whole, rel=1e-12)
    assert calibration.calibration(logits, labels)["before"]["nll"] == scores["before"]["nll"]
    assert calibration.calibration(logits, labels)["before"][
        "ece_class_wise_equal_width_15"
    ] == pytest.approx(scores["before"]["ece_class_wise_equal_width_15"], rel=1e-6)


def test_an_overconfident_model_is_mended():
    # As the over-trained network of Guo et al.: right as often, much too sure of it.
    (logits, labels), (validation_logits, validation_labels) = (
        draw(seed, n, 10) for seed, n in ((10, 10_000), (11, 5000))
    )
    found = calibration.calibration(
        2.65 * logits, labels, 2.65 * validation_logits, validation_labels
    )
    low, high = found["intervals"]["temperature"]
    assert low < 2.65 < high
    assert high - low < 0.3
    before, after = found["before"], found["after"]
    assert before["overconfidence"] > 0.05
    assert before["intervals"]["ece_equal_width_15"][0] > 0.05
    assert after["ece_equal_width_15"] < 0.015
    assert after["intervals"]["ece_equal_width_15"][0] == 0
    assert after["nll"] < 0.7 * before["nll"]
    assert after["brier_sum_over_classes"] < before["brier_sum_over_classes"]
    assert after["accuracy"] == before["accuracy"]


def test_a_calibrated_model_shows_the_error_that_noise_makes():
    found = [calibration.calibration(*draw(seed, 1000, 4))["before"] for seed in range(10)]
    for name in ERRORS[:3]:
        measured = np.mean([scores[name] for scores in found])
        expected = np.mean([scores["if_calibrated"][name] for scores in found])
        assert measured == pytest.approx(expected, rel=0.2)
        # The percentile interval would hold 0 in none of them.
        assert sum(scores["intervals"][name][0] == 0 for scores in found) >= 8


@pytest.mark.slow
def test_intervals_hold_the_true_error():
    # What the error of this model is, without noise, from very many examples.
    logits, _ = draw(0, 400_000, 4, 2.0)
    confidence = calibration.softmax(logits).max(axis=1)
    truth = calibration.softmax(logits, 2.0)[np.arange(len(logits)), logits.argmax(axis=1)]
    bins = np.minimum((15 * confidence).astype(int), 14)
    true = np.abs(np.bincount(bins, weights=confidence - truth)).sum() / len(logits)
    held = []
    for seed in range(1, 101):
        intervals = calibration.calibration(*draw(seed, 1000, 4, 2.0))["before"]["intervals"]
        held.append(
            intervals["ece_equal_width_15"][0] <= true <= intervals["ece_equal_width_15"][1]
        )
    assert np.mean(held) >= 0.85


def test_the_interval_of_the_temperature_holds_the_true_one():
    held = 0
    for seed in range(100):
        logits, labels = draw(seed, 300, 5, 1.5)
        _, (low, high), _ = calibration._fit(logits, labels)
        held += low <= 1.5 <= high
    assert 88 <= held <= 100


def test_test_labels_choose_nothing():
    logits, labels = draw(12, 200, 5)
    validation = draw(13, 200, 5)
    found = calibration.calibration(logits, labels, *validation)
    poisoned = calibration.calibration(logits, (labels + 1) % 5, *validation)
    assert poisoned["temperature"] == found["temperature"]
    assert poisoned["before"]["accuracy"] != found["before"]["accuracy"]


def test_without_validation_there_is_no_temperature():
    found = calibration.calibration(*CASES["ten classes"])
    assert found["temperature"] is None
    assert found["after"] is None
    assert found["n_validation"] == 0
    assert "validation" in found["reasons"]["temperature"]
    assert "validation" in found["reasons"]["after"]


def test_all_right_is_as_if_one_more_were_wrong():
    logits, labels = draw(14, 200, 10)
    right = logits.argmax(axis=1) == labels
    few, many = ({"x": logits[right][:k], "y": labels[right][:k]} for k in (20, 100))
    temperatures = [calibration.fit_temperature(c["x"], c["y"]) for c in (few, many)]
    assert 0 < temperatures[1] < temperatures[0]  # the more without error, the surer
    # Of equally sure examples the confidence becomes (n + 1) / (n + 2).
    logits, labels = 7 * np.eye(4), np.arange(4)
    found = calibration.calibration(logits, labels, logits, labels)
    assert found["after"]["mean_confidence"] == pytest.approx(5 / 6)
    assert found["intervals"]["temperature"] is None
    assert "all 4 examples" in found["notes"][0]


def test_a_temperature_that_hardly_matters_has_no_interval():
    # Better than chance by a hair: almost any large temperature is as good.
    logits, labels = np.array([[1 + 1e-6, 0], [1, 0]]), np.array([0, 1])
    found = calibration.calibration(logits, labels, logits, labels)
    assert 100 < found["temperature"] < 1000
    assert found["intervals"]["temperature"] is None
    assert "hardly tell" in found["notes"][0]


def test_no_better_than_chance_is_no_confidence():
    logits, labels = CASES["all wrong"]
    found = calibration.calibration(logits, labels, logits, labels)
    assert found["after"]["mean_confidence"] == pytest.approx(1 / 5, rel=1e-2)
    assert "no better than chance" in found["notes"][0]
    equal = calibration.calibration(logits, labels, np.zeros((3, 5)), labels[:3])
    assert equal["temperature"] == 1
    assert "all equal" in equal["notes"][0]


def test_logits_that_are_not_finite_are_left_out_in_words():
    logits, labels = draw(15, 40, 4)
    broken = np.concatenate([logits, [[np.nan] * 4, [np.inf, 0, 0, 0], [-np.inf, 0, 0, 0]]])
    broken_labels = np.concatenate([labels, [0, 1, 2]])
    found = calibration.calibration(broken, broken_labels, broken, broken_labels)
    without = calibration.calibration(logits, labels, logits, labels)
    assert found["before"] == without["before"]
    assert found["temperature"] == without["temperature"]
    assert found["n"] == 40
    assert found["notes"][0].startswith("3 of 43 examples")
    assert found["notes"][1].startswith("3 of 43 validation examples")

    nothing = calibration.calibration(logits * np.nan, labels, logits * np.nan, labels)
    assert nothing["n"] == nothing["n_validation"] == 0
    assert nothing["before"] is nothing["after"] is nothing["temperature"] is None
    assert set(nothing["reasons"]) == {"temperature", "before", "after"}
    with pytest.raises(ValueError, match="no example has finite logits"):
        calibration.fit_temperature(logits * np.nan, labels)


def test_large_logits_neither_overflow_nor_warn():
    logits = np.array([[3e38, -3e38], [-3e38, 3e38], [3e38, 2e38]], np.float32)
    found = calibration.calibration(logits, np.array([0, 1, 1]), logits, np.array([0, 1, 1]))
    assert json.dumps(found, allow_nan=False)
    assert found["before"]["nll"] == pytest.approx(1e38 / 3, rel=1e-5)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), "0 examples"),
        (np.zeros((2, 3)), np.array([0, 3]), "from 0 to 3 .* 3 logits"),
        (np.zeros((2, 3)), np.array([-1, 1]), "from -1 to 1 .* 3 logits"),
    ],
)
def test_what_does_not_fit_is_refused(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        calibration.calibration(logits, labels)
    with pytest.raises(ValueError, match=message):
        calibration.fit_temperature(logits, labels)
    with pytest.raises(ValueError, match="validation"):
        calibration.calibration(np.zeros((1, 3)), np.array([0]), logits, labels)
