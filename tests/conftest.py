"""Eight simulated devices, annotations checked at run time, and no warning unnoticed."""

import atexit
import copy
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

# Many tests, and the processes some of them start, compile the same programs. Of tests that run
# side by side each process has a cache of its own: JAX's files are not written in one piece.
compiled = tempfile.mkdtemp(prefix="imgrec-compiled-")
atexit.register(shutil.rmtree, compiled, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
os.environ.setdefault("IMGREC_NATIVE", str(Path(compiled) / "native"))
os.environ.setdefault("IMGREC_CACHE", str(Path(compiled) / "cache"))  # not the home's
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

# Devices are counted when jax starts, so before anything imports it.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax

jax.config.update("jax_num_cpu_devices", 8)

# Thousands of programs are compiled here, and most run once: with XLA's own passes as ever but
# the quickest machine code, that takes a quarter less. XLA reads its flags once, when it starts;
# nothing else sees this one, neither what reads the environment nor a process that a test starts.
quickly = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=1".strip()
with mock.patch.dict(os.environ, XLA_FLAGS=quickly):
    jax.devices()

from jaxtyping import install_import_hook

install_import_hook("imgrec", "beartype.beartype").__enter__()

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from imgrec.config import (
    CheckpointConfig,
    DataConfig,
    EvalConfig,
    Experiment,
    LogConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    fingerprint,
    to_dict,
)
from imgrec.evaluation import predictions
from imgrec.evaluation.predictions import Predictions


@pytest.fixture
def tiny() -> Experiment:
    """Six steps of a residual net on 8x8 digits, on one device: a run of seconds."""
    return Experiment(
        name="tiny",
        data=DataConfig(dataset="digits", batch_size=32, validation="96"),
        model=ModelConfig(name="resnet8"),
        optimizer=OptimizerConfig(learning_rate=0.05, options=ConfigDict({"momentum": 0.9})),
        train=TrainConfig(duration="6st"),
        mesh=MeshConfig(data=1),
        eval=EvalConfig(every="3st"),
        checkpoint=CheckpointConfig(every="2st"),
        log=LogConfig(every="2st", tensorboard=False),
    )


@pytest.fixture
def tiny_config(tmp_path) -> Path:
    """The file of a configuration as users write them: four steps on 8x8 digits."""
    path = tmp_path / "tiny.py"
    path.write_text(TINY_CONFIG)
    return path


TINY_CONFIG = """
from imgrec.config import *

def get_config(arg=""):
    return Experiment(
        data=DataConfig(dataset="digits", batch_size=32, validation="96"),
        model=ModelConfig(name="resnet8"),
        train=TrainConfig(duration="4st"),
        mesh=MeshConfig(data=1),
        log=LogConfig(every="2st", tensorboard=False),
    )
"""


@pytest.fixture(scope="session")
def jpeg() -> Callable[..., bytes]:
    """jpeg(seed, width=, height=): a file of smooth noise, told apart by its seed."""

    def encode(seed: int, width: int = 40, height: int = 32) -> bytes:
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        stream = io.BytesIO()
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        smooth.save(stream, "JPEG", quality=90)
        return stream.getvalue()

    return encode


@pytest.fixture
def write_imagenet(jpeg) -> Callable[..., dict[str, bytes]]:
    """write_imagenet(folder): the official archives with 20 images of each of 2 classes, and a
    validation split of 6 with a list of its labels; returns the files by "CLASS/FILE" or "FILE".
    """

    def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))

    def write(folder: Path) -> dict[str, bytes]:
        folder.mkdir(parents=True, exist_ok=True)
        files = {}
        with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as outer:
            # Not in order, as nobody promises that.
            for c, wnid in ((1, "n01443537"), (0, "n01440764")):
                stream = io.BytesIO()
                with tarfile.open(fileobj=stream, mode="w") as inner:
                    for i in reversed(range(20)):
                        name = f"{wnid}_{i}.JPEG"
                        content = jpeg(100 * c + i, width=36 + i)
                        files[f"{wnid}/{name}"] = content
                        add(inner, name, content)
                add(outer, f"{wnid}.tar", stream.getvalue())
        with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as archive:
            for i in range(1, 7):
                name = f"ILSVRC2012_val_{i:08d}.JPEG"
                files[name] = jpeg(1000 + i)
                add(archive, name, files[name])
        wnids = ["n01443537", "n01440764", "n01440764"] * 2
        listed = folder / "imagenet_2012_validation_synset_labels.txt"
        listed.write_text("\n".join(wnids) + "\n")
        return files

    return write


