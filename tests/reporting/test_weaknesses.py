import copy

import pytest

from imgrec.reporting.weaknesses import weaknesses


def of_class(name, recall, support=1000):
    return {"name": name, "recall": recall, "support": support, "intervals": {"recall": [0.0, 1.0]}}


FINE = {
    "accuracy": 0.9,
    "per_class": [of_class(name, 0.9) for name in "abc"],
    "most_confused": [],
    "groups": {"by_gap": []},
    "calibration": {
        "before": {
            "n": 3000,
            "overconfidence": 0.001,
            "ece_equal_width_15": 0.01,
            "intervals": {"overconfidence": [-0.01, 0.01], "ece_equal_width_15": [0.0, 0.02]},
        }
    },
    "robustness": {"worst_conditions": [], "clean_accuracy": 0.9},
    "unseen": {"sets": {}},
    "label_errors": {"estimated_share": 0.01, "intervals": {"estimated_share": [0.0, 0.02]}},
}


def with_(**changes):
    return copy.deepcopy(FINE) | changes


def test_nothing_is_said_of_what_chance_explains():
    assert weaknesses(FINE) == [] and weaknesses({}) == []


def test_a_class_below_the_others_is_named_once_chance_is_ruled_out():
    classes = [of_class("a", 0.95), of_class("<b>", 0.8), of_class("c", 0.89)]
    (said,) = weaknesses(with_(per_class=classes))
    assert "The class &lt;b> is found less often than most: recall 80.0 %" in said
    assert "n 1,000" in said
    assert weaknesses(with_(per_class=[of_class("a", 0.95), of_class("b", 0.87, 300)])) == []


def test_small_classes_are_said_to_be_small():
    classes = [of_class(f"c{i}", 0.9, 50) for i in range(7)] + [of_class("none", 0, 0)]
    (said,) = weaknesses(with_(per_class=classes))
    assert said.endswith("fewer than 100 test images: c0, c1, c2, c3, c4 and 3 more.")


def test_the_commonest_confusion():
    pair = {"true": "cat", "predicted": "dog", "count": 12, "share_of_true": 0.012}
    (said,) = weaknesses(with_(most_confused=[pair]))
    assert said == "cat is most often taken for dog: 12 times, 1.2 % of the class."


def test_groups_that_differ_by_more_than_chance():
    gap = {"column": "site", "worst": "x", "n": 80, "accuracy": 0.7, "accuracy_gap": 0.2}
    certain, unsure = (gap | {"p_permutation_holm": p} for p in (0.01, 0.2))
    (said,) = weaknesses(with_(groups={"by_gap": [certain, unsure]}))
    assert said == (
        "By site, the group x has an accuracy of 70.0 % (n 80), 20.0 points below the best group."
    )


@pytest.mark.parametrize(
    ("over", "word"), [(0.05, "surer than it is right"), (-0.05, "too modest")]
)
def test_confidence_that_is_off(over, word):
    changed = with_()
    before = changed["calibration"]["before"]
    before["overconfidence"] = over
    before["intervals"]["overconfidence"] = [over - 0.01, over + 0.01]
    (said,) = weaknesses(changed)
    assert word in said and "differ by 5.00 % (n 3,000), calibration error 1.00 %" in said


def test_the_worst_corruption():
    worst = {"kind": "fog", "severity": 5, "accuracy": 0.2}
    (said,) = weaknesses(with_(robustness={"worst_conditions": [worst], "clean_accuracy": 0.9}))
    assert "fog at severity 5 leaves least: accuracy 20.0 %, 90.0 % without." in said


def test_unknown_images_that_pass_for_known():
    def sets(rejected):
        score = {"rejected": rejected, "intervals": {"rejected": [0.1, 0.3]}}
        return {"sets": {"toys": {"best_score": "energy", "scores": {"energy": score}}}}

    (said,) = weaknesses(with_(unseen=sets(0.2)))
    assert "Most images of toys" in said and "20.0 % [10.0, 30.0] are rejected" in said
    assert weaknesses(with_(unseen=sets(0.9))) == weaknesses(with_(unseen=sets(None))) == []
    none = {"sets": {"toys": {"best_score": None, "scores": {}}}}
    assert weaknesses(with_(unseen=none)) == []


def test_doubtful_labels():
    doubt = {"estimated_share": 0.03, "intervals": {"estimated_share": [0.01, 0.05]}}
    (said,) = weaknesses(with_(label_errors=doubt))
    assert "Some test labels are likely wrong (an estimated 3.00 % [1.00, 5.00])" in said
