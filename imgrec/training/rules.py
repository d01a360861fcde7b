"""Regex rules over parameter names, as optimizers and sharding read them.

A parameter's name is its path, "stage1_block0/conv1/kernel". Rules are tried in order, a
regex has to match the whole name, and the first match decides.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from imgrec.errors import UserError, nearest


def names(tree: Any) -> list[str]:
    """Names of a tree's leaves, in the order of `jax.tree.leaves`."""
    return [name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def name_of(path: Iterable[Any]) -> str:
    """A key path as a name: its keys, attributes and indices joined by "/"."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def decide(
    rules: Sequence[tuple[str, Any]], names: Sequence[str], *, field: str, default: Any
) -> list[Any]:
    """The value that the rules give each name.

    Args:
      rules: pairs (regex, value).
      names: of the parameters.
      field: the configuration field the rules came from, named in errors.
      default: the value of a name that no rule matches.

    Returns:
      One value a name, in the order of `names`.

    Raises:
      UserError: a rule decides for no parameter, because its regex matches none or because
        earlier rules have already decided for all that it matches.
    """
    decided_by = [
        next((i for i, (regex, _) in enumerate(rules) if re.fullmatch(regex, name)), None)
        for name in names
    ]
    for i, (regex, _) in enumerate(rules):
        if i in decided_by:
            continue
        if any(re.fullmatch(regex, name) for name in names):
            raise UserError(
                f"config.{field}: the rule {regex!r} decides nothing, since rules before it "
                "match the same parameters. Put the more special rule first, or remove this one."
            )
        guess = nearest(regex, names)
        raise UserError(
            f"config.{field}: the rule {regex!r} matches none of the {len(names)} parameters"
            + (f"; the nearest is {guess!r}." if guess else f", for example {names[0]!r}.")
            + " A regex has to match the whole name; --dry_run lists all names."
        )
    return [default if i is None else rules[i][1] for i in decided_by]
