"""Runs of classical methods: the same folder, evaluation and answers as any run, and resuming."""

import _thread
import io
import json
import os
import pickle
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from imgrec import data, evaluate, main, predict
from imgrec.classical import classifiers, features, fitting, packages, planning, saving
from imgrec.classical.subject import open_run
from imgrec.config import ClassifierConfig, DataConfig, Experiment, FeaturesConfig, LogConfig
from imgrec.errors import UserError
from imgrec.evaluation import predictions
from imgrec.training import input_spec, resident, run_folder

CONFIGS = Path(__file__).parents[2] / "configs"
QUICK = {
    "random_forest": {"trees": 10},
    "gradient_boosting": {"iterations": 5},
    "logistic_regression": {"max_iterations": 200},
}


def experiment(classifier="svm", /, **options):
    return Experiment(
        name="x",
        data=DataConfig(dataset="digits"),
        features=FeaturesConfig(name="pixels"),
        classifier=ClassifierConfig(name=classifier, options=ConfigDict(options)),
        log=LogConfig(tensorboard=False),
    )


def run(c, folder):
    planned = planning.plan_classical(c)
    run_folder.open_folder(folder, planned.experiment, allow_change=False, needs_bytes=0)
    input_spec.write(input_spec.of(planned.experiment, planned.dataset.info), folder)
    said = io.StringIO()
    outcome = fitting.fit(planned, folder, Console(file=said, width=1000), lambda *told: None)
    return planned, outcome, said.getvalue()


@pytest.mark.parametrize("name", sorted(classifiers.KINDS))
def test_saved_and_opened_it_says_the_same(name, tmp_path):
    planned, outcome, _ = run(experiment(name, **QUICK.get(name, {})), tmp_path)
    assert outcome.test["n"] == len(planned.dataset.test) == 359
    assert outcome.test["accuracy"] > 0.85
    saved = predictions.load(tmp_path / "evaluation" / "test" / "predictions.npz")
    opened = open_run(tmp_path)
    rows = opened.subject.over(
        planned.dataset.test, lambda v, batch: opened.subject.outputs(v, batch["image"])
    )
    np.testing.assert_allclose(rows["logits"], saved.logits, atol=1e-5)
    np.testing.assert_array_equal(rows["label"], planned.dataset.test.labels())
    assert rows["features"].shape == (359, 64)
    lines = (tmp_path / "metrics.jsonl").read_text()
    for scalar in ("validation/accuracy", "test/accuracy", "time/images_per_second"):
        assert scalar in lines
    # Nothing that reading could make run is in the folder.
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".pkl", ".joblib", ".pickle")]


def test_an_svm_says_what_scikit_learn_says(tmp_path):
    planned, _, _ = run(experiment(c=5.0, gamma=0.05), tmp_path)
    found = predictions.load(tmp_path / "evaluation" / "test" / "predictions.npz").logits
    x, y, queries = (
        features.describe_split(planned.recipe, planned.dataset.train, lambda *t: None),
        planned.dataset.train.labels(),
        features.describe_split(planned.recipe, planned.dataset.test, lambda *t: None),
    )
    theirs = SVC(C=5.0, gamma=0.05, break_ties=True).fit(x, y)
    np.testing.assert_array_equal(found.argmax(1), theirs.predict(queries))
    ratio = theirs.decision_function(queries) / found
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-4)  # one temperature for all


def test_validation_chooses(tmp_path):
    _, outcome, said = run(experiment(c=(1e-6, 10.0)), tmp_path)
    tried = outcome.test["classifier"]["tried"]
    assert [each["options"]["c"] for each in tried] == [1e-6, 10.0]
    assert outcome.test["classifier"]["chosen"] == tried[1]
    assert tried[1]["accuracy"] > tried[0]["accuracy"] + 0.3
    assert "-> {'c': 10.0}" in said


def test_a_finished_run_is_not_fitted_again_and_a_cut_one_goes_on(tmp_path, monkeypatch):
    c = experiment("knn")
    c.features = FeaturesConfig(name="edges", options=ConfigDict({"cells": 2}))
    _, first, said = run(c, tmp_path)
    assert "edges" not in said and said.count("computed") == 3
    _, again, said = run(c, tmp_path)
    assert "finished" in said and again.test == json.loads(json.dumps(first.test))
    (tmp_path / "evaluation" / "test" / "metrics.json").unlink()
    monkeypatch.setattr(classifiers, "fit", None)
    _, third, said = run(c, tmp_path)
    assert "fitted already" in said and said.count("read back") == 1
    assert third.test["accuracy"] == first.test["accuracy"]


