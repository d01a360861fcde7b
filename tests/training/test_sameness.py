import dataclasses
import re

import pytest

from imgrec import data
from imgrec.config import DataConfig
from imgrec.training import sameness
from imgrec.training.sameness import differences


def test_processes_that_are_the_same_differ_in_nothing(tiny):
    program = sameness.of_program(tiny)
    assert differences([program, dict(program), dict(program)]) == []


def test_a_difference_is_named_with_the_processes_that_have_it():
    first = {"package jax": "1", "python": "3"}
    assert differences([first, first, {**first, "package jax": "2"}, {"package jax": "2"}]) == [
        "package jax: 1 in process 0, 2 in processes 2, 3",
        "python: 3 in process 0, missing in process 3",
    ]


def test_a_program_is_told_by_fields_code_packages_and_flags(tiny, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--one --xla_force_host_platform_device_count=4")
    first = sameness.of_program(tiny)
    assert first["config.optimizer.options.momentum"] == "0.9"
    assert first["XLA_FLAGS"] == "--one"
    assert first["package jax"] and first["python"].startswith("3.")
    code = [name for name in first if name.startswith("code imgrec/")]
    assert "code imgrec/training/loop.py" in code and len(code) > 100
    monkeypatch.setenv("XLA_FLAGS", "--other")
    second = sameness.of_program(dataclasses.replace(tiny, seed=1))
    assert differences([first, second]) == [
        "XLA_FLAGS: --one in process 0, --other in process 1",
        "config.seed: 0 in process 0, 1 in process 1",
    ]


def test_data_is_told_by_labels_and_images():
    config = DataConfig(dataset="digits", validation="96")
    first = sameness.of_data(data.load(config), resident=True)
    assert first == sameness.of_data(data.load(config), resident=True)
    assert first["data train: number of images"] == "1342"
    other = data.load(dataclasses.replace(config, validation="97"))
    found = differences([first, sameness.of_data(other, resident=False)])
    names = [re.sub(r": \S+ .*| in process.*", "", line) for line in found]
    assert "data train: number of images: 1342 in process 0, 1341 in process 1" in found
    assert "training images: on the device in process 0, from the host in process 1" in found
    assert any(line.startswith("data train: labels") for line in found), names


def test_one_process_is_not_compared(tiny, tmp_path):
    sameness.check(tiny)
    sameness.check_data(data.load(tiny.data), resident=True)
    sameness.check_folder(tmp_path / "nowhere")


@pytest.mark.parametrize("count", [3, 40])
def test_a_long_list_is_cut(count):
    processes = [{str(i): "a" for i in range(count)}, {str(i): "b" for i in range(count)}]
    with pytest.raises(sameness.UserError) as error:
        sameness._refuse(processes)
    assert ("and 28 more" in str(error.value)) == (count == 40)
    assert "same command" in str(error.value)
