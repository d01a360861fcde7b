import os

import jaxlib
import pytest

from imgrec.config import Experiment, ModelConfig, TrainConfig
from imgrec.errors import UserError
from imgrec.training import xla

FLAG = (
    "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_ELTWISE,"
    "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"
)


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """No flags, and a jaxlib that knows this one."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(jaxlib, "__version__", "0.10.2")
    return monkeypatch


def configure(fusion, model="lenet5"):
    return xla.configure(
        Experiment(model=ModelConfig(name=model), train=TrainConfig(cpu_fusion=fusion))
    )


@pytest.mark.parametrize(
    ("fusion", "model", "on"),
    [
        ("on", "lenet5", True),
        ("on", "vit_ti4", True),
        ("off", "lenet5", False),
        ("auto", "lenet5", True),
        ("auto", "resnet20", True),
        ("auto", "vit_ti4", False),
    ],
)
def test_auto_is_on_for_convolutional_nets(fusion, model, on):
    line = configure(fusion, model)
    assert os.environ.get("XLA_FLAGS") == (FLAG if on else None)
    assert line.startswith(f"CPU library fusion: {'on' if on else 'off'} (--config.train.cpu_fusio")
    assert "\n" not in line


def test_other_flags_stay(known):
    known.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    configure("on")
    assert os.environ["XLA_FLAGS"] == f"--xla_force_host_platform_device_count=8 {FLAG}"


@pytest.mark.parametrize("fusion", ["on", "off", "auto"])
def test_what_the_user_has_set_stays(known, fusion):
    mine = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT"
    known.setenv("XLA_FLAGS", mine)
    assert configure(fusion) == f"CPU library fusion: as XLA_FLAGS says ({mine})"
    assert os.environ["XLA_FLAGS"] == mine


def test_a_jaxlib_that_may_not_know_the_flag_is_spared(known):
    known.setattr(jaxlib, "__version__", "0.11.0")
    assert configure("on") == "CPU library fusion: off, since jaxlib 0.11.0 is not 0.10.x"
    assert "XLA_FLAGS" not in os.environ


def test_an_unknown_model_is_refused():
    with pytest.raises(UserError, match=r"Unknown model 'lenet6'. Did you mean 'lenet5'"):
        configure("auto", "lenet6")
