"""Eight simulated devices, annotations checked at run time, and no warning unnoticed."""

import atexit
import os
import shutil
import tempfile

# Many tests, and the processes some of them start, compile the same programs.
compiled = tempfile.mkdtemp(prefix="imgrec-compiled-")
atexit.register(shutil.rmtree, compiled, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

# Devices are counted when jax starts, so before anything imports it.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax

jax.config.update("jax_num_cpu_devices", 8)

from jaxtyping import install_import_hook

install_import_hook("imgrec", "beartype.beartype").__enter__()

import pytest
from ml_collections import ConfigDict

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
)


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