def test_of_a_stopped_save_nothing_counts(tmp_path, monkeypatch):
    def stopped(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(saving.files, "write_text", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_folder.open_folder(tmp_path, experiment(), allow_change=False, needs_bytes=0)
        fitting.fit(
            planning.plan_classical(experiment("knn")),
            tmp_path,
            Console(file=io.StringIO()),
            lambda *told: None,
        )
    with pytest.raises(UserError, match="no fitted classifier"):
        saving.load(tmp_path)


def test_two_classes_have_two_logits():
    rows = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    labels = (rows[:, 0] > 0).astype(np.int32)
    fitted, _ = classifiers.fit("logistic_regression", {}, rows, labels, seed=0)
    scores = classifiers.scores(fitted, rows)
    np.testing.assert_allclose(scores[:, 1] - scores[:, 0], fitted.decision_function(rows))


def test_what_was_not_calibrated_is_said(tmp_path):
    c = experiment()
    c.data.validation = "0"
    _, outcome, said = run(c, tmp_path)
    assert "not calibrated" in said
    assert outcome.test["classifier"]["temperature"] == 1.0


def test_features_of_a_run(tiny, tmp_path):
    from imgrec.training import heads
    from imgrec.training.plan import plan

    tiny.head.name, tiny.head.options = "probe", ConfigDict({"l2": (0.03,)})
    run_folder.open_folder(tmp_path / "net", tiny, allow_change=False, needs_bytes=0)
    heads.fit(plan(tiny), tmp_path / "net", Console(file=io.StringIO()))
    tiny.head.name, tiny.head.options = "trained", ConfigDict()
    tiny.init.weights = str(tmp_path / "net")
    tiny.features, tiny.classifier = FeaturesConfig(name="network"), ClassifierConfig(name="knn")
    planned, _, _ = run(tiny, tmp_path / "knn")
    (tmp_path / "net").rename(tmp_path / "elsewhere")
    opened = open_run(tmp_path / "knn")
    rows = opened.subject.over(
        planned.dataset.test, lambda v, batch: opened.subject.outputs(v, batch["image"])
    )
    found = predictions.load(tmp_path / "knn" / "evaluation" / "test" / "predictions.npz").logits
    np.testing.assert_allclose(rows["logits"], found, atol=1e-3)
    assert rows["features"].shape[1] == planned.dimensions


class Harm:
    def __reduce__(self):
        return os.system, ("true",)


def test_a_file_that_brings_code_is_refused(tmp_path):
    run(experiment(), tmp_path)
    path = tmp_path / "classifier" / "classifier.skops"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    schema = members["schema.json"].decode().replace('"SVC"', '"Popen"')
    members["schema.json"] = schema.replace("sklearn.svm._classes", "subprocess").encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match=r"subprocess\.Popen.*Nothing of it was loaded"):
        saving.load(tmp_path)
    path.write_bytes(pickle.dumps(Harm()))
    with pytest.raises(UserError, match="cannot be read"):
        saving.load(tmp_path)


def test_of_another_scikit_learn(tmp_path):
    run(experiment(), tmp_path)
    path = tmp_path / "classifier" / "classifier.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"versions": told["versions"] | {"sklearn": "0.1.2"}}))
    with pytest.raises(UserError, match=r"written by scikit-learn 0\.1\.2.*scikit-learn==0\.1"):
        saving.load(tmp_path)
    path.write_text(json.dumps(told | {"format": 99}))
    with pytest.raises(UserError, match="has the format 99"):
        saving.load(tmp_path)
    path.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        saving.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("smv", {}, "Unknown classifier 'smv'. Did you mean 'svm'?"),
        ("svm", {"k": 3}, "Unknown option of classifier 'svm' 'k'"),
        ("knn", {"k": "3"}, "has the type str; expected int"),
        ("knn", {"k": 0}, "options.k=0 is impossible; it must be at least 1"),
        ("knn", {"k": 2000}, "more neighbours than there are training images"),
        ("knn", {"metric": "l3"}, "Unknown value of config.classifier.options.metric 'l3'"),
        ("svm", {"c": ()}, "options.c has no value"),
    ],
)
def test_refuses(name, options, message):
    with pytest.raises(UserError, match=message):
        planning.plan_classical(experiment(name, **options))


