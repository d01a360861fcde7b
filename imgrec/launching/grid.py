"""Which values a sweep takes: read from text, multiplied out, and named for the folders' sake."""

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imgrec.errors import UserError

_LONGEST_NAME = 100
_CLOSES = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class Axis:
    """One field and the values it takes, as text, as they were given."""

    field: str
    values: tuple[str, ...]


def parse(specs: Sequence[str]) -> list[Axis]:
    """Axes from "optimizer.learning_rate=0.1,0.03"; a comma in brackets or quotes parts nothing.

    Raises:
      UserError: no specification, one without "=", without values, with an empty or a repeated
        value, with a bracket or quote that is not closed, or a field given twice.
    """
    if not specs:
        raise UserError(
            "No field to sweep. Name fields and values: --sweep='optimizer.learning_rate=0.1,0.03' "
            "--sweep='seed=0,1,2'."
        )
    axes: dict[str, Axis] = {}
    for spec in specs:
        field, equals, text = spec.partition("=")
        field = field.strip().removeprefix("--").removeprefix("config.")
        if not equals or not field:
            raise UserError(f"--sweep={spec!r}: expected FIELD=VALUE,VALUE, as in 'seed=0,1,2'.")
        if field in axes:
            raise UserError(
                f"--sweep names {field} twice; give all its values at once, as in "
                f"--sweep='{field}={','.join(axes[field].values)},{text}'."
            )
        values = [value.strip() for value in _parts(text, spec)]
        if "" in values:
            raise UserError(
                f"--sweep={spec!r}: a value is empty. Write '' for an empty text, and no comma at "
                "the end."
            )
        if again := next((value for value in values if values.count(value) > 1), None):
            raise UserError(f"--sweep={spec!r}: the value {again} is there twice.")
        axes[field] = Axis(field, tuple(values))
    return list(axes.values())


def points(axes: Sequence[Axis]) -> list[dict[str, str]]:
    """Every combination of values, by field; the last axis varies fastest."""
    fields = [axis.field for axis in axes]
    combinations = itertools.product(*(axis.values for axis in axes))
    return [dict(zip(fields, values, strict=True)) for values in combinations]


def unquoted(value: str) -> str:
    """The text that quotes stand around, or the value as it is."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def name(point: Mapping[str, object]) -> str:
    """The same name for the same values, whatever the order of the fields: a folder's name.

    "learning_rate=0.1,seed=0", with fields as `short` has them. Where characters have to be
    replaced, or the name is too long, digits of a hash tell apart what would otherwise read alike.
    """
    fields = sorted(point)
    named = zip(short(fields), fields, strict=True)
    plain = ",".join(f"{called}={_text(point[field])}" for called, field in named)
    safe = re.sub(r"[^A-Za-z0-9_.,=+-]", "_", plain)[:_LONGEST_NAME]
    if safe == plain:
        return safe
    text = json.dumps(point, sort_keys=True, default=str)
    return f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def short(fields: Sequence[str]) -> list[str]:
    """The last part of each field's name, where no other field ends in the same."""
    lasts = [field.rpartition(".")[2] for field in fields]
    return [
        last if lasts.count(last) == 1 else field for last, field in zip(lasts, fields, strict=True)
    ]


def _text(value: object) -> str:
    """A number as 0.001 and not as 1e-03 or 0.0010, so that spelling does not matter."""
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return str(value)


def _parts(text: str, spec: str) -> list[str]:
    """The text cut at commas that stand in no bracket and no quote."""
    parts, closing, quote = [""], [], ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in _CLOSES:
            closing.append(_CLOSES[character])
        elif closing and character == closing[-1]:
            closing.pop()
        elif character == "," and not closing:
            parts.append("")
            continue
        parts[-1] += character
    if quote or closing:
        raise UserError(f"--sweep={spec!r}: {quote or closing[-1]} is missing at the end.")
    return parts
