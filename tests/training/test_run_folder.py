import collections
import json
import shutil
import sys

import jax
import pytest

from imgrec import config
from imgrec.config import Experiment
from imgrec.data import record as records
from imgrec.errors import UserError
from imgrec.native import build
from imgrec.training import checkpoints, run_folder, xla


@pytest.fixture(autouse=True)
def no_flags(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)


@pytest.fixture(autouse=True)
def repository(monkeypatch):
    """What git says, without asking it."""
    said = {"rev-parse": "0123abc", "status": " M imgrec/main.py", "diff": "diff --git a b\n"}
    monkeypatch.setattr(run_folder, "git", lambda command, *rest: said[command])
    return said


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "x"


def open_folder(folder, experiment=None, *, allow_change=False, needs_bytes=0, record=None):
    return run_folder.open_folder(
        folder,
        experiment or Experiment(),
        allow_change=allow_change,
        needs_bytes=needs_bytes,
        record=record,
    )


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


def read(folder):
    return json.loads((folder / "config.json").read_text())


def launches(folder):
    return [json.loads(line) for line in (folder / "launches.jsonl").read_text().splitlines()]


def assert_refused(folder, fragments, **settings):
    """The folder is refused, with --workdir as a way out, and stays as it was."""
    before = contents(folder)
    with pytest.raises(UserError) as refusal:
        open_folder(folder, **settings)
    for fragment in (*fragments, "--workdir"):
        assert fragment in str(refusal.value)
    assert contents(folder) == before


def test_a_new_folder_says_what_it_is(folder, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["/bin/python", "-m", "imgrec.main", "--config=a.py"])
    experiment = Experiment(seed=3)
    open_folder(folder, experiment)
    assert read(folder) == {
        "format": checkpoints.FORMAT,
        "fingerprint": config.fingerprint(experiment),
        "xla_flags": "",
        "cpu_convolutions": "xla",
        "devices": 8,
        "experiment": config.to_dict(experiment),
    }
    assert (folder / "git.diff").read_text() == "diff --git a b\n"
    (launch,) = launches(folder)
    assert launch["git_revision"] == "0123abc"
    assert launch["git_dirty"] is True
    assert launch["devices"] == ["cpu"] * 8
    assert launch["packages"].keys() == set(run_folder.PACKAGES)
    assert all(launch["packages"].values())
    assert launch["command"].endswith(" -m imgrec.main --config=a.py")
    expected = {"config.json", "git.diff", "launches.jsonl"}
    assert {path.name for path in folder.iterdir()} == expected


def test_without_git_there_is_a_run_all_the_same(folder, repository):
    repository.update({"rev-parse": None, "status": None, "diff": None})
    open_folder(folder)
    assert (folder / "git.diff").read_text() == ""
    assert launches(folder)[0]["git_revision"] is None
    assert launches(folder)[0]["git_dirty"] is False


def test_git_is_asked_about_this_project_and_may_not_be_there(monkeypatch):
    monkeypatch.undo()  # the fixture's git
    revision = run_folder.git("rev-parse", "HEAD")
    assert revision is None or len(revision) == 40
    monkeypatch.setenv("PATH", "")
    assert run_folder.git("rev-parse", "HEAD") is None


def test_an_empty_folder_becomes_a_run(folder):
    folder.mkdir(parents=True)
    open_folder(folder)
    assert (folder / "config.json").exists()


def test_the_same_experiment_goes_on_and_each_start_is_noted(folder):
    open_folder(folder)
    (folder / "metrics.jsonl").write_text("{}\n")
    before = read(folder)
    open_folder(folder)
    assert read(folder) == before
    assert len(launches(folder)) == 2
    assert (folder / "metrics.jsonl").read_text() == "{}\n"


def test_another_experiment_is_refused_with_all_that_differs(folder):
    open_folder(folder)
    other = Experiment(seed=1)
    other.train.duration = "2ep"
    fragments = [
        "holds a run of another configuration. What differs (saved -> now):\n"
        "  seed: 0 -> 1\n"
        "  train.duration: '10ep' -> '2ep'\n",
        "--allow_config_change",
    ]
    assert_refused(folder, fragments, experiment=other)


def test_another_experiment_can_be_allowed(folder):
    open_folder(folder)
    open_folder(folder, Experiment(seed=1), allow_change=True)
    assert read(folder)["experiment"]["seed"] == 1
    open_folder(folder, Experiment(seed=1))


def test_flags_that_change_the_bits_are_part_of_the_run(folder, monkeypatch):
    open_folder(folder)
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    assert_refused(folder, ["  xla_flags: '' -> '--xla_cpu_enable_fast_math=true'\n"])


