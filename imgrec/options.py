"""Options of a named factory: the keyword arguments that its signature declares."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from imgrec.errors import UserError, unknown


def keyword_options(
    factory: Callable[..., Any], options: Mapping[str, Any] | ConfigDict, section: str
) -> dict[str, Any]:
    """The options as keyword arguments, checked by name and by the type of the default.

    Args:
      factory: whose keyword-only parameters, all with defaults, are the options it takes.
      options: what the user set.
      section: of the configuration ("schedule"), named in errors.

    Raises:
      UserError: an unknown option, or a value of another type than the default's.
    """
    parameters = {
        name: parameter.default
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    checked = {}
    for name, value in options.items():
        if name not in parameters:
            if not parameters:
                raise UserError(
                    f"config.{section}.options.{name}: {factory.__name__!r} takes no options."
                )
            raise unknown(f"option of {section} {factory.__name__!r}", name, parameters)
        default = parameters[name]
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if isinstance(default, tuple) and isinstance(value, list):
            value = tuple(value)
        if not isinstance(value, type(default)) or (
            isinstance(value, bool) and not isinstance(default, bool)
        ):
            raise UserError(
                f"config.{section}.options.{name}={value!r} has the type {type(value).__name__}; "
                f"expected {type(default).__name__}, as in {default!r}."
            )
        checked[name] = value
    return checked
