import json
import sys
import threading
import types

import numpy as np
import pytest

from imgrec.training import writers
from imgrec.training.writers import JsonLines, Several


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path, *lines, resume_step=0):
    writer = JsonLines(path, resume_step=resume_step)
    for step, scalars in lines:
        writer.write_scalars(step, scalars)
    writer.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


@pytest.fixture
def superseded(tmp_path):
    return tmp_path / "metrics.superseded.jsonl"


def test_one_object_a_line(path):
    write(path, (50, {"train/loss": 2.25, "train/accuracy": 0.5}), (50, {"validation/loss": 2}))
    assert path.read_text() == (
        '{"step": 50, "train/loss": 2.25, "train/accuracy": 0.5}\n'
        '{"step": 50, "validation/loss": 2.0}\n'
    )


def test_numbers_of_numpy_are_numbers(path):
    write(path, (1, {"a": np.float32(0.5), "b": np.int64(3)}))
    assert read(path) == [{"step": 1, "a": 0.5, "b": 3.0}]


def test_a_line_can_be_read_as_soon_as_it_is_written(path):
    writer = JsonLines(path, resume_step=0)
    writer.write_scalars(1, {"loss": 1.0})
    assert read(path) == [{"step": 1, "loss": 1.0}]
    writer.close()


def test_pictures_and_settings_leave_no_trace(path):
    writer = JsonLines(path, resume_step=0)
    writer.write_images(1, {"augmented": np.zeros((1, 2, 2, 3), np.uint8)})
    writer.write_hparams({"seed": 0})
    writer.flush()
    writer.close()
    assert path.read_text() == ""


def test_a_resume_appends(path, superseded):
    write(path, (1, {"loss": 3.0}), (2, {"loss": 2.0}))
    write(path, (3, {"loss": 1.0}), resume_step=2)
    assert [line["step"] for line in read(path)] == [1, 2, 3]
    assert not superseded.exists()


def test_lines_after_the_checkpoint_are_kept_aside(path, superseded):
    write(path, (1, {"loss": 3.0}), (2, {"loss": 2.0}), (3, {"loss": 1.0}), (3, {"x": 1.0}))
    write(path, (2, {"loss": 2.5}), resume_step=1)
    assert read(path) == [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.5}]
    assert [line["step"] for line in read(superseded)] == [2, 3, 3]
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, superseded.name]