def test_the_number_of_simulated_devices_is_not(folder, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--a=1 --xla_force_host_platform_device_count=8")
    open_folder(folder)
    assert read(folder)["xla_flags"] == "--a=1"
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2 --a=1")
    open_folder(folder)


def test_another_format_is_refused_whatever_is_allowed(folder):
    open_folder(folder)
    saved = read(folder)
    (folder / "config.json").write_text(json.dumps({**saved, "format": checkpoints.FORMAT + 1}))
    fragments = [f"format version {checkpoints.FORMAT + 1}", f"version {checkpoints.FORMAT}"]
    assert_refused(folder, fragments, allow_change=True)


@pytest.mark.parametrize("damaged", ['{"exper', "", "[]", "{}", '{"experiment": 3}', "null"])
def test_a_damaged_configuration_is_refused(folder, damaged):
    open_folder(folder)
    (folder / "config.json").write_text(damaged)
    assert_refused(folder, ["config.json cannot be read", "Restore it from a copy"])


@pytest.mark.parametrize("allow_change", [True, False])
def test_a_folder_that_holds_no_run_is_left_alone(folder, allow_change):
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")
    assert_refused(folder, ["is not empty, and holds no run"], allow_change=allow_change)


def test_a_file_in_the_place_of_the_folder_is_refused(folder):
    folder.parent.mkdir()
    folder.write_text("a file")
    with pytest.raises(UserError, match=r"cannot be written: File exists\. Choose another with"):
        open_folder(folder)
    assert folder.read_text() == "a file"


def test_a_file_in_the_place_of_its_parent_is_refused(folder):
    folder.parent.write_text("a file")
    with pytest.raises(UserError, match=r"cannot be written: Not a directory\. Choose another"):
        open_folder(folder)


def test_a_folder_that_refuses_files_is_refused(folder, monkeypatch):
    def refuse(path, data):
        raise PermissionError(13, "Permission denied", str(path))

    open_folder(folder)
    monkeypatch.setattr("pathlib.Path.write_bytes", refuse)
    assert_refused(folder, ["cannot be written: Permission denied"])


def test_a_disk_too_full_for_the_checkpoints_is_refused(folder, monkeypatch):
    Usage = collections.namedtuple("Usage", "total used free")
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 3_000_000, 3 * 10**6)
    )
    fragments = ["3.0 MB left", "take up to 3.0 MB", "--config.checkpoint.keep=1"]
    open_folder(folder, needs_bytes=3_000_000)
    assert_refused(folder, fragments, needs_bytes=3_000_001)


def test_seconds_add_up_over_launches(tmp_path):
    first = {"compile": 1.0, "step": 2.0, "total": 3.5}
    second = {"step": 4.0, "evaluation": 0.5, "total": 5.0}
    assert run_folder.add_seconds(tmp_path, first) == first
    assert run_folder.add_seconds(tmp_path, second) == second
    assert json.loads((tmp_path / "seconds.json").read_text()) == {
        "compile": 1.0,
        "step": 6.0,
        "evaluation": 0.5,
        "total": 8.5,
    }


@pytest.mark.parametrize(
    ("analysis", "cost"),
    [
        ({"flops": 2.5e6, "bytes accessed": 1.0}, {"flops_per_step": 2.5e6, "flops": 2.5e8}),
        ({}, {"flops_per_step": None, "flops": None}),
        (None, {"flops_per_step": None, "flops": None}),
    ],
)
def test_cost_is_that_of_the_whole_run(tmp_path, analysis, cost):
    run_folder.write_cost(tmp_path, analysis, 100, 61_706)
    written = json.loads((tmp_path / "cost.json").read_text())
    assert written == cost | {"parameters": 61_706}


def test_the_processor_has_a_name():
    assert run_folder.processor()


LINES = [
    ("a/1.png", "a", "train", "11"),
    ("a/2.png", "a", "test", "22"),
    ("b/1.png", "b", "train", "33"),
]


def record_of(lines, classes=("a", "b")):
    return records.write(classes, lines)


def test_a_record_is_kept(folder):
    assert open_folder(folder, record=record_of(LINES)) == []
    for name, text in record_of(LINES).items():
        assert (folder / name).read_text() == text
    assert open_folder(folder, record=record_of(LINES)) == []
    assert open_folder(folder) == []  # a data set without one asks for nothing


def test_images_that_came_and_went_are_told_of_and_recorded(folder):
    open_folder(folder, record=record_of(LINES))
    now = record_of([*LINES[:2], *((f"b/{i}.png", "b", "train", f"4{i}") for i in range(12))])
    added, gone = open_folder(folder, record=now)
    assert added.startswith("Since the run began: 12 new images (b/0.png; ")
    assert added.endswith("b/9.png; ... and 2 more).")
    assert gone == "Since the run began: 1 images gone (b/1.png)."
    assert (folder / "splits.csv").read_text() == now["splits.csv"]


def test_images_in_another_split_are_refused(folder):
    open_folder(folder, record=record_of(LINES))
    now = record_of([LINES[0], ("a/2.png", "a", "train", "22"), LINES[2]])
    assert_refused(folder, ["images in another split: a/2.png: test -> train"], record=now)
    assert_refused(
        folder,
        ["classes: b: 1 -> 2; bee: absent -> 1"],
        record=record_of(LINES, ("a", "bee", "b")),
    )
    (said,) = open_folder(folder, record=now, allow_change=True)
    assert "1 images in another split" in said
    assert open_folder(folder, record=now) == []


@pytest.mark.parametrize("name", ["splits.csv", "classes.json"])
def test_a_damaged_record_is_refused(folder, name):
    open_folder(folder, record=record_of(LINES))
    (folder / name).write_text("damage")
    assert_refused(folder, [f"record of splits in {folder}"], record=record_of(LINES))


def test_convolutions_of_another_kind_are_named(folder, monkeypatch):
    open_folder(folder)
    monkeypatch.setattr(xla, "native_convolutions", lambda experiment: (True, ""))
    assert_refused(folder, [f"  cpu_convolutions: 'xla' -> 'native {build.REVISION}'\n"])


def test_kernels_that_compute_otherwise_are_named(folder, monkeypatch):
    monkeypatch.setattr(xla, "native_convolutions", lambda experiment: (True, ""))
    open_folder(folder)
    open_folder(folder)
    monkeypatch.setattr(build, "REVISION", 99)
    assert_refused(folder, ["-> 'native 99'\n"])


def test_other_devices_may_compute_otherwise(folder, monkeypatch):
    open_folder(folder)
    monkeypatch.setattr(xla, "native_convolutions", lambda experiment: (True, ""))
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    open_folder(folder)