@pytest.fixture
def write_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """write_images(folder): noise in two classes, 60 files each; returns the folder."""
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path / "cache"))

    def write(folder: Path) -> Path:
        rng = np.random.default_rng(0)
        for name in ("ant", "bee"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            for i in range(60):
                pixels = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / name / f"{i}.png")
        return folder

    return write


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images/` of two classes and `run/`, trained on them for six steps and
    evaluated; whoever changes anything takes a copy.
    """
    from imgrec import evaluate, main

    root = tmp_path_factory.mktemp("finished")
    rng = np.random.default_rng(0)
    for label, name in enumerate(("ant", "bee")):
        (root / "images" / name).mkdir(parents=True)
        for i in range(120):
            pixels = rng.integers(0, 128, (12, 16, 3)) + 60 * label
            Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / name / f"{i}.png")
    experiment = {
        "data.dataset": f"folder:{root / 'images'}",
        "data.image_size": 8,
        "data.batch_size": 16,
        "data.validation": "20%",
        "data.test": "20%",
        "model.name": "resnet8",
        "train.duration": "6st",
        "log.tensorboard": "false",
    }
    arguments = [f"--config.{name}={value}" for name, value in experiment.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMGREC_CACHE", str(root / "cache"))
        workdir = f"--workdir={root / 'run'}"
        assert main.main(["main", "--config=configs/folder.py", *arguments, workdir]) == 0
        assert evaluate.main(["evaluate", workdir]) == 0
    return root


@pytest.fixture
def finished(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`finished_run`, with what is remembered of its images at hand."""
    monkeypatch.setenv("IMGREC_CACHE", str(finished_run / "cache"))
    return finished_run


@pytest.fixture
def write_run(tmp_path: Path, tiny: Experiment) -> Callable[..., Path]:
    """write_run("runs/a", skill=, seed=, changes={"train.ema": 0.9}): a folder such as training
    leaves behind, with predictions for 300 examples of 3 classes; nothing is trained.
    """

    def write(name: str, *, skill: float = 2.0, seed: int = 0, changes=None, n: int = 300) -> Path:
        folder = tmp_path / name
        experiment = copy.deepcopy(tiny)
        experiment.seed = seed
        for field, value in (changes or {}).items():
            section, _, option = field.rpartition(".")
            setattr(getattr(experiment, section) if section else experiment, option, value)
        labels = np.random.default_rng(77).integers(0, 3, n).astype(np.int32)
        logits = np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)
        logits[np.arange(n), labels] += skill
        said = Predictions(np.arange(n), labels, logits)
        extra = {"dataset": "digits", "split": "test", "step": 60, "seed": seed}
        predictions.write_report(folder / "evaluation" / "test", said, ["a", "b", "c"], extra)
        lines = [
            {
                "step": step,
                "train/loss": 1 / step,
                "train/accuracy": 0.5,
                "train/learning_rate": 0.1,
            }
            | {"validation/loss": 2 / step, "validation/accuracy": 1 - 1 / step}
            | {"time/images_per_second": 100.0 * step}
            for step in (20, 40, 60)
        ]
        launch = {
            "started": "2026-01-02T03:04:05+00:00",
            "devices": ["cpu"],
            "git_revision": "ab12",
        }
        launch |= {"processor": "some CPU", "git_dirty": False, "command": "python -m imgrec.main"}
        files = {
            "config.json": {
                "experiment": to_dict(experiment),
                "fingerprint": fingerprint(experiment),
            },
            "cost.json": {"flops_per_step": 2e6, "flops": 1.2e8, "parameters": 61_706},
            "seconds.json": {"step": 70.0, "compile": 5.0, "total": 75.0},
        }
        for file, content in files.items():
            (folder / file).write_text(json.dumps(content))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "launches.jsonl").write_text(json.dumps(launch) + "\n")
        return folder

    return write