def test_lines_superseded_twice_are_all_kept(path, superseded):
    for loss in (1.0, 2.0, 3.0):
        write(path, (1, {"loss": loss}))
    assert read(path) == [{"step": 1, "loss": 3.0}]
    assert [line["loss"] for line in read(superseded)] == [1.0, 2.0]


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', '{"st', "{", '{"step": 3, "loss": 1.0}x'])
def test_a_torn_last_line_is_kept_aside(path, superseded, torn):
    write(path, (1, {"loss": 3.0}), (2, {"loss": 2.0}))
    path.write_text(path.read_text() + torn)
    write(path, (3, {"loss": 1.0}), resume_step=2)
    assert read(path)[1:] == [{"step": 2, "loss": 2.0}, {"step": 3, "loss": 1.0}]
    assert superseded.read_text() == torn + "\n"


def test_a_last_line_that_lacks_only_its_end_is_kept(path, superseded):
    write(path, (1, {"loss": 3.0}))
    path.write_text(path.read_text().rstrip("\n"))
    write(path, (2, {"loss": 2.0}), resume_step=1)
    assert [line["step"] for line in read(path)] == [1, 2]
    assert not superseded.exists()


class Recorder:
    """A writer that notes its calls."""

    def __init__(self):
        self.calls = []

    def write_scalars(self, step, scalars):
        self.calls.append(("scalars", step, scalars))

    def write_images(self, step, images):
        self.calls.append(("images", step, images))

    def write_hparams(self, hparams):
        self.calls.append(("hparams", hparams))

    def flush(self):
        self.calls.append(("flush",))

    def close(self):
        self.calls.append(("close",))


def test_several_writers_get_everything_in_order():
    recorders = [Recorder(), Recorder()]
    both = Several(list(recorders))
    both.write_hparams({"seed": 0})
    both.write_scalars(1, {"loss": 1.0})
    both.write_images(1, {"augmented": 0})
    both.flush()
    both.close()
    expected = [
        ("hparams", {"seed": 0}),
        ("scalars", 1, {"loss": 1.0}),
        ("images", 1, {"augmented": 0}),
        ("flush",),
        ("close",),
    ]
    assert [recorder.calls for recorder in recorders] == [expected, expected]


@pytest.mark.parametrize("absent", ["tensorflow", "clu"])
def test_without_tensorflow_or_clu_the_lines_are_written_and_one_line_says_so(
    absent, path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tensorflow", types.ModuleType("tensorflow"))
    monkeypatch.setitem(sys.modules, absent, None)  # which makes its import an ImportError
    writer, missing = writers.create(path.parent, resume_step=0, tensorboard=True)
    assert missing == (
        f"No TensorBoard events: {absent} cannot be imported. "
        "Metrics are in metrics.jsonl. To have both: pip install clu tensorflow-cpu"
    )
    writer.write_scalars(1, {"loss": 1.0})
    writer.close()
    assert read(path) == [{"step": 1, "loss": 1.0}]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def summaries(monkeypatch, make):
    """Has `make(folder)` stand in for CLU's writer and for the import of TensorFlow."""
    monkeypatch.setattr(writers, "_is_there", lambda package: True)
    monkeypatch.setattr(writers, "_summary_writer", make)


def test_nothing_waits_for_tensorflow_and_everything_is_written_in_order(path, monkeypatch):
    imported, recorder = threading.Event(), Recorder()

    def make(folder):
        assert folder == path.parent
        assert imported.wait(timeout=60)
        return recorder

    summaries(monkeypatch, make)
    writer, missing = writers.create(path.parent, resume_step=0, tensorboard=True)
    writer.write_hparams({"seed": 0})
    for step in range(20):
        writer.write_scalars(step, {"loss": 1.0})
    assert missing is None
    assert recorder.calls == []  # and yet we are here
    assert len(read(path)) == 20
    imported.set()
    writer.flush()
    expected = [("hparams", {"seed": 0})]
    expected += [("scalars", step, {"loss": 1.0}) for step in range(20)]
    assert recorder.calls == [*expected, ("flush",)]
    writer.close()
    assert recorder.calls[-1] == ("close",)


def test_nothing_is_imported_where_nothing_is_written(path, monkeypatch):
    summaries(monkeypatch, lambda folder: pytest.fail("there was nothing to write"))
    writer, _ = writers.create(path.parent, resume_step=0, tensorboard=True)
    writer.flush()
    writer.close()


def test_a_tensorflow_that_does_not_work_costs_its_events_alone(path, monkeypatch):
    def make(folder):
        raise ImportError("libtensorflow.so.2: wrong ELF class")

    summaries(monkeypatch, make)
    writer, _ = writers.create(path.parent, resume_step=0, tensorboard=True)
    with pytest.warns(UserWarning, match="No TensorBoard events: libtensorflow.so.2: wrong ELF"):
        writer.write_scalars(1, {"loss": 1.0})
        writer.flush()
    writer.write_scalars(2, {"loss": 2.0})
    writer.close()
    assert [line["step"] for line in read(path)] == [1, 2]


def test_what_goes_wrong_while_writing_is_not_lost(path, monkeypatch):
    class Full(Recorder):
        def write_scalars(self, step, scalars):
            raise OSError(28, "No space left on device")

    recorder = Full()
    summaries(monkeypatch, lambda folder: recorder)
    writer, _ = writers.create(path.parent, resume_step=0, tensorboard=True)
    writer.write_scalars(1, {"loss": 1.0})
    with pytest.raises(OSError, match="No space left"):
        writer.close()


def test_where_tensorboard_is_not_asked_for_nothing_is_missing(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    writer, missing = writers.create(path.parent, resume_step=0, tensorboard=False)
    assert missing is None
    writer.close()


@pytest.mark.slow  # importing TensorFlow takes seven seconds
@pytest.mark.filterwarnings("ignore")  # of TensorFlow and its protocol buffers
def test_tensorboard_gets_scalars_images_and_settings(path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    writer, missing = writers.create(path.parent, resume_step=0, tensorboard=True)
    assert missing is None
    writer.write_hparams({"seed": 3, "data.dataset": "digits"})
    writer.write_images(0, {"augmented": np.zeros((1, 4, 6, 3), np.uint8)})
    writer.write_scalars(7, {"train/loss": 1.5})
    writer.close()
    events = EventAccumulator(str(path.parent))
    events.Reload()
    assert set(events.Tags()["tensors"]) == {
        "_hparams_/session_start_info",
        "augmented",
        "train/loss",
    }
    (loss,) = events.Tensors("train/loss")
    assert (loss.step, make_ndarray(loss.tensor_proto)) == (7, 1.5)
    assert read(path) == [{"step": 7, "train/loss": 1.5}]