def test_several_candidates_want_validation():
    c = experiment(c=(1.0, 10.0))
    c.data.validation = "0"
    with pytest.raises(
        UserError, match=r"among 2 by the validation split \(c\), and there is none"
    ):
        planning.plan_classical(c)


def test_more_than_the_machine_or_the_method_takes(monkeypatch):
    monkeypatch.setattr(resident, "host_memory", lambda: 600 * 2**20)
    with pytest.raises(UserError, match=r"1,294 training images with 64 features.*can spare"):
        planning.plan_classical(experiment())
    planning.plan_classical(experiment("linear_svm"))
    monkeypatch.setitem(
        classifiers.KINDS, "svm", classifiers.Kind(classifiers.svm, True, 16, most=1000)
    )
    with pytest.raises(UserError, match=r"meant for 1,000 at most.*per_class=100"):
        planning.plan_classical(experiment())


def test_streams_are_for_networks():
    c = experiment()
    c.data.sampling = "class_balanced"
    with pytest.raises(UserError, match="about a stream of training images"):
        planning.plan_classical(c)


def test_every_class_has_an_image(monkeypatch):
    import dataclasses

    whole = data.load(DataConfig(dataset="digits"))
    some = np.flatnonzero(whole.train.labels() != 3)
    train = dataclasses.replace(whole.train, rows=whole.train.rows[some])
    with pytest.raises(UserError, match="1 of 10 classes have no training image, as '3'"):
        planning.plan_classical(experiment(), dataclasses.replace(whole, train=train))


def test_a_package_that_lacks_is_named(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(packages.importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"scikit-image.*pip install 'imgrec\[classical\]'"):
        packages.require("skimage.feature")


def test_an_interrupt_does_not_wait_for_the_end_of_a_fit():
    never = threading.Event()

    def fit():
        _thread.interrupt_main()
        never.wait()

    try:
        with pytest.raises(KeyboardInterrupt):
            fitting._interruptible(fit)
    finally:
        never.set()


def test_what_a_fit_raises_comes_out():
    with pytest.raises(ZeroDivisionError):
        fitting._interruptible(lambda: 1 // 0)


def test_through_the_front_door(tmp_path, capsys):
    config = f"--config={CONFIGS / 'classical.py'}:features=pixels,classifier=linear_svm"
    flags = [config, f"--workdir={tmp_path / 'run'}", "--config.log.tensorboard=false"]
    assert main.main(["main", *flags, "--dry_run"]) == 0
    assert "Nothing was fitted." in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert main.main(["main", *flags]) == 0
    accuracy = json.loads((tmp_path / "run/evaluation/test/metrics.json").read_text())["accuracy"]
    assert f"test accuracy {accuracy:.4f}" in capsys.readouterr().out
    assert evaluate.main(["evaluate", f"--workdir={tmp_path / 'run'}"]) == 0
    report = json.loads((tmp_path / "run/evaluation/test/metrics.json").read_text())
    assert report["accuracy"] == accuracy
    assert list(report["missing"]) == ["explanations"]
    assert "no gradient and no layers" in report["missing"]["explanations"]
    assert "svm on features: pixels" in (tmp_path / "run/model_card.md").read_text()
    image = load_digits().images[0] * 255 / 16
    Image.fromarray(image.astype(np.uint8)).save(tmp_path / "zero.png")
    flags = [f"--workdir={tmp_path / 'run'}", "--format=json", str(tmp_path / "zero.png")]
    assert predict.main(["predict", *flags]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["prediction"] == "0"


def test_steps_have_no_place_in_it(tmp_path):
    config = f"--config={CONFIGS / 'classical.py'}"
    with pytest.raises(UserError, match="--profile is about training steps"):
        main.main(["main", config, "--profile=1:2", f"--workdir={tmp_path / 'run'}"])
