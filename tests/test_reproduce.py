"""A claim is measured again beside what is recorded, never over it, and answered by exit codes."""

import json
import sys
from pathlib import Path

import pytest

from imgrec import claims, launching, main, reproduce, reproduction
from imgrec.config import to_dict
from imgrec.errors import UserError
from imgrec.launching import Outcome
from imgrec.training import resolving, run_folder

WRITER = """
import json, os, pathlib
found = json.loads(pathlib.Path({recorded!r}).read_text())
found |= {change!r}
out = pathlib.Path(os.environ["IMGREC_MEASURED"]) / "results" / {name!r}
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(json.dumps(found))
"""


@pytest.fixture
def results(tmp_path, tiny):
    """A folder of results with "tiny", a test accuracy of six steps on digits."""
    tiny.model.name = "small_cnn"  # compiles soonest
    experiment = resolving.resolve(tiny)
    recorded = {
        "claim": "tiny on digits",
        "metric": "test accuracy",
        "values": [0.5, 0.2, 0.3],
        "n": 359,
        "target": None,
        "reached": None,
        "rule": "seeds",
        "seeds": [0, 1, 2],
        "device": "some CPU, 64 cores, cpu",
        "versions": {"jax": "0.0.1"},
        "git_revision": run_folder.git("rev-parse", "HEAD") or "0" * 40,
        "fingerprint": "0" * 12,
        "config": to_dict(experiment),
        "seconds": [1.0, 1.0, 1.0],
        "command": "python scripts/measure.py tiny",
    }
    claims.write(tmp_path / "results" / "tiny.json", recorded)
    return tmp_path / "results"


@pytest.fixture
def ask(results, tmp_path, monkeypatch, capsys):
    """ask("tiny", ...) -> (exit code, what was printed); runs of imgrec.main stay in here."""

    def run_all(runs, **arguments):
        for run in runs:
            argv = list(run.command[run.command.index("imgrec.main") :])
            code = main.main([*argv, "--config.train.duration=2st"])
            arguments["ended"](Outcome(run.name, run.folder, code))

    monkeypatch.chdir(tmp_path)

    def call(*flags, in_process=True):
        with monkeypatch.context() as patch:
            patch.setenv("XLA_FLAGS", "")
            if in_process:
                patch.setattr(launching, "run_all", run_all)
            code = reproduce.main(["reproduce", f"--results={results}", *flags])
        return code, capsys.readouterr().out

    return call


def change(results, name="tiny", **values):
    path = results / f"{name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_an_accuracy_is_measured_by_its_recorded_configuration(ask, results, tmp_path):
    before = {path: path.read_bytes() for path in results.iterdir()}
    code, said = ask("tiny", "--seeds=1", "--workdir=again")
    assert code == 0
    assert "it was measured on some CPU, 64 cores" in said and "jax 0.0.1 -> " in said
    assert "Student's t" in said and "seed 1: " in said and "recorded 0.2" in said
    assert said.index("inside the interval") < said.index("reproduced")
    again = claims.load(tmp_path / "again" / "results" / "tiny.json")
    assert (
        again["seeds"] == [1]
        and again["n"] == 359
        and again["config"]["model"]
        == {
            "name": "small_cnn",
            "options": {},
        }
    )
    verdict = json.loads((tmp_path / "again" / "verdict.json").read_text())
    assert verdict["reproduced"] is True and verdict["rule"] == "seeds"
    assert {path: path.read_bytes() for path in results.iterdir()} == before
    # Measured again, the same numbers come; recorded otherwise, that is noticed.
    change(results, values=[0.99, 0.991, 0.992], mean=0.991, std=0.001)
    code, said = ask("tiny", "--seeds=1", "--workdir=third")
    assert code == 1
    assert "OUTSIDE the interval" in said and "NOT reproduced" in said


def test_a_plan_runs_and_writes_nothing(ask, tmp_path, results):
    there = set(tmp_path.rglob("*"))
    code, said = ask("tiny", "--plan")
    assert code == 0 and said.count("-m imgrec.main") == 3 and "expected: " in said
    assert set(tmp_path.rglob("*")) == there


def test_all_are_listed(ask):
    code, said = ask("--list")
    assert code == 0
    assert said == "tiny: tiny on digits: test accuracy 0.33333 ± 0.15, 3 values\n"


