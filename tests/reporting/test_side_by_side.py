import json

import numpy as np
import pytest

from imgrec.evaluation import comparison, metrics, predictions
from imgrec.evaluation.confidence import calibration
from imgrec.evaluation.predictions import Predictions
from imgrec.reporting import saved_run
from imgrec.reporting.side_by_side import side_by_side


def beside(*folders):
    found = side_by_side(saved_run.read_all(folders), "test", count=100)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def measure(found, path):
    return next(m for m in found["measures"] if m["path"] == path)


def test_runs_are_described(write_run):
    (run,) = beside(write_run("a", seed=4))["runs"]
    assert (run["name"], run["seed"], run["dataset"], run["model"]) == ("a", 4, "digits", "resnet8")
    assert (run["n"], run["step"], run["parameters"], run["flops"]) == (300, 60, 61_706, 1.2e8)
    assert run["images_per_second"] == 4000 and run["total_seconds"] == 75
    assert run["device"] == "1 x cpu" and run["launches"] == 1 and run["missing"] == []


def test_numbers_are_those_of_the_predictions(write_run):
    a, b = write_run("a"), write_run("b", skill=3.0, seed=1)
    found = beside(a, b)
    for i, folder in enumerate((a, b)):
        said = predictions.load(folder / "evaluation/test/predictions.npz")
        expected = metrics.classification(said.logits, said.label, "abc", resamples=100)
        assert measure(found, "accuracy")["values"][i] == expected["accuracy"]
        assert measure(found, "accuracy")["intervals"][i] == expected["intervals"]["accuracy"]
        assert measure(found, "macro.f1")["values"][i] == expected["macro"]["f1"]
        sure = calibration.calibration(said.logits, said.label)["before"]
        name = "ece_equal_width_15"
        assert measure(found, f"calibration.before.{name}")["values"][i] == sure[name]


def test_what_an_evaluation_wrote_counts(write_run):
    folder = write_run("a")
    path = folder / "evaluation/test/metrics.json"
    written = json.loads(path.read_text())
    written |= {"accuracy": 0.123, "intervals": {"accuracy": [0.1, 0.2]}}
    written["calibration"] = {"before": {"ece_equal_width_15": 0.0, "intervals": {}}}
    path.write_text(json.dumps(written))
    found = beside(folder)
    assert measure(found, "accuracy")["values"] == [0.123]
    assert measure(found, "accuracy")["intervals"] == [[0.1, 0.2]]
    assert measure(found, "calibration.before.ece_equal_width_15")["values"] == [0.0]


def test_pairs_are_compared_and_corrected(write_run):
    folders = [write_run("a"), write_run("b", seed=1), write_run("c", seed=2, skill=4.0)]
    found = beside(*folders)
    said = {f.name: predictions.load(f / "evaluation/test/predictions.npz") for f in folders}
    assert found["pairs"] == comparison.compare(said, count=100)
    assert found["refused"] == {}


def test_only_what_differs_is_listed(write_run):
    found = beside(
        write_run("a"), write_run("b", seed=1, changes={"train.ema": 0.9}), write_run("c")
    )
    assert found["configuration"] == [
        {"field": "seed", "values": [0, 1, 0]},
        {"field": "train.ema", "values": [0.0, 0.9, 0.0]},
    ]
    assert found["environment"] == []
    alone = beside(write_run("a"))
    assert {"field": "model.name", "values": ["resnet8"]} in alone["configuration"]


def test_a_field_that_an_older_run_lacks_had_its_default(write_run):
    old, new = write_run("old"), write_run("new", changes={"train.ema": 0.5})
    saved = json.loads((old / "config.json").read_text())
    del saved["experiment"]["train"]["ema"]
    (old / "config.json").write_text(json.dumps(saved))
    assert beside(old, new)["configuration"] == [{"field": "train.ema", "values": [0.0, 0.5]}]


def test_seeds_of_one_experiment_are_summed_up(write_run):
    folders = [
        write_run("a", seed=0),
        write_run("b", seed=1),
        write_run("c", seed=2),
        write_run("other", seed=3, changes={"train.ema": 0.9}),
    ]
    found = beside(*folders)
    (family,) = found["seeds"]
    values = measure(found, "accuracy")["values"][:3]
    assert family["runs"] == ["a", "b", "c"] and family["n"] == 3
    assert family["accuracy_mean"] == pytest.approx(np.mean(values))
    assert family["accuracy_sd"] == pytest.approx(np.std(values, ddof=1))
    assert beside(write_run("d"), write_run("e"))["seeds"] == []  # one seed twice is no family


def test_curves_are_the_history(write_run):
    curves = beside(write_run("a"))["curves"]["a"]
    assert curves["images_per_step"] == 32
    assert curves["values"]["validation/loss"] == {
        "step": [20, 40, 60],
        "value": [0.1, 0.05, 1 / 30],
    }
    assert "validation_ema/loss" not in curves["values"]


def test_runs_that_cannot_be_compared_say_why_and_the_rest_appears(write_run):
    first, fine = write_run("first"), write_run("fine", seed=1)
    none, other, renamed = write_run("none"), write_run("other", n=200), write_run("renamed")
    (none / "evaluation/test/predictions.npz").unlink()
    (renamed / "input.json").write_text(json.dumps({"class_names": ["x", "y", "z"]}))
    found = beside(first, none, other, renamed, fine)
    assert [pair["other"] for pair in found["pairs"]] == ["fine"]
    assert found["refused"]["none"] == "it has no predictions"
    assert "300 examples and 200" in found["refused"]["other"]
    assert "have other names" in found["refused"]["renamed"]
    accuracy = measure(found, "accuracy")
    assert None not in accuracy["values"]
    low, high = accuracy["intervals"][1]  # Wilson's, of metrics.json alone
    assert low < accuracy["values"][1] < high


def test_without_predictions_of_the_first_nothing_is_compared(write_run):
    first, other = write_run("first"), write_run("other")
    (first / "evaluation/test/predictions.npz").unlink()
    found = beside(first, other)
    assert found["pairs"] == []
    assert found["refused"]["other"].startswith("first, which all are compared with, has no")


def test_a_run_with_nothing_but_its_configuration(write_run):
    folder = write_run("a")
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.name != "config.json":
            path.rmdir() if path.is_dir() else path.unlink()
    found = beside(folder, write_run("b"))
    run = found["runs"][0]
    assert run["n"] is None and run["device"] is None and len(run["missing"]) == 6
    assert measure(found, "accuracy")["values"][0] is None


def test_diverged_runs_are_shown_as_far_as_they_go(write_run):
    folder = write_run("a")
    path = folder / "evaluation/test/predictions.npz"
    said = predictions.load(path)
    predictions.save(Predictions(said.index, said.label, said.logits * np.nan), path)
    found = beside(write_run("b"), folder)
    assert found["pairs"][0]["nll_difference"] is None


def test_every_scalar_is_there_and_nothing_else(write_run):
    found = beside(write_run("a"), write_run("b", seed=1))
    numbers = found["numbers"]
    assert {"accuracy", "macro.precision", "n"} <= numbers.keys()
    assert all(len(values) == 2 for values in numbers.values())
    assert "step" not in numbers and not any("intervals" in name for name in numbers)
