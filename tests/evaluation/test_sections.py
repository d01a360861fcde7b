"""Which sections there are, when they are asked for, and what each needs to be had."""

import json
from collections.abc import Mapping

import numpy as np
import pytest

from imgrec.config import DataConfig
from imgrec.data.dataset import ArraySource, Dataset, Info, Split
from imgrec.data.sampling import shuffled
from imgrec.errors import UserError
from imgrec.evaluation import sections, suite
from imgrec.evaluation.predictions import Predictions
from imgrec.evaluation.suite import Evaluated, Options
from imgrec.reporting import report_page

BY_NAME = {section.name: section for section in sections.ALL}
STANDARD = (
    *("classification", "calibration", "selective", "conformal", "imbalance", "groups"),
    *("label_errors", "ranking", "galleries", "explanations", "likeness", "representations"),
)
CLASSES = ("ant", "bee", "cat")


def predictions(n, seed, skill=2.0) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n).astype(np.int32)
    logits = rng.normal(size=(n, 3)).astype(np.float32)
    logits[np.arange(n), labels] += skill
    return Predictions(np.arange(n), labels, logits)


class Told(ArraySource):
    """Images in memory of which more is told than their labels."""

    told: Mapping[str, np.ndarray] = {}

    def columns(self):
        return self.told


def dataset(**columns) -> Dataset:
    """30 training images, 60 for validation and 90 to test on."""
    images = np.random.default_rng(0).integers(0, 256, (180, 4, 4, 1), dtype=np.uint8)
    source = Told(images, np.arange(180) % 3)
    source.told = columns
    rows = np.arange(180)
    info = Info("made", 3, CLASSES, (4, 4, 1), (0.5,), (0.5,), "made here")
    return Dataset(
        train=Split("train", source, rows[:30]),
        validation=Split("validation", source, rows[30:90]),
        test=Split("test", source, rows[90:]),
        info=info,
        sampling=shuffled(30),
    )


def evaluated(split=None, validation=True, **options) -> Evaluated:
    """Saved predictions, without the model, and the images."""
    data = options.pop("data", None) or dataset()
    return Evaluated(
        class_names=CLASSES,
        options=Options(**options),
        predictions=predictions(90, seed=0),
        validation=predictions(60, seed=1) if validation else None,
        split=split or data.test,
        dataset=data,
    )


def wanted(**options):
    return {section.name for section in sections.ALL if section.wanted(Options(**options))}


def test_each_section_has_a_name_a_title_and_a_part_of_the_page():
    titles = [section.title for section in sections.ALL]
    assert len(BY_NAME) == len(sections.ALL) == len(set(titles)) and all(titles)
    assert set(BY_NAME) == set(report_page._SECTIONS)


def test_a_section_is_asked_for_by_the_suite_or_by_what_it_is_about():
    other = {"other": dataset().test}
    assert wanted() == set(STANDARD)
    assert wanted(suite="full") == {*STANDARD, "robustness", "sweeps", "adversarial"}
    assert wanted(adversarial=True) == {*STANDARD, "adversarial"}
    assert wanted(unknown=other) == {*STANDARD, "unseen"}
    assert wanted(held_out=True) == {*STANDARD, "open_set", "new_classes"}
    rendered = DataConfig(dataset="scenes")
    assert wanted(rendered=rendered) == set(STANDARD)  # its passes are those of the full suite
    assert "dose_response" in wanted(rendered=rendered, suite="full")


def test_saved_predictions_are_enough_for_what_they_tell_and_the_rest_says_what_is_lacking():
    alone = Evaluated(class_names=CLASSES, options=Options(), predictions=predictions(90, seed=0))
    report = suite.run(alone, sections.ALL, lambda done, total: None)
    assert not report.defects
    assert set(report.numbers) == {"classification", "calibration", "selective", "ranking"}
    for numbers in report.numbers.values():
        assert numbers["n"] == 90
        assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert set(report.missing) == set(STANDARD) - set(report.numbers)
    assert "--offline" in report.missing["groups"]
    assert "data set" in report.missing["imbalance"]


def test_what_is_fitted_on_validation_does_with_less_where_there_is_none():
    with_it, without = (
        evaluated(),
        Evaluated(class_names=CLASSES, options=Options(), predictions=predictions(90, seed=0)),
    )
    found, less = (BY_NAME["calibration"].run(e) for e in (with_it, without))
    assert found["n_validation"] == 60 and found["temperature"] > 0 and found["after"] is not None
    assert less["temperature"] is None and less["before"] == found["before"]
    # What is tested on must not be what is fitted on.
    itself = dataset()
    on_validation = evaluated(itself.validation, data=itself)
    assert BY_NAME["calibration"].run(on_validation)["temperature"] is None
    with pytest.raises(suite.MissingError, match="tested on"):
        BY_NAME["conformal"].run(on_validation)


def test_imbalance_counts_the_training_labels():
    found = BY_NAME["imbalance"].run(evaluated())
    assert [each["train_images"] for each in found["per_class"]] == [10, 10, 10]


def test_groups_are_those_of_the_images_and_the_columns_asked_for():
    columns = {
        "camera": np.arange(180) % 2,
        "weather": np.arange(180) % 5,
        "clean_label": (np.arange(180) % 3).astype(np.int32),
    }
    data = dataset(**columns)

    def names(**options):
        found = BY_NAME["groups"].run(evaluated(data=data, **options))
        return set(found["columns"])

    # Columns of labels tell of labels, not of images.
    assert {"camera", "weather"} < names() and "clean_label" not in names()
    assert names() - names(columns=("camera",)) == {"weather"}
    with pytest.raises(UserError, match=r"camra.*camera"):
        names(columns=("camra",))
    with pytest.raises(suite.MissingError, match="no column 'camera', nor any other"):
        BY_NAME["groups"].run(evaluated(columns=("camera",)))


def test_training_images_are_not_judged_by_what_was_learned_from_them():
    data = dataset()
    on_train = evaluated(data.train, data=data)
    for name, why in (("label_errors", "believes them"), ("representations", "own nearest")):
        with pytest.raises(suite.MissingError, match=why):
            BY_NAME[name].run(on_train)


def test_likely_label_errors_come_with_their_images():
    found = BY_NAME["label_errors"].run(evaluated())
    suspects = found.numbers["suspects"][:24]
    assert suspects and len(found.material["captions"]) == len(suspects)
    images = dataset().test.gather(np.array([each["index"] for each in suspects]))["image"]
    np.testing.assert_array_equal(found.material["images"], images)


@pytest.mark.parametrize("name", ["unseen", "open_set", "new_classes"])
def test_what_was_not_trained_on_is_compared_with_the_runs_own_test_split(name):
    data = dataset()
    with pytest.raises(suite.MissingError, match="own test split"):
        BY_NAME[name].run(evaluated(data.validation, data=data, held_out=True))
