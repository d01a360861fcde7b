import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgrec.training import compilation_cache

OPTIONS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch, tmp_path):
    """As a user's shell is, and as the other tests need it afterwards."""
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    monkeypatch.delenv(compilation_cache.FOLDER)
    monkeypatch.delenv(compilation_cache.THRESHOLD)
    monkeypatch.setenv("IMGREC_CACHE", str(tmp_path / "cache"))
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    jax.experimental.compilation_cache.compilation_cache.reset_cache()


def entries(tmp_path):
    return [path for path in (tmp_path / "cache").rglob("*-cache") if path.is_file()]


def compile_something():
    """A program that nobody has compiled before; XLA takes longer than the threshold for it."""
    jax.experimental.compilation_cache.compilation_cache.reset_cache()
    shift = float(np.random.default_rng(os.getpid()).random())

    def nested(x):
        for _ in range(60):
            x = jnp.sort(jnp.sin(x @ x + shift), axis=0)
        return x

    jax.jit(nested).lower(jnp.ones((3, 3))).compile()


def test_programs_are_kept_under_the_cache_of_the_project(tmp_path):
    said = compilation_cache.configure()
    assert str(tmp_path / "cache" / "compiled") in said
    assert jax.config.jax_compilation_cache_dir.startswith(str(tmp_path))
    compile_something()
    assert entries(tmp_path)


def test_without_a_variable_the_cache_lies_in_the_home(monkeypatch, tmp_path):
    monkeypatch.delenv("IMGREC_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(tmp_path / ".cache" / "imgrec" / "compiled") in compilation_cache.configure()


def test_another_kind_of_processor_has_another_folder(monkeypatch):
    here = compilation_cache._folder()
    assert compilation_cache._folder() == here
    monkeypatch.setattr(compilation_cache, "_instructions", lambda: "others")
    assert compilation_cache._folder() != here


def test_the_folder_that_jax_was_given_stays(monkeypatch, tmp_path):
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv(compilation_cache.FOLDER, "/somewhere/else")
    assert "/somewhere/else" in compilation_cache.configure()
    assert jax.config.jax_compilation_cache_dir == before
    assert not (tmp_path / "cache").exists()


def test_it_can_be_turned_off(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert "not kept" in compilation_cache.configure()
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert jax.config.jax_compilation_cache_dir == before
    assert not (tmp_path / "cache").exists()


def test_a_threshold_of_ones_own_stays(monkeypatch):
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    monkeypatch.setenv(compilation_cache.THRESHOLD, "7")
    compilation_cache.configure()
    assert jax.config.jax_persistent_cache_min_compile_time_secs == before


def test_a_folder_that_takes_no_file_costs_the_cache_alone(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    (tmp_path / "cache").write_text("in the way")
    said = compilation_cache.configure()
    assert "not kept" in said
    assert "cannot be written (Not a directory)" in said
    assert jax.config.jax_compilation_cache_dir == before


def test_a_full_disk_costs_the_cache_alone(monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    usage = shutil._ntuple_diskusage(total=10**12, used=10**12, free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "1 MB left" in compilation_cache.configure()
    assert jax.config.jax_compilation_cache_dir == before


def test_a_program_that_cannot_be_kept_is_compiled_all_the_same(tmp_path, monkeypatch):
    """The disk fills while the run compiles: a warning, which JAX gives, and no more."""
    compilation_cache.configure()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jax._src.lru_cache.LRUCache.put", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        compile_something()
    assert not entries(tmp_path)


def write(folder, **used):
    folder.mkdir()
    for name, when in used.items():
        (folder / name).write_bytes(bytes(100))
        os.utime(folder / name, (when, when))


def test_the_least_recently_used_go_first(tmp_path):
    write(tmp_path / "kept", old=1_000, newest=3_000, newer=2_000)
    assert compilation_cache.prune(tmp_path / "kept", limit=250) == 100
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"newer", "newest"}


def test_a_program_that_was_read_lately_is_not_old(tmp_path):
    write(tmp_path / "kept", written_long_ago=1_000, other=2_000)
    os.utime(tmp_path / "kept" / "written_long_ago", (3_000, 1_000))  # read, written
    compilation_cache.prune(tmp_path / "kept", limit=100)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["written_long_ago"]


def test_nothing_goes_while_there_is_room(tmp_path):
    write(tmp_path / "kept", a=1_000, b=2_000)
    assert compilation_cache.prune(tmp_path / "kept", limit=200) == 0
    assert len(list((tmp_path / "kept").iterdir())) == 2
