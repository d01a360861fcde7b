import importlib.util
import os
import subprocess
import sys

import jaxlib
import pytest

from imgrec.training import xla_gpu


@pytest.fixture
def with_a_gpu(monkeypatch, tmp_path):
    """A driver and JAX's CUDA plugin, as far as files tell."""
    monkeypatch.setattr(xla_gpu, "_DRIVER", tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())


def test_without_a_gpu_nothing_is_set():
    assert xla_gpu.gpu_flags({}) == ([], "")


def test_with_one_the_flags_are_set_and_said(with_a_gpu):
    flags, said = xla_gpu.gpu_flags({"XLA_FLAGS": "--xla_gpu_enable_pipelined_all_gather=false"})
    assert "--xla_gpu_enable_latency_hiding_scheduler=true" in flags
    assert not any("all_gather" in flag for flag in flags)
    assert all(flag in said for flag in flags)


@pytest.mark.parametrize("platforms, some", [("cpu", False), ("cuda", True), ("cuda,cpu", True)])
def test_a_process_that_is_told_to_use_the_cpu_gets_none(with_a_gpu, platforms, some):
    assert bool(xla_gpu.gpu_flags({"JAX_PLATFORMS": platforms})[0]) == some


def test_an_untried_jaxlib_gets_none_and_says_so(with_a_gpu, monkeypatch):
    monkeypatch.setattr(jaxlib, "__version__", "0.99.1")
    flags, said = xla_gpu.gpu_flags({})
    assert not flags and "jaxlib 0.99.1 is not 0.10.x" in said


def test_the_installed_jaxlib_knows_them():
    """XLA would abort the process; its flags are the same ones with and without a GPU."""
    if not jaxlib.__version__.startswith(xla_gpu.KNOWN_TO):
        pytest.skip("they are not set for this version")
    flags = " ".join(f"{name}={value}" for name, value in xla_gpu.FLAGS.items())
    code = "import jax; jax.devices()"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, env={**environment, "XLA_FLAGS": flags}, capture_output=True)
    assert done.returncode == 0, done.stderr
    unknown = {**environment, "XLA_FLAGS": "--xla_gpu_no_such_flag=true"}
    assert subprocess.run(run, env=unknown, capture_output=True).returncode != 0
