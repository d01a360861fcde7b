"""The fields of an experiment by their dotted names: which there are, and how to change them."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from imgrec.config import Experiment
from imgrec.errors import UserError, nearest


def defaults() -> dict[str, Any]:
    """Default values of all fields, {"train.ema": 0.0, ...}."""
    found = {}
    for outer in dataclasses.fields(Experiment):
        value = getattr(Experiment(), outer.name)
        if not dataclasses.is_dataclass(value):
            found[outer.name] = value
            continue
        for inner in dataclasses.fields(value):
            found[f"{outer.name}.{inner.name}"] = getattr(value, inner.name)
    return found


def check(name: str) -> None:
    """Refuses a name that is no field, such as "train.emma"; any one option may be named.

    Raises:
      UserError: with the nearest field that there is.
    """
    known = defaults()
    section, options, option = name.partition(".options.")
    if "." in option or (options and not option):
        raise UserError(f"Write one name after config.{section}.options, not {option!r}.")
    field = section + options.rstrip(".")
    if field in known:
        return
    inside = [each for each in known if each.startswith(f"{field}.")]
    if inside:
        listed = ", ".join(f"config.{each}" for each in inside)
        raise UserError(f"config.{field} is a section; set one of {listed}.")
    last = field.rpartition(".")[2]
    same = [each for each in known if each.rpartition(".")[2] == last]
    guess = same[0] if same else nearest(field, known)
    meant = f" Did you mean config.{guess}?" if guess else ""
    raise UserError(f"Unknown field config.{name}.{meant} --help lists all fields.")


def replaced(experiment: Experiment, values: Mapping[str, Any]) -> Experiment:
    """A copy of an experiment with other values of some fields.

    Args:
      experiment: stays as it is.
      values: by name; "model.options.pool" sets one option and leaves the others, and
        "model.options" takes a mapping in place of them all. They are set in their order.

    Raises:
      UserError: a name is no field. What values may be is for `validation.validate` to say.
    """
    changed = copy.deepcopy(experiment)
    for name, value in values.items():
        check(name)
        *path, last = name.split(".")
        inside: Any = changed
        for part in path:
            inside = getattr(inside, part)
        if isinstance(inside, ConfigDict):
            inside[last] = value
        else:
            is_options = last == "options" and isinstance(value, Mapping)
            setattr(inside, last, ConfigDict(dict(value)) if is_options else value)
    return changed
