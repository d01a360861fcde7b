import ctypes
import importlib.util
import os
import platform
import types

import jax
import jaxlib
import pytest

from imgrec.config import DataConfig, Experiment, MeshConfig, ModelConfig, TrainConfig
from imgrec.errors import UserError
from imgrec.native import build
from imgrec.training import xla, xla_gpu

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


def configure(fusion, model="lenet5", convolutions="xla"):
    train = TrainConfig(cpu_fusion=fusion, cpu_convolutions=convolutions)
    return xla.configure(Experiment(model=ModelConfig(name=model), train=train))


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
    assert configure(fusion).startswith(f"CPU library fusion: as XLA_FLAGS says ({mine}); ")
    assert os.environ["XLA_FLAGS"] == mine


def test_a_jaxlib_that_may_not_know_the_flag_is_spared(known):
    known.setattr(jaxlib, "__version__", "0.11.0")
    assert configure("on").startswith(
        "CPU library fusion: off, since jaxlib 0.11.0 is not 0.10.x; "
    )
    assert "XLA_FLAGS" not in os.environ


def test_an_unknown_model_is_refused():
    with pytest.raises(UserError, match=r"Unknown model 'lenet6'. Did you mean 'lenet5'"):
        configure("auto", "lenet6")


@pytest.fixture
def one_device(known):
    """As a process is that simulates none; kernels are there without being compiled."""
    known.setattr(xla, "_one_cpu_device", lambda: True)
    known.setattr(build, "load", lambda: None)
    return known


def test_one_cpu_device_has_its_dense_convolutions_from_our_kernels(one_device):
    line = configure("auto", "resnet20", "auto")
    assert "XLA_FLAGS" not in os.environ  # the flag pays for XLA's convolutions alone
    assert "CPU convolutions: our own, compiled for this processor" in line
    assert "\n" not in line


def test_depthwise_nets_and_transformers_keep_xlas(one_device):
    assert "CPU convolutions: XLA's, as vit_ti4 has few dense ones" in configure(
        "auto", "vit_ti4", "auto"
    )


def test_several_devices_keep_xlas(known):
    # The tests simulate eight.
    assert "XLA's, which can be cut over devices" in configure("auto", "resnet20", "auto")
    assert "compiled for this processor" in configure("auto", "resnet20", "native")


@pytest.mark.parametrize(
    ("model", "cores", "asked", "batch_size", "mesh", "processes", "devices"),
    [
        ("vit_ti4", 2, 0, 128, {}, 1, 2),
        ("mixer_s4", 2, 0, 128, {}, 1, 2),
        ("resnet20", 2, 0, 128, {}, 1, 1),
        ("vit_ti4", 1, 0, 128, {}, 1, 1),
        ("vit_ti4", 64, 0, 128, {}, 1, 4),
        ("vit_ti4", 4, 0, 126, {}, 1, 3),
        ("vit_ti4", 2, 0, 128, {}, 2, 1),
        ("vit_ti4", 2, 0, 128, {"data": 1}, 1, 1),
        ("vit_ti4", 2, 1, 128, {}, 1, 1),
        ("resnet20", 2, 3, 128, {}, 2, 3),
    ],
)
def test_transformers_have_a_device_for_each_core(
    one_device, model, cores, asked, batch_size, mesh, processes, devices
):
    updated = {}
    one_device.setattr(jax.config, "update", updated.__setitem__)
    one_device.setattr(xla, "_cores", lambda: cores)
    experiment = Experiment(
        model=ModelConfig(name=model),
        data=DataConfig(batch_size=batch_size),
        mesh=MeshConfig(cpu_devices=asked, **mesh),
    )
    line = xla.configure(experiment, processes)
    assert updated == ({"jax_num_cpu_devices": devices} if devices > 1 else {})
    assert (f"CPU devices: {devices}, " in line) == (devices > 1)


def test_devices_that_are_there_stay(known):
    # The tests simulate eight, and have computed.
    assert "CPU devices" not in configure("auto", "vit_ti4", "auto")
    known.setattr(xla, "_one_cpu_device", lambda: True)
    known.setattr(xla, "_cores", lambda: 2)
    assert "CPU devices" not in configure("auto", "vit_ti4", "auto")


@pytest.mark.parametrize(
    ("flags", "cuda", "platforms", "one"),
    [
        ("", False, "", True),
        ("--xla_force_host_platform_device_count=2", False, "cpu", False),
        ("--xla_force_host_platform_device_count=1", False, "", True),
        ("", True, "", False),
        ("", True, "cpu", True),
    ],
)
def test_one_device_is_told_before_jax_starts(known, flags, cuda, platforms, one):
    known.setenv("XLA_FLAGS", flags)
    known.setattr(importlib.util, "find_spec", lambda name: object() if cuda else None)
    values = {"jax_platforms": platforms, "jax_num_cpu_devices": -1}
    known.setattr(jax, "config", types.SimpleNamespace(values=values))
    assert xla._one_cpu_device() == one


def test_without_kernels_xla_does_it_and_says_what_that_costs(one_device):
    def fail():
        raise build.UnavailableError("there is no C++ compiler (c++, g++, clang++)")

    one_device.setattr(build, "load", fail)
    line = configure("auto", "resnet20", "auto")
    assert "XLA's, which are slower, since there is no C++ compiler" in line
    assert os.environ["XLA_FLAGS"] == FLAG
    with pytest.raises(UserError, match=r"'native', but there is no C\+\+ compiler.*apt install g"):
        configure("auto", "resnet20", "native")


@pytest.mark.parametrize(
    ("library", "step_bytes", "kept"), [("glibc", 25, True), ("glibc", 26, False), ("", 1, False)]
)
def test_freed_memory_is_kept_where_a_step_needs_little_of_it(known, library, step_bytes, kept):
    called = []
    mallopt = types.SimpleNamespace(mallopt=lambda *values: called.append(values) or 1)
    known.setattr(ctypes, "CDLL", lambda name: mallopt)
    known.setattr(platform, "libc_ver", lambda: (library, "2.36"))
    assert xla.keep_memory(step_bytes, 100) is kept
    assert bool(called) is kept


def test_flags_for_gpus_are_added_where_there_are_some(known):
    known.setattr(xla_gpu, "gpu_flags", lambda environ: (["--a=1", "--b=2"], "GPU flags: some"))
    known.setenv("XLA_FLAGS", "--mine=3")
    assert configure("off").endswith("; GPU flags: some")
    assert os.environ["XLA_FLAGS"] == "--mine=3 --a=1 --b=2"
