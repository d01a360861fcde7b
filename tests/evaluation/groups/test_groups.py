import json

import fairlearn.metrics as fairlearn
import numpy as np
import pytest
from sklearn import metrics as sklearn

from imgrec.evaluation import metrics
from imgrec.evaluation.confidence import calibration
from imgrec.evaluation.groups import gaps, groups
from imgrec.evaluation.groups.groups import SMALLEST

NAMES = {k: [f"class {i}" for i in range(k)] for k in (1, 2, 3, 5, 120)}
RATES = {
    "selection_rate": fairlearn.selection_rate,
    "true_positive_rate": fairlearn.true_positive_rate,
    "false_positive_rate": fairlearn.false_positive_rate,
    "false_negative_rate": fairlearn.false_negative_rate,
}


def case(seed, n, classes, skill=(1.0, 2.0, 3.0)):
    """Logits whose skill depends on the group that an example is in."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n).astype(np.int32)
    site = rng.integers(0, len(skill), n)
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), labels] += np.array(skill)[site]
    return logits, labels, np.array(["north", "south", "west"])[site]


def column(found, name="site"):
    return found["columns"][name]


def finite(value):
    """No value anywhere that JSON has no words for."""
    return json.loads(json.dumps(value, allow_nan=False)) == value


CASES = {
    "two classes": (0, 900, 2),
    "three classes": (1, 1200, 3),
    "five classes": (2, 1500, 5),
}


@pytest.mark.parametrize("name", list(CASES))
def test_rates_of_each_group_are_those_of_fairlearn(name):
    logits, labels, site = case(*CASES[name])
    classes = logits.shape[1]
    found = column(groups.groups(logits, labels, NAMES[classes], {"site": site}, count=50))
    predicted = logits.argmax(axis=1)
    assert finite(found)
    for c in range(classes):
        true, called = (labels == c).astype(int), (predicted == c).astype(int)
        frame = fairlearn.MetricFrame(
            metrics=RATES | {"precision": sklearn.precision_score},
            y_true=true,
            y_pred=called,
            sensitive_features=site,
        )
        for group in found["groups"]:
            told = group["per_class"][c]
            expected = frame.by_group.loc[group["value"]]
            for rate in (*RATES, "precision"):
                assert told[rate] == pytest.approx(expected[rate], rel=1e-12)
                low, high = told["intervals"][rate]
                assert low <= told[rate] <= high
        fair = found["fairness"]["per_class"][c]
        told = {
            "demographic_parity_difference": fairlearn.demographic_parity_difference,
            "demographic_parity_ratio": fairlearn.demographic_parity_ratio,
            "equalised_odds_difference": fairlearn.equalized_odds_difference,
        }
        for rate, function in told.items():
            expected = function(true, called, sensitive_features=site)
            assert fair[rate] == pytest.approx(expected, rel=1e-12)
        difference = frame.difference(method="between_groups")
        for rate in ("true_positive_rate", "false_positive_rate"):
            assert fair[f"{rate}_difference"] == pytest.approx(difference[rate], rel=1e-12)


@pytest.mark.parametrize("name", list(CASES))
def test_each_group_is_as_if_it_were_all_there_is(name):
    logits, labels, site = case(*CASES[name])
    names = NAMES[logits.shape[1]]
    found = column(groups.groups(logits, labels, names, {"site": site}, count=50))
    assert [group["value"] for group in found["groups"]] == ["north", "south", "west"]
    for group in found["groups"]:
        inside = site == group["value"]
        alone = metrics.classification(logits[inside], labels[inside], names)
        sure = calibration.calibration(logits[inside], labels[inside])["before"]
        assert group["n"] == alone["n"] == inside.sum()
        assert group["share"] == pytest.approx(inside.mean())
        assert group["accuracy"] == pytest.approx(alone["accuracy"])
        assert group["macro"]["precision"] == pytest.approx(alone["macro"]["precision"])
        assert group["macro"]["recall"] == pytest.approx(alone["macro"]["recall"])
        for score in ("mean_confidence", "overconfidence", "ece_equal_width_15"):
            assert group[score] == pytest.approx(sure[score], rel=1e-6, abs=1e-9)
            low, high = group["intervals"][score]
            assert low <= group[score] <= high
        for score, value in group["macro"].items():
            if score != "intervals":
                low, high = group["macro"]["intervals"][score]
                assert low <= value <= high


def test_of_two_classes_the_second_is_the_positive_one():
    logits, labels, site = case(0, 900, 2)
    fair = column(groups.groups(logits, labels, ["no", "yes"], {"site": site}))["fairness"]
    positive = {name: fair["positive_label_1"][name] for name in gaps.DIFFERENCES}
    assert positive == {name: fair["per_class"][1][name] for name in gaps.DIFFERENCES}
    expected = fairlearn.equalized_odds_difference(
        labels, logits.argmax(axis=1), sensitive_features=site
    )
    assert positive["equalised_odds_difference"] == pytest.approx(expected, rel=1e-12)
    more = column(groups.groups(*case(1, 300, 3)[:2], NAMES[3], {"site": case(1, 300, 3)[2]}))
    assert more["fairness"]["positive_label_1"] is None


def test_classes_become_one_number_by_conventions_that_are_named():
    logits, labels, site = case(1, 1200, 3)
    fair = column(groups.groups(logits, labels, NAMES[3], {"site": site}))["fairness"]
    for name in gaps.DIFFERENCES:
        values = [each[name] for each in fair["per_class"]]
        worst = min(values) if name == "demographic_parity_ratio" else max(values)
        assert fair["largest_over_classes"][name] == worst
        assert fair["largest_over_classes"]["of_class"][name] == NAMES[3][values.index(worst)]
        assert fair["macro_over_classes"][name] == pytest.approx(np.mean(values))
        assert fair["macro_over_classes"]["of_classes"][name] == 3
        for convention in ("largest_over_classes", "macro_over_classes"):
            low, high = fair[convention]["intervals"][name]
            assert 0 <= low <= fair[convention][name] <= high <= 1


def test_the_worst_group_and_the_gap():
    logits, labels, site = case(3, 3000, 3, skill=(0.5, 2.0, 4.0))
    found = column(groups.groups(logits, labels, NAMES[3], {"site": site}))
    right = logits.argmax(axis=1) == labels
    accuracy = {name: right[site == name].mean() for name in ("north", "south", "west")}
    assert found["worst"]["value"] == "north" and found["best"]["value"] == "west"
    assert found["worst"]["accuracy"] == pytest.approx(accuracy["north"])
    assert found["worst"]["n"] == (site == "north").sum()
    assert found["accuracy_gap"] == pytest.approx(accuracy["west"] - accuracy["north"])
    low, high = found["intervals"]["accuracy_gap"]
    assert low < found["accuracy_gap"] < high
    assert found["p_permutation"] == pytest.approx(1e-4)
    assert 0 < found["accuracy_gap_if_alike"] < 0.1 * found["accuracy_gap"]


def test_a_group_with_more_of_the_hard_class_is_told_from_a_hard_group():
    """Recall is 1 and 0.5 whatever the group; the groups hold the classes 9:1 and 1:9."""
    labels = np.array([0] * 90 + [1] * 10 + [0] * 10 + [1] * 90)
    site = np.repeat(["a", "b"], 100)
    said = np.where((labels == 1) & (np.arange(200) % 2 == 0), 0, labels)
    logits = 3 * np.eye(2)[said]
    found = column(groups.groups(logits, labels, NAMES[2], {"site": site}))
    for group, expected in zip(found["groups"], (0.95, 0.55), strict=True):
        assert group["accuracy"] == pytest.approx(expected)
        assert group["accuracy_of_class_mix"] == pytest.approx(expected)
    assert found["fairness"]["positive_label_1"]["label_share_difference"] == pytest.approx(0.8)


def test_small_groups_are_counted_and_left_alone():
    logits, labels, _ = case(4, 300, 3)
    site = np.array(["big"] * 260 + ["just"] * SMALLEST + ["small"] * (SMALLEST - 1) + ["one"])
    logits[-SMALLEST:] = -logits[-SMALLEST:]  # what is left alone is bad, and says nothing
    found = column(groups.groups(logits, labels, NAMES[3], {"site": site}))
    assert found["too_small"] == [{"value": "one", "n": 1}, {"value": "small", "n": 19}]
    assert [group["value"] for group in found["groups"]] == ["big", "just"]
    assert found["worst"]["value"] in ("big", "just")
    without = site[:-SMALLEST]
    alone = groups.groups(logits[:-SMALLEST], labels[:-SMALLEST], NAMES[3], {"site": without})
    for name in gaps.DIFFERENCES:
        for convention in ("largest_over_classes", "macro_over_classes"):
            assert found["fairness"][convention][name] == pytest.approx(
                column(alone)["fairness"][convention][name], nan_ok=True
            )


def test_rates_of_few_examples_stay_out_of_the_differences():
    """A group of 100 has 3 examples of the class 2, none of which is found."""
    labels = np.repeat([0, 1, 2] * 2, [40, 40, 40, 50, 47, 3])
    site = np.repeat(["a", "b"], [120, 100])
    said = np.where((site == "b") & (labels == 2), 0, labels)
    found = column(groups.groups(5 * np.eye(3)[said], labels, NAMES[3], {"site": site}))
    assert found["groups"][1]["per_class"][2]["true_positive_rate"] == 0
    third = found["fairness"]["per_class"][2]
    assert third["true_positive_rate_difference"] is None
    assert third["equalised_odds_difference"] is None
    assert third["false_positive_rate_difference"] == 0
    assert found["fairness"]["largest_over_classes"]["true_positive_rate_difference"] == 0
    assert found["fairness"]["macro_over_classes"]["of_classes"]["equalised_odds_difference"] == 2
    assert found["notes"] == [
        "1 of 6 true positive rates (a group, a class) are of fewer than 20 examples and are left "
        "out of the differences."
    ]


def test_intersections_are_the_groups_of_both():
    logits, labels, site = case(5, 1200, 3)
    camera = np.random.default_rng(5).integers(0, 2, 1200)
    columns = {"site": site, "camera": camera, "brightness": np.linspace(0, 1, 1200)}
    found = groups.groups(logits, labels, NAMES[3], columns, count=50)
    assert list(found["intersections"]) == ["site x camera"]  # measurements only if asked for
    right = logits.argmax(axis=1) == labels
    for group in found["intersections"]["site x camera"]["groups"]:
        where, which = group["value"].split(", ")
        inside = (site == where) & (camera == int(which))
        assert group["n"] == inside.sum()
        assert group["accuracy"] == pytest.approx(right[inside].mean())
    asked = groups.groups(
        logits,
        labels,
        NAMES[3],
        columns,
        intersections=[("camera", "brightness"), ("site", "colour")],
        count=50,
    )
    assert list(asked["intersections"]) == ["camera x brightness"]
    assert len(asked["intersections"]["camera x brightness"]["groups"]) == 8
    assert asked["refused"] == {"site x colour": "There are no groups of colour to cross."}


def test_a_combination_without_examples_is_told():
    logits, labels, site = case(6, 600, 3)
    camera = np.where(site == "west", "old", np.random.default_rng(0).choice(["old", "new"], 600))
    found = groups.groups(logits, labels, NAMES[3], {"site": site, "camera": camera}, count=50)
    crossed = found["intersections"]["site x camera"]
    assert crossed["too_small"] == [{"value": "west, new", "n": 0}]
    assert len(crossed["groups"]) == 5


def test_columns_are_ranked_by_their_gap_and_corrected_together():
    logits, labels, site = case(7, 2000, 3, skill=(0.5, 2.0, 3.5))
    shuffled = np.random.default_rng(0).permutation(site)
    found = groups.groups(
        logits, labels, NAMES[3], {"none": shuffled, "site": site}, intersections=(), count=50
    )
    first, second = found["by_gap"]
    assert first["column"] == "site" and second["column"] == "none"
    assert first["p_permutation"] == pytest.approx(1e-4)
    assert first["p_permutation_holm"] == pytest.approx(2e-4)
    assert second["p_permutation"] > 0.01


def test_chance_is_not_called_unfairness():
    """Groups that do not matter: p is small no more often than it says, and 0 is in most
    intervals of the gap."""
    small = covered = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 2, 400)
        logits = rng.normal(size=(400, 2)) + 1.5 * np.eye(2)[labels]
        found = column(
            groups.groups(
                logits, labels, NAMES[2], {"site": rng.integers(0, 4, 400)}, seed=seed, count=200
            )
        )
        small += found["p_permutation"] < 0.1
        covered += found["intervals"]["accuracy_gap"][0] == 0
    assert small <= 10
    assert covered >= 30


def test_a_gap_is_as_likely_as_scipy_says():
    from scipy.stats import chi2_contingency

    logits, labels, site = case(8, 3000, 3, skill=(1.5, 1.6, 1.75))
    found = column(groups.groups(logits, labels, NAMES[3], {"site": site}))
    right = logits.argmax(axis=1) == labels
    table = [[(right == r)[site == s].sum() for s in np.unique(site)] for r in (False, True)]
    assert found["p_permutation"] == pytest.approx(
        chi2_contingency(table, correction=False).pvalue, abs=0.01
    )


def test_numbers_do_not_depend_on_what_else_is_asked_or_held_at_once(monkeypatch):
    logits, labels, site = case(9, 500, 5)
    alone = groups.groups(logits, labels, NAMES[5], {"site": site}, count=60)
    both = groups.groups(
        logits, labels, NAMES[5], {"other": site == "west", "site": site}, count=60
    )
    assert column(alone) == column(both)
    monkeypatch.setattr(groups, "_BLOCK", 100)
    assert groups.groups(logits, labels, NAMES[5], {"site": site}, count=60) == alone


@pytest.mark.parametrize("value", ["same", "only this one"])
def test_a_single_group_has_nothing_to_be_compared_with(value):
    logits, labels, _ = case(10, 100, 3)
    found = column(groups.groups(logits, labels, NAMES[3], {"site": np.full(100, value)}, count=50))
    assert finite(found)
    assert found["groups"][0]["n"] == 100
    assert found["worst"] is None and found["accuracy_gap"] is None
    assert found["p_permutation"] is None
    assert found["fairness"]["largest_over_classes"]["equalised_odds_difference"] is None
    assert found["notes"] == [
        "Only one group has 20 examples or more, so there is nothing to compare."
    ]


def test_nothing_but_small_groups():
    logits, labels, _ = case(11, 30, 3)
    found = groups.groups(logits, labels, NAMES[3], {"site": np.arange(30) // 10}, count=50)
    assert finite(found)
    assert column(found)["groups"] == [] and found["by_gap"] == []
    assert column(found)["notes"][0].startswith("No group has 20 examples")


@pytest.mark.parametrize("fill", [np.nan, np.inf, 0.0])
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_degenerate_predictions_are_no_failure(fill, classes):
    site = np.repeat(["a", "b"], 40)
    labels = np.arange(80) % classes
    found = groups.groups(
        np.full((80, classes), fill), labels, NAMES[classes], {"site": site}, count=50
    )
    assert finite(found)
    for group in column(found)["groups"]:
        assert group["accuracy"] == pytest.approx((labels == 0).mean(), abs=0.02)
    assert len(found["notes"]) == (0 if fill == 0 else 1)


def test_examples_without_a_confidence_are_left_out_of_it_alone():
    logits, labels, site = case(12, 400, 3)
    logits[::10] = np.nan
    found = groups.groups(logits, labels, NAMES[3], {"site": site}, count=50)
    assert found["notes"][0].startswith("40 of 400 examples have logits that are not finite")
    for group in column(found)["groups"]:
        inside = (site == group["value"]) & (np.arange(400) % 10 != 0)
        expected = calibration.calibration(logits[inside], labels[inside])["before"]
        assert group["overconfidence"] == pytest.approx(expected["overconfidence"], abs=1e-6)
        assert group["n"] == (site == group["value"]).sum()


def test_of_very_many_classes_only_summaries_are_listed():
    logits, labels, site = case(13, 2000, 120, skill=(3.0, 4.0, 5.0))
    found = column(groups.groups(logits, labels, NAMES[120], {"site": site}, count=20))
    assert all(group["per_class"] is None for group in found["groups"])
    assert found["fairness"]["per_class"] is None
    assert found["fairness"]["macro_over_classes"]["demographic_parity_difference"] > 0


def test_a_column_that_cannot_be_grouped_by_leaves_the_others():
    logits, labels, site = case(14, 200, 3)
    found = groups.groups(
        logits, labels, NAMES[3], {"index": np.arange(200), "site": site}, count=50
    )
    assert list(found["columns"]) == ["site"]
    assert "as an identifier has" in found["refused"]["index"]
    assert groups.groups(logits, labels, NAMES[3], {}, count=50)["columns"] == {}


@pytest.mark.parametrize(
    ("logits", "labels", "names", "columns", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0, int), NAMES[2], {}, "0 predictions"),
        (np.zeros((3, 2)), np.zeros(3, int), NAMES[3], {}, "3 class names"),
        (np.zeros((3, 2)), np.full(3, 2), NAMES[2], {}, "from 2 to 2"),
    ],
)
def test_what_does_not_fit_is_refused(logits, labels, names, columns, message):
    with pytest.raises(ValueError, match=message):
        groups.groups(logits, labels, names, columns)
