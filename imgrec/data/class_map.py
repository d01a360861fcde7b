"""Another data set's classes as those that a model knows, so that it can be evaluated there.

Classes of the same name are the same class. Any other name needs a word from the user: a JSON
file {"their class": "our class"}, with null for classes whose images are to be left out.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from imgrec.data.dataset import Split
from imgrec.data.studies import Relabelled
from imgrec.errors import UserError, nearest

_MOST_NAMES = 20
LEFT_OUT = -1


def read(path: Path) -> dict[str, str | None]:
    """The mapping in a file.

    Raises:
      UserError: it cannot be read, or is no such mapping.
    """
    try:
        mapping = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"The class map {path} cannot be read: {error}.") from None
    if not isinstance(mapping, dict) or not all(
        value is None or isinstance(value, str) for value in mapping.values()
    ):
        raise UserError(
            f'{path} is no class map. Expected {{"their class": "our class", ...}}, with null for '
            "a class whose images are to be left out."
        )
    return mapping


def match(
    theirs: Sequence[str], ours: Sequence[str], mapping: Mapping[str, str | None] | None = None
) -> list[int]:
    """Our label for each of their classes; `LEFT_OUT` for those that are to be left out.

    Args:
      theirs: names of the other data set's classes.
      ours: names of the classes that the model knows.
      mapping: what the user said; names that it lacks are matched as they are, regardless of
        case and of spaces or underscores.

    Raises:
      UserError: a name is not known, in `theirs` or in the mapping; the names are listed.
    """
    said = mapping or {}
    if unknown := sorted(set(said) - set(theirs)):
        raise UserError(
            f"The class map names {unknown[0]!r}, which the data set does not have; its classes: "
            f"{_listed(theirs)}."
        )
    known = {_plain(name): label for label, name in enumerate(ours)}
    labels, lost = [], []
    for name in theirs:
        wanted = said.get(name, name)
        if wanted is None:
            labels.append(LEFT_OUT)
        elif _plain(wanted) in known:
            labels.append(known[_plain(wanted)])
        else:
            lost.append((name, wanted))
    if lost:
        guesses = {name: nearest(wanted, ours) for name, wanted in lost}
        example = json.dumps(dict(list(guesses.items())[:3]))
        raise UserError(
            f"{len(lost)} of the data set's {len(theirs)} classes are none that the model knows: "
            f"{_listed([wanted for _, wanted in lost])}. The model knows: {_listed(ours)}. Say "
            f"which is which in a JSON file and give it with --map=FILE, for example {example} "
            "(null leaves a class out)."
        )
    return labels


def mapped(split: Split, labels: Sequence[int]) -> Split:
    """The split with our labels, less the examples of classes that are left out.

    Args:
      split: with their labels.
      labels: of `match`.

    Raises:
      UserError: nothing is left.
    """
    table = np.asarray(labels, np.int32)
    found = table[split.source.labels()]
    rows = split.rows[found[split.rows] != LEFT_OUT]
    if not len(rows):
        raise UserError("The class map leaves no image to evaluate on.")
    source = Relabelled(split.source, np.maximum(found, 0))
    return dataclasses.replace(split, source=source, rows=rows)


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())


def _listed(names: Sequence[str]) -> str:
    more = f", ... and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(map(repr, names[:_MOST_NAMES])) + more
