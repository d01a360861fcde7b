"""The command line of every verb: flags in, an experiment out, every mistake in one message.

`--config=FILE[:ARG]` and its overrides go through `ml_collections.config_flags`. What that
says of mistakes is meant for programmers, so names and types are looked at here first.
"""

import difflib
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from imgrec import extensions, fields
from imgrec.config import Experiment
from imgrec.errors import UserError, nearest

EXIT_BAD_INPUT = 2
HELP = frozenset({"--help", "-h", "-help", "--helpfull"})

Loaded = TypeVar("Loaded")


def run(verb: Callable[[list[str]], int]) -> None:
    """Runs a verb on `sys.argv` and exits with its code, or 2 and a message for a UserError."""
    # Orbax warns of a file that only its managers write, wherever a single item is read.
    logging.set_verbosity(logging.ERROR)
    try:
        code = verb(sys.argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = EXIT_BAD_INPUT
    sys.exit(code)


def parse(
    argv: Sequence[str], define: Callable[[flags.FlagValues], None]
) -> tuple[Experiment, flags.FlagValues]:
    """The experiment and the flags of a command line.

    Args:
      argv: with the program's name first.
      define: adds the verb's own flags.

    Raises:
      UserError: a missing config file or one that does not work, an unknown flag or field, or
        a value of a wrong type.
    """
    argv = list(argv)
    flag_values = flags.FlagValues()
    define(flag_values)
    if HELP & set(argv):
        print(_help(argv[0], flag_values))
        sys.exit(0)
    spec = _config_spec(argv)
    name = _check_config_file(spec)
    _check_overrides(argv)
    # A model's or optimizer's options are its own business: any key is taken here, and
    # checked against the signature when the plan is made.
    try:
        config_flags.DEFINE_config_file(
            "config",
            flag_values=flag_values,
            sys_argv=argv,
            lock_config=False,
            accept_new_attributes=True,
        )
        rest = flag_values(argv)
    except flags.UnrecognizedFlagError as error:
        known = [name for name in flag_values if not name.startswith("config")]
        guess = nearest(error.flagname, known)
        meant = f" Did you mean --{guess}?" if guess else ""
        raise UserError(f"Unknown flag --{error.flagname}.{meant} See --help.") from None
    except (flags.Error, ValueError, TypeError) as error:
        raise UserError(_readable(str(error))) from None
    if len(rest) > 1:
        raise UserError(f"Arguments without a flag: {' '.join(rest[1:])}. See --help.")
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # libraries ask absl, and need no flags of ours
    experiment = flag_values.config
    if not experiment.name:
        experiment.name = name
    return extensions.load(experiment), flag_values


def read_flags(flag_values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    """Sets the flags of a verb without a configuration; what is no flag comes back.

    Raises:
      UserError: an unknown flag, or a value that a flag does not take.
    """
    try:
        return list(flag_values(list(argv))[1:])
    except flags.UnrecognizedFlagError as error:
        guess = nearest(error.flagname, [name for name in flag_values if len(name) > 1])
        meant = f" Did you mean --{guess}?" if guess else ""
        raise UserError(f"Unknown flag --{error.flagname}.{meant} See --help.") from None
    except flags.Error as error:
        raise UserError(str(error).replace("flag --", "--", 1)) from None


def flag_help(flag_values: flags.FlagValues) -> str:
    """A line for each flag."""
    return "\n".join(
        f"  --{name}: {flag_values[name].help} (default: {flag_values[name].default!r})"
        for name in sorted(flag_values)
        if len(name) > 1
    )


def _help(program: str, flag_values: flags.FlagValues) -> str:
    return (
        "usage: python -m imgrec.main --config=FILE[:ARG] [--config.FIELD=VALUE ...]\n\n"
        "  --config: a Python file whose get_config(arg='') returns an Experiment\n"
        "  --config.FIELD: any field of it, for example --config.train.duration=2ep\n"
        + flag_help(flag_values)
        + "\n\nfields:\n"
        + "\n".join(
            f"  config.{name} = {dict(value) if isinstance(value, ConfigDict) else value!r}"
            for name, value in fields.defaults().items()
        )
    )


def _config_spec(argv: Sequence[str]) -> str:
    for i, argument in enumerate(argv):
        if argument in ("--config", "-config") and i + 1 < len(argv):
            return argv[i + 1]
        if argument.startswith(("--config=", "-config=")):
            return argument.split("=", 1)[1]
    raise UserError(
        "No experiment given. Name a config file, for example "
        "--config=configs/digits_lenet.py; --help lists all flags and fields."
    )


def _check_config_file(spec: str) -> str:
    """Loads the config once to see that it works; gives the experiment's default name."""
    load(spec, "get_config", Experiment, kind="config", others="configs/*.py")
    path, _, argument = spec.partition(":")
    return Path(path).stem + (f"_{argument}" if argument else "")


def load(spec: str, function: str, expected: type[Loaded], *, kind: str, others: str) -> Loaded:
    """What a function of a user's own file returns.

    Args:
      spec: "FILE[:ARG]"; the function is given the argument, if there is one.
      function: its name.
      expected: type of what it has to return.
      kind: of file, in words.
      others: pattern of files to suggest where there is none in the folder that was named.

    Raises:
      UserError: there is no such file, or it does not work, and in which line.
    """
    path_text, _, argument = spec.partition(":")
    path = Path(path_text)
    if not path.is_file():
        there = sorted(str(p) for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        there = there or sorted(str(p) for p in Path().glob(others))
        guess = difflib.get_close_matches(str(path), there, n=1)
        meant = f" Did you mean {guess[0]}?" if guess else ""
        listed = f" There are: {', '.join(there)}." if there else ""
        raise UserError(f"No {kind} file {path_text!r}.{meant}{listed}")
    try:
        module = runpy.run_path(path_text)
        if function not in module:
            raise UserError(f"{path_text!r} defines no {function}; expected {function}(arg='').")
        found = module[function](*([argument] if argument else []))
    except UserError:
        raise
    except Exception as error:  # whatever a user's own file may raise
        frames = traceback.extract_tb(error.__traceback__)
        inside = [frame.lineno for frame in frames if frame.filename == path_text]
        line = getattr(error, "lineno", None) or (inside[-1] if inside else None)
        at = f", line {line}" if line else ""
        raise UserError(
            f"The {kind} file {spec!r}{at} does not work: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, expected):
        raise UserError(
            f"{function}() of {path_text!r} returned {type(found).__name__}; "
            f"expected an {expected.__module__}.{expected.__qualname__}."
        )
    return found


def _check_overrides(argv: Sequence[str]) -> None:
    """Refuses an override of a field that does not exist, with the nearest that does."""
    for argument in argv[1:]:
        match = re.match(r"--?(?:no)?config\.([^=]*)", argument)
        if match is not None:
            fields.check(match[1])


def _readable(message: str) -> str:
    """Absl's "flag --config.train.ema=abc: could not convert ..." with our words around it."""
    match = re.match(r"flag --config\.([^=]+)=(.*?): ", message)
    default = fields.defaults().get(match[1]) if match else None
    if match and default is not None and not isinstance(default, ConfigDict):
        kind = "true or false" if isinstance(default, bool) else type(default).__name__
        return f"--config.{match[1]}={match[2]}: expected {kind}, as in {default!r}."
    return message.replace("flag --", "--", 1).strip().splitlines()[-1]
