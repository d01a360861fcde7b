"""The whole report, from a run to a page: complete, the same again, and honest of what it lacks."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from imgrec import cli, evaluate


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished / "run", tmp_path / "run")
    return tmp_path / "run"


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def report(run, *arguments) -> int:
    return evaluate.main(["evaluate", f"--workdir={run}", *arguments])


def test_every_section_is_there_with_its_n(finished):
    found = metrics(finished / "run" / "evaluation" / "test")
    assert found["missing"] == {}
    n = found["n"]
    for name in ("ranking", "calibration", "selective", "conformal", "groups", "label_errors"):
        assert found[name]["n"] == n, name
    assert (
        found["intervals"]["accuracy"][0] <= found["accuracy"] <= found["intervals"]["accuracy"][1]
    )
    assert found["n"] == sum(map(sum, found["confusion_matrix"]))


def test_the_page_holds_every_picture_that_is_kept_beside_it(finished):
    out = finished / "run" / "evaluation" / "test"
    page = (out / "report.html").read_text()
    kept = sorted(p.name for p in out.iterdir() if p.suffix in (".svg", ".png"))
    assert kept
    for name in kept:
        assert f'data-file="{name}"' in page
    assert page.count("<img ") == page.count('src="data:image/')
    assert "http://" not in page and "https://" not in page
    assert page == (finished / "run" / "report.html").read_text()


def test_what_training_found_is_found_again(finished, copy, capsys):
    """The numbers that training wrote at its end, before this report replaced them."""
    logged = [json.loads(x) for x in (copy / "metrics.jsonl").read_text().splitlines()]
    at_the_end = next(line for line in reversed(logged) if "test/accuracy" in line)
    found = metrics(copy / "evaluation" / "test")
    assert found["accuracy"] == at_the_end["test/accuracy"]
    assert found["loss"] == pytest.approx(at_the_end["test/loss"], rel=1e-5)
    assert found["total_steps"] == 6 and found["step"] == 6


def test_offline_the_numbers_are_the_same_and_the_rest_is_said_to_be_missing(copy):
    before = metrics(copy / "evaluation" / "test")
    shutil.rmtree(copy / "checkpoints")
    assert report(copy, "--offline") == 0
    after = metrics(copy / "evaluation" / "test")
    for name in ("accuracy", "intervals", "ranking", "calibration", "selective", "conformal"):
        assert after[name] == before[name], name
    assert "--offline" in after["missing"]["groups"]
    assert "What is missing" in (copy / "report.html").read_text()


def test_validation_is_not_fitted_on_itself(copy):
    assert report(copy, "--split=validation") == 0
    found = metrics(copy / "evaluation" / "validation")
    assert found["calibration"]["temperature"] is None
    assert "tested on" in found["missing"]["conformal"]


def test_poisoned_test_labels_change_nothing_that_was_chosen(finished, copy):
    """Temperature, thresholds and quantiles come from validation alone."""
    saved = copy / "evaluation" / "test" / "predictions.npz"
    with np.load(saved) as arrays:
        poisoned = dict(arrays) | {"label": 1 - arrays["label"]}
    np.savez(saved, **poisoned)
    before = metrics(copy / "evaluation" / "test")
    assert report(copy, "--offline") == 0
    after = metrics(copy / "evaluation" / "test")
    assert after["accuracy"] == pytest.approx(1 - before["accuracy"])
    assert after["calibration"]["temperature"] == before["calibration"]["temperature"]
    for score in ("max_softmax", "max_logit"):
        chosen = [
            [t["threshold"] for t in m[score]["thresholds"]]
            for m in (before["selective"], after["selective"])
        ]
        assert chosen[0] == chosen[1]
    for alpha, methods in before["conformal"]["levels"].items():
        for name, method in methods.items():
            now = after["conformal"]["levels"][alpha][name]
            assert now["threshold"] == method["threshold"]


@pytest.fixture
def others(tmp_path, finished):
    """Another folder of images, with one class that the run knows and one that it does not."""
    rng = np.random.default_rng(1)
    for name in ("bee", "wasp"):
        (tmp_path / "others" / name).mkdir(parents=True)
        for i in range(30):
            pixels = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "others" / name / f"{i}.png")
    return tmp_path / "others"


def test_another_data_set_with_other_classes_needs_a_map(copy, others, tmp_path):
    data = f"--data.dataset=folder:{others}"
    with pytest.raises(cli.UserError, match=r"'wasp'.*'ant', 'bee'.*--map=FILE"):
        report(copy, data)
    (tmp_path / "map.json").write_text('{"wasp": null}')
    before = (copy / "report.html").read_text()
    assert report(copy, data, f"--map={tmp_path / 'map.json'}") == 0
    (out,) = (p for p in (copy / "evaluation").iterdir() if p.name.startswith("folder_"))
    found = metrics(out)
    assert found["per_class"][0]["support"] == 0 and found["per_class"][1]["support"] == found["n"]
    assert (copy / "report.html").read_text() == before


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "Give the folder"),
        (["--workdir=nowhere"], "no run folder"),
        (["--workdir=RUN", "--split=tset"], "Did you mean 'test'"),
        (["--workdir=RUN", "--suite=all"], "value of --suite"),
        (["--workdir=RUN", "--wrokdir=x"], "--workdir"),
        (["--workdir=RUN", "--data.dataset=cifar11"], "cifar10"),
        (["--workdir=RUN", "--reference=nowhere"], "no corruption table"),
        (["--workdir=RUN", "more"], "one run"),
    ],
)
def test_bad_input_is_refused_in_words(copy, arguments, message):
    before = sorted(p for p in copy.rglob("*"))
    with pytest.raises(cli.UserError, match=message):
        evaluate.main(["evaluate", *(text.replace("RUN", str(copy)) for text in arguments)])
    assert sorted(p for p in copy.rglob("*")) == before


def test_a_run_without_a_checkpoint_says_so_and_how_to_go_on(copy):
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(cli.UserError, match=r"no run folder with a checkpoint[\s\S]*--offline"):
        report(copy)


def test_another_format_version_is_refused(copy):
    saved = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(saved | {"format": 99}))
    with pytest.raises(cli.UserError, match="format version 99"):
        report(copy)


def test_images_that_moved_between_splits_are_refused(copy):
    splits = copy / "splits.csv"
    text = splits.read_text()
    splits.write_text(
        text.replace(",test,", ",TMP,").replace(",train,", ",test,").replace(",TMP,", ",train,")
    )
    with pytest.raises(cli.UserError, match="another split"):
        report(copy)


def test_nan_logits_are_reported_in_words(copy):
    saved = copy / "evaluation" / "test" / "predictions.npz"
    with np.load(saved) as arrays:
        broken = dict(arrays)
    broken["logits"][3] = np.nan
    np.savez(saved, **broken)
    assert report(copy, "--offline") == 0
    found = metrics(copy / "evaluation" / "test")
    assert found["loss"] is None
    assert any("finite" in note for note in found["calibration"]["notes"])
    assert "finite" in (copy / "report.html").read_text()


def test_a_failing_section_leaves_the_others(copy, monkeypatch, capsys):
    from imgrec.evaluation import ranking

    def broken(*arguments, **others):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(ranking, "ranking", broken)
    assert report(copy, "--offline") == 0
    found = metrics(copy / "evaluation" / "test")
    assert found["missing"]["ranking"] == "RuntimeError: a fault of ours"
    assert "calibration" in found
    assert "fault of imgrec" in capsys.readouterr().out


def test_stopped_it_leaves_what_was_there(copy, monkeypatch):
    from imgrec.evaluation import ranking

    def stopped(*arguments, **others):
        raise KeyboardInterrupt

    before = {p: p.read_bytes() for p in (copy / "evaluation").rglob("*") if p.is_file()}
    monkeypatch.setattr(ranking, "ranking", stopped)
    assert report(copy, "--offline") == 75
    assert {p: p.read_bytes() for p in (copy / "evaluation").rglob("*") if p.is_file()} == before
