import json

import pytest

from imgrec import bench
from imgrec.errors import UserError
from imgrec.training import xla

CONFIG = "--config=configs/digits_lenet.py"


def test_a_measurement_is_printed_and_written_with_its_machine(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(xla, "configure", lambda experiment: "flags: as they are")
    arguments = ["--what=latency", "--noise", "--calls=3", f"--out={tmp_path}"]
    assert bench.main(["bench", CONFIG, *arguments, "--config.train.compute_dtype=bfloat16"]) == 0
    (path,) = tmp_path.glob("*.json")
    assert path.name == "bench_latency_digits_lenet_bfloat16.json"
    result = json.loads(path.read_text())
    for key in ("claim", "metric", "values", "target", "reached", "n", "device", "versions"):
        assert key in result
    # The command measures it again on any machine: it says nothing of where things lie here.
    assert result["command"].startswith(f"python -m imgrec.bench {CONFIG}")
    assert "--what=latency" in result["command"] and str(tmp_path) not in result["command"]
    assert "p99" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argument, said",
    [
        ("--what=latncy", "Did you mean 'latency'"),
        ("--against=toch", "Did you mean 'torch'"),
        ("--rounds=0", "rounds"),
        ("--config.model.name=resnet21", "resnet20"),
    ],
)
def test_what_cannot_be_measured_is_refused(argument, said):
    with pytest.raises(UserError, match=said):
        bench.main(["bench", CONFIG, argument, "--noise", "--calls=1"])


def test_all_is_everything_but_whole_runs_and_processes_of_their_own_come_first():
    class Given:
        what, against = ["latency", "all"], []

    *usual, long = bench.WHATS
    assert long == "to_accuracy" and bench._checked(Given) == usual
    Given.what = ["evaluation", "step"]
    assert bench._checked(Given) == ["step", "evaluation"]
    Given.what = ["all", "to_accuracy"]
    assert bench._checked(Given) == list(bench.WHATS)
