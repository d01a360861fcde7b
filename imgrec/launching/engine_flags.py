"""The flags by which a command line chooses an engine."""

from collections.abc import Sequence
from typing import Any

from absl import flags

from imgrec.errors import UserError


def define(flag_values: flags.FlagValues) -> None:
    """Adds --engine and --engine_options."""
    flags.DEFINE_string(
        "engine", "local", "local (one after the other), slurm or ray", flag_values=flag_values
    )
    flags.DEFINE_list(
        "engine_options",
        [],
        "for slurm, sbatch's: partition=gpu,gpus_per_node=1,time=600 (minutes); for ray: "
        "address, num_cpus, num_gpus, memory",
        flag_values=flag_values,
    )


def options(texts: Sequence[str]) -> dict[str, Any]:
    """The value of --engine_options by name; what reads as a number is one.

    Raises:
      UserError: one that is not NAME=VALUE.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise UserError(
                f"--engine_options={text!r}: expected NAME=VALUE, as in partition=gpu,time=600."
            )
        number = value.removeprefix("-").replace(".", "", 1)
        found[name] = (float if "." in value else int)(value) if number.isdigit() else value
    return found
