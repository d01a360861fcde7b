"""Options of engines as they are typed."""

from imgrec.launching import engine_flags


def test_options_of_engines_have_types():
    found = engine_flags.options(
        ["partition=gpu", "time=600", "num_gpus=0.5", "constraint=a100-80"]
    )

    assert found == {"partition": "gpu", "time": 600, "num_gpus": 0.5, "constraint": "a100-80"}
