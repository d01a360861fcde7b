import json

import numpy as np
import pytest

from imgrec.errors import UserError
from imgrec.evaluation import metrics, predictions
from imgrec.evaluation.predictions import Predictions

NAMES = ["cat", "dog", "owl"]


@pytest.fixture
def said():
    rng = np.random.default_rng(0)
    return Predictions(
        index=np.arange(20),
        label=rng.integers(0, 3, 20).astype(np.int32),
        logits=rng.normal(size=(20, 3)).astype(np.float32),
    )


def test_what_is_saved_is_loaded(said, tmp_path):
    path = tmp_path / "new" / "folder" / "said"  # no suffix is added to it either
    predictions.save(said, path)
    loaded = predictions.load(path)
    for name in ("index", "label", "logits"):
        saved, read = getattr(said, name), getattr(loaded, name)
        assert read.dtype == saved.dtype
        np.testing.assert_array_equal(read, saved)
    with np.load(path) as arrays:
        assert set(arrays) == {"index", "label", "logits"}


def test_the_same_predictions_are_the_same_bytes(said, tmp_path):
    for name in "ab":
        predictions.save(said, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_report_holds_metrics_and_predictions(said, tmp_path):
    folder = tmp_path / "evaluation" / "test"
    report = predictions.write_report(folder, said, NAMES, {"step": 7, "split": "test"})
    assert report["step"] == 7
    assert report.items() >= metrics.classification(said.logits, said.label, NAMES).items()
    assert json.loads((folder / "metrics.json").read_text()) == report
    loaded = predictions.load(folder / "predictions.npz")
    np.testing.assert_array_equal(loaded.logits, said.logits)
    assert {path.name for path in folder.iterdir()} == {"metrics.json", "predictions.npz"}


def test_a_report_takes_the_place_of_an_earlier_one(said, tmp_path):
    predictions.write_report(tmp_path, said, NAMES, {"step": 1})
    predictions.write_report(tmp_path, said, NAMES, {"step": 2})
    assert json.loads((tmp_path / "metrics.json").read_text())["step"] == 2


def test_a_write_that_breaks_off_leaves_what_was_there(said, tmp_path, monkeypatch):
    path = tmp_path / "predictions.npz"
    predictions.save(said, path)
    before = path.read_bytes()

    def full_disk(file, **arrays):
        file.write(b"half a fi")
        raise OSError("No space left on device")

    monkeypatch.setattr(predictions.np, "savez", full_disk)
    with pytest.raises(OSError, match="No space"):
        predictions.save(said, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_json_of_a_diverged_model_is_json(said, tmp_path):
    diverged = Predictions(said.index, said.label, np.full_like(said.logits, np.nan))
    report = predictions.write_report(tmp_path, diverged, NAMES, {"scores": [1.0, float("inf")]})
    assert np.isnan(report["loss"])

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    read = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)
    assert read["loss"] is None
    assert read["scores"] == [1.0, None]


def test_extra_values_do_not_replace_metrics(said, tmp_path):
    with pytest.raises(ValueError, match="taken by metrics: loss, n"):
        predictions.write_report(tmp_path, said, NAMES, {"n": 3, "loss": 0.0, "step": 1})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_the_users_to_mend(tmp_path):
    with pytest.raises(UserError, match=r"no predictions at .*nowhere\.npz.*evaluation/<split>/"):
        predictions.load(tmp_path / "nowhere.npz")


@pytest.mark.parametrize("content", ["text", "other arrays", "an empty file"])
def test_another_file_is_the_users_to_mend(content, tmp_path):
    path = tmp_path / "predictions.npz"
    if content == "other arrays":
        np.savez(path, logits=np.zeros((2, 3)))
    else:
        path.write_text("accuracy: 1.0" if content == "text" else "")
    with pytest.raises(UserError, match=r"does not hold predictions .* index, label and logits"):
        predictions.load(path)