@pytest.mark.parametrize(
    "change_, expected",
    [({}, 0), ({"reached": False}, 1), ({"values": [8]}, 0)],
    ids=["same", "missed", "another value, still reached"],
)
def test_a_command_is_run_as_recorded_and_writes_elsewhere(
    change_, expected, ask, results, tmp_path
):
    recorded = json.loads((results / "tiny.json").read_text())
    script = tmp_path / "writer.py"
    name = "counted"
    recorded |= {"metric": "MiB at most", "values": [7], "mean": 7, "std": None, "value": 7}
    recorded |= {"rule": "target", "target": 9, "reached": True, "seeds": None, "config": None}
    recorded |= {"command": f"python {script} --data_root=FOLDER", "seconds": None}
    (results / f"{name}.json").write_text(json.dumps(recorded))
    if "values" in change_:
        change_ = {**change_, "mean": change_["values"][0], "value": change_["values"][0]}
    path = str(results / f"{name}.json")
    script.write_text(WRITER.format(recorded=path, change=change_, name=f"{name}.json"))
    before = Path(path).read_bytes()
    with pytest.raises(UserError, match=r"needs data, and there is no folder .*nowhere"):
        ask(name, "--data_root=nowhere")
    with pytest.raises(UserError, match=r"by one command .* Leave --seeds out"):
        ask(name, "--seeds=0", f"--data_root={tmp_path}")
    code, said = ask(name, f"--data_root={tmp_path}", "--workdir=new", in_process=False)
    assert code == expected, said
    assert (tmp_path / "new" / "results" / f"{name}.json").exists()
    assert Path(path).read_bytes() == before


def test_a_command_that_fails_or_writes_nothing_is_told(ask, results, tmp_path, capsys):
    script = tmp_path / "fails.py"
    script.write_text("raise SystemExit('no such luck')")
    change(results, config=None, seeds=None, fingerprint=None, command=f"python {script}")
    code, _ = ask("tiny", f"--data_root={tmp_path}", "--workdir=a", in_process=False)
    assert code == 1
    script.write_text("")
    with pytest.raises(UserError, match=r"wrote no .*tiny\.json"):
        ask("tiny", f"--data_root={tmp_path}", "--workdir=b", in_process=False)


def test_a_stopped_one_says_how_it_goes_on(ask, monkeypatch):
    def run_all(runs, **arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(launching, "run_all", run_all)
    code, said = ask("tiny", "--seeds=0", "--workdir=again", in_process=False)
    assert code == 75 and "--seeds=0 --workdir=" in said
    # Its own folder is gone on in; with other seeds, or with something else in it, it is not.
    assert ask("tiny", "--seeds=0", "--workdir=again", in_process=False)[0] == 75
    with pytest.raises(UserError, match="another claim, or of other seeds"):
        ask("tiny", "--seeds=1", "--workdir=again")


def test_a_folder_with_something_else_is_left_alone(ask, results):
    with pytest.raises(UserError, match="is not empty"):
        ask("tiny", f"--workdir={results}")
    assert [path.name for path in results.iterdir()] == ["tiny.json"]


@pytest.mark.parametrize(
    "flags, said",
    [
        (("tinny",), "Unknown claim 'tinny'. Did you mean 'tiny'?"),
        ((), "Name one claim, got none; --list shows all"),
        (("tiny", "tiny"), "Name one claim, got tiny tiny"),
        (("tiny", "--seeds=a"), "--seeds=a: expected numbers"),
        (("tiny", "--seeds=1,1"), "each once"),
        (("tiny", "--sedes=1"), "Did you mean --seeds?"),
    ],
)
def test_mistakes_are_answered_before_any_work(flags, said, ask):
    with pytest.raises(UserError) as error:
        ask(*flags)
    assert said in str(error.value)


def test_other_data_and_older_configurations_are_refused(ask, results, tiny):
    change(results, n=360)
    with pytest.raises(UserError, match=r"on 360 test images, and 'digits' .* has 359"):
        ask("tiny")
    change(results, n=359, config={**to_dict(tiny), "flux": 1})
    with pytest.raises(UserError, match=r"an older imgrec .*flux.*git checkout [0-9a-f]{40}"):
        ask("tiny")
    config = to_dict(tiny)
    config["data"]["dataset"] = "mnist"
    change(results, config=config)
    with pytest.raises(UserError, match="mnist"):
        ask("tiny", "--data_root=nowhere")


def test_a_claim_about_a_run_asks_for_one(ask, results):
    command = "python scripts/measure_evaluation.py x --workdir=RUN"
    change(results, config=None, seeds=None, fingerprint=None, command=command)
    with pytest.raises(UserError, match=r"a claim about a trained run .*--run=FOLDER"):
        ask("tiny")
    change(results, command="sbatch scripts/launch/train.sbatch")
    with pytest.raises(UserError, match="measured by 'sbatch'; run it yourself"):
        ask("tiny")


def test_recorded_claims_can_all_be_planned_or_say_what_they_need(tmp_path, monkeypatch):
    """Of every result in results/: a command of this project, with files that are there."""
    monkeypatch.setattr(reproduction, "_check_data", lambda *arguments: None)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    for name, recorded in claims.load_all(reproduction.ROOT / "results").items():
        again = reproduction.plan(
            name, recorded, tmp_path / "new", data_root=str(tmp_path), run=str(run)
        )
        assert again.runs, name
        for each in again.runs:
            assert sys.executable in each.command and "FOLDER" not in " ".join(each.command)
            program = each.command[each.command.index(sys.executable) + 1]
            assert program == "-m" or (reproduction.ROOT / program).is_file(), name
        assert reproduction.circumstances(again)
