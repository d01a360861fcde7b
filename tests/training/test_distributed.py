"""Two real processes of four devices over loopback, and what becomes of one when the other ends.

The runs of a module are shared by its tests; all of them go through the command line.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from imgrec import evaluate, main
from imgrec.errors import UserError
from imgrec.evaluation import predictions
from imgrec.training import distributed
from imgrec.training.signals import StopRequest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("one_of_several.py")
LOST_AFTER = 4.0
LIMIT = 120.0  # seconds, of a machine that is busy with other things
TINY = """
from ml_collections import ConfigDict

from imgrec.config import *

def get_config(arg=""):
    return Experiment(
        name="tiny",
        data=DataConfig(dataset="digits", batch_size=32, validation="96"),
        model=ModelConfig(name="small_cnn", options=ConfigDict({"width": 8})),
        train=TrainConfig(duration="8st"),
        eval=EvalConfig(every="4st"),
        checkpoint=CheckpointConfig(every="4st", keep=9),
        log=LogConfig(every="1st", tensorboard=False),
    )
"""


def start(
    *flags: str, each: tuple[tuple[str, ...], ...] = ((), ()), which: tuple[int, ...] = (0, 1)
) -> list[subprocess.Popen[str]]:
    """Starts the script in two processes, with flags for both and for each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    verb, *rest = flags
    several = (f"--coordinator=127.0.0.1:{port}", "--processes=2", f"--lost_after={LOST_AFTER}")
    environ = {**os.environ, "JAX_NUM_CPU_DEVICES": "4", "PYTHONUNBUFFERED": "1"}
    environ.pop("XLA_FLAGS", None)
    environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # both compile all that they run for 8 steps
    return [
        subprocess.Popen(
            [sys.executable, SCRIPT, verb, *rest, *several, f"--process={i}", *each[i]],
            cwd=ROOT,
            env=environ,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for i in which
    ]


def ended(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of each; none of them may hang."""
    try:
        found = [(*each.communicate(timeout=LIMIT), each.returncode) for each in processes]
    finally:
        for each in processes:
            with contextlib.suppress(OSError):
                each.kill()
    return [(code, out, err) for out, err, code in found]


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"ended before it said {text!r}: {process.communicate()[1]}")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("several")
    (folder / "tiny.py").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        # The verb sets XLA_FLAGS, which is read once a process: here it is not to leak.
        patch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
        yield folder


def flags(root: Path, run: str, *more: str) -> list[str]:
    # Without the flag of the fusion, which a backend that has started already would not take.
    own = ["--config.train.cpu_fusion=off", f"--workdir={root / run}"]
    return [f"--config={root / 'tiny.py'}", *own, *more]


@pytest.fixture(scope="module")
def one_of_eight(root: Path) -> Path:
    """The run that the others are to be like: one process of eight devices."""
    assert main.main(["main", *flags(root, "one")]) == 0
    return root / "one"


@pytest.fixture(scope="module")
def stopped(root: Path) -> list[tuple[int, str, str]]:
    """Two processes, fed from the host, stopped by a signal to the second; the folder is "two"."""
    streamed = ("--config.data.resident=off", "--config.data.prefetch=1")
    processes = start("main", "0.4", *flags(root, "two", *streamed, "--allow_config_change"))
    wait_for_line(processes[0], "step 2/8")
    processes[1].send_signal(signal.SIGTERM)
    found = ended(processes)
    for copy in ("two_on_eight", "two_on_one"):
        shutil.copytree(root / "two", root / copy)
    return found


@pytest.fixture(scope="module")
def two(root: Path, stopped: object) -> Path:
    """The stopped run, gone on with by two processes from what is resident on the devices."""
    found = ended(start("main", "0", *flags(root, "two", "--allow_config_change")))
    assert [code for code, _, _ in found] == [0, 0], found
    return root / "two"


def lines(run: Path) -> list[dict[str, float]]:
    text = (run / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def parameters(run: Path) -> list[np.ndarray]:
    """The whole last state, as one device holds it."""
    with ocp.StandardCheckpointer() as checkpointer:
        path = (run / "checkpoints" / "latest" / "8" / "state").absolute()
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
            checkpointer.metadata(path).item_metadata.tree,
        )
        return [np.asarray(leaf) for leaf in jax.tree.leaves(checkpointer.restore(path, like))]


def assert_the_same_run(run: Path, other: Path) -> None:
    """All numbers but those of time, but for sums of float32 in another order."""
    close = {"rtol": 2e-4, "atol": 2e-5}
    ours, theirs = lines(run), lines(other)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for line, expected in zip(ours, theirs, strict=True):
        numbers = {name for name in expected if not name.startswith("time/")}
        assert numbers == {name for name in line if not name.startswith("time/")}
        for name in numbers:
            np.testing.assert_allclose(line[name], expected[name], **close, err_msg=name)
    for leaf, expected in zip(parameters(run), parameters(other), strict=True):
        np.testing.assert_allclose(leaf, expected, **close)
    said, expected = (
        predictions.load(each / "evaluation" / "test" / "predictions.npz") for each in (run, other)
    )
    np.testing.assert_array_equal(said.index, expected.index)
    np.testing.assert_array_equal(said.label, expected.label)
    np.testing.assert_allclose(said.logits, expected.logits, rtol=1e-3, atol=1e-4)


def test_a_signal_to_one_stops_all_at_one_checkpoint(root, stopped):
    assert [code for code, _, _ in stopped] == [75, 75], stopped
    (_, first, _), (_, second, errors) = stopped
    assert "Stopped by SIGTERM at process 1 of 2" in first
    assert second == "" and "error" not in errors  # console output is that of process 0
    saved = [int(p.name) for p in (root / "two_on_one/checkpoints/latest").iterdir()]
    assert f"at step {max(saved)} of 8" in first
    assert max(line["step"] for line in lines(root / "two_on_one")) == max(saved) < 8


def test_two_processes_are_one(one_of_eight, two):
    assert_the_same_run(two, one_of_eight)


def test_one_process_writes(two):
    launches = [json.loads(line) for line in (two / "launches.jsonl").read_text().splitlines()]
    assert [launch["processes"] for launch in launches] == [2, 2]
    assert len(launches[0]["devices"]) == 8
    assert not list(two.glob(".*"))
    assert json.loads((two / "evaluation/test/metrics.json").read_text())["n"] == 359


@pytest.mark.parametrize(("copy", "devices"), [("two_on_eight", -1), ("two_on_one", 1)])
def test_what_two_have_saved_goes_on_in_one(root, one_of_eight, stopped, copy, devices):
    change = (f"--config.mesh.data={devices}", "--allow_config_change")
    assert main.main(["main", *flags(root, copy, *change)]) == 0
    assert_the_same_run(root / copy, one_of_eight)


def test_what_one_has_saved_goes_on_in_two(root, one_of_eight):
    """Over fsdp too, which one process may not have had, and several steps a call."""
    run = root / "one_on_two"
    shutil.copytree(one_of_eight, run)
    shutil.rmtree(run / "evaluation")
    for saved in [*(run / "checkpoints/latest").iterdir(), *(run / "checkpoints/best").iterdir()]:
        if int(saved.name) > 4:
            shutil.rmtree(saved)
    change = ("--config.mesh.data=2", "--config.mesh.fsdp=4", "--allow_config_change")
    rules = '--config.mesh.rules=((".*kernel","fsdp"),)'
    found = ended(start("main", "0", *flags(root, "one_on_two", *change, rules)))
    assert [code for code, _, _ in found] == [0, 0], found
    assert "at step 4 of 8" in found[0][1]
    assert_the_same_run(run, one_of_eight)


def test_a_head_is_fitted_by_two(root):
    head = ("--config.head.name=prototype", "--config.head.options.metric=euclidean")
    assert main.main(["main", *flags(root, "head", *head)]) == 0
    found = ended(start("main", "0", *flags(root, "heads", *head)))
    assert [code for code, _, _ in found] == [0, 0], found
    said, expected = (
        predictions.load(root / run / "evaluation" / "test" / "predictions.npz")
        for run in ("heads", "head")
    )
    np.testing.assert_allclose(said.logits, expected.logits, rtol=1e-3, atol=1e-4)
    assert (root / "heads/checkpoints/best/0").is_dir()


def test_another_configuration_is_refused_by_its_name(root):
    each = (("--config.seed=1",), ("--config.seed=2", "--config.optimizer.learning_rate=1e-3"))
    found = ended(start("main", "0", *flags(root, "refused"), each=each))
    assert [code for code, _, _ in found] == [2, 2], found
    for _, _, errors in found:
        assert "config.seed: 1 in process 0, 2 in process 1" in errors
        assert "config.optimizer.learning_rate" in errors and "Traceback" not in errors
    assert not (root / "refused").exists()


def test_a_folder_that_is_refused_to_the_first_ends_both(root, one_of_eight):
    found = ended(start("main", "0", *flags(root, "one", "--config.optimizer.name=adamw")))
    assert [code for code, _, _ in found] == [2, 2], found
    assert "another configuration" in found[0][2]
    assert "process 0 of 2" in found[1][2] and "another configuration" in found[1][2]


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_other_in_words(killed):
    processes = start("loop")
    wait_for_line(processes[killed], "step 3")
    processes[killed].kill()
    began = time.monotonic()
    found = ended(processes)
    took = time.monotonic() - began
    code, _, errors = found[1 - killed]
    assert code == 1, found
    assert f"error: process {1 - killed} of 2" in errors
    assert f"process {killed} of 2" in errors.splitlines()[-1] and "is lost" in errors
    assert took < 4 * LOST_AFTER + 10  # the second term for a busy machine


@pytest.mark.parametrize(("kind", "code"), [("UserError", 2), ("ValueError", 1)])
def test_an_error_in_one_ends_the_other_with_its_words(kind, code):
    found = ended(start("loop", each=((), (f"--raises={kind}",))))
    assert [end for end, _, _ in found] == [code, code], found
    for _, _, errors in found:
        assert "this image is not one" in errors
    assert "process 1 of 2" in found[0][2] and "Traceback" not in found[0][2]
    assert ("Traceback" in found[1][2]) == (kind == "ValueError")


def test_all_stop_at_the_same_step_however_many_a_call_makes():
    """Here SIGINT to the first; above it was SIGTERM to the second."""
    processes = start("loop", "--stride=7")
    wait_for_line(processes[0], "step 70")
    processes[0].send_signal(signal.SIGINT)
    found = ended(processes)
    assert [code for code, _, _ in found] == [75, 75], found
    last = [out.splitlines()[-1] for _, out, _ in found]
    assert last[0] == last[1]
    assert last[0].startswith("stopped by SIGINT at process 0 of 2")


def test_a_coordinator_that_is_not_there_and_others_that_do_not_come():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        address = f"--coordinator=127.0.0.1:{nobody.getsockname()[1]}"
        processes = start("loop", "--start_timeout=2", which=(0,))
        processes += start("loop", "--start_timeout=2", each=((), (address,)), which=(1,))
        (alone, _, waited), (lonely, _, missed) = ended(processes)
    assert alone == lonely == 2
    assert "not all of 2 processes have come" in waited and "--start_timeout" in waited
    assert f"could not reach the coordinator at {address.partition('=')[2]} for 2 s" in missed
    assert "Connection refused" in missed and "--coordinator" in missed


def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        with pytest.raises(UserError, match="another port"):
            distributed._check_port_is_free(taken.getsockname()[1])


def test_a_process_alone_does_nothing_of_all_this():
    with distributed.joined(distributed.Job(), start_timeout=0.0, lost_after=0.0):
        assert distributed.agreed({"a": 1}) == {"a": 1}
        assert distributed.everyone("b") == ["b"]
        assert type(distributed.stop_request()) is StopRequest
    with pytest.raises(ValueError, match=r"^mine$"), distributed.failing_together():
        raise ValueError("mine")


def test_evaluation_is_done_by_one(monkeypatch):
    monkeypatch.setenv("IMGREC_COORDINATOR", "127.0.0.1:1")
    monkeypatch.setenv("IMGREC_PROCESSES", "2")
    monkeypatch.setenv("IMGREC_PROCESS", "0")
    with pytest.raises(UserError, match="runs in one process"):
        evaluate.main(["evaluate", "--workdir=nowhere"])
