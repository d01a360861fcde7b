"""A column of what is known of each example, cut into groups that results are told by.

Names, yes-or-no and small whole numbers stand for themselves; a measurement is cut into quarters
of the examples. A column that says something else of nearly every example cannot be grouped by.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int, Shaped

from imgrec.errors import UserError

MOST_GROUPS = 50
MOST_SINGLE = 10  # different values of a measurement that stand for themselves
QUANTILES = (0.25, 0.5, 0.75)
NOT_GIVEN = "(not given)"


@dataclass(frozen=True, eq=False)
class Partition:
    """Examples in groups.

    Attributes:
      values: the groups by name, ascending numbers or in alphabetical order.
      member: which of them each example is in.
      edges: between the groups of a measurement, where each group has its upper edge and not its
        lower; None where values stand for themselves.
    """

    values: tuple[str, ...]
    member: Int[np.ndarray, " n"]
    edges: tuple[float, ...] | None = None


def cut(name: str, values: Shaped[np.ndarray, " n"]) -> Partition:
    """The groups of a column.

    Numbers are those of a numeric column, and of a column of text that holds nothing else, as
    manifests do. Whole numbers of at most 50 different values stand for themselves, other
    numbers of at most 10; with more they are cut at their quartiles, where equal numbers stay
    together. Examples without a value (empty text, nan) are a group of their own, the last.

    Raises:
      UserError: the column has more than 50 different names, or a number of its own for each
        example, as an identifier has.
    """
    numbers = _numbers(values)
    if numbers is None:
        texts = np.array([str(value).strip() or NOT_GIVEN for value in values.tolist()])
        found, member = np.unique(texts, return_inverse=True)
        _check_count(name, len(found), "different values")
        return _last_missing(tuple(map(str, found)), member)
    given = ~np.isnan(numbers)
    distinct = np.unique(numbers[given])
    whole = bool(np.all(distinct == np.round(distinct)))
    if whole and len(distinct) == given.sum() > MOST_GROUPS:
        raise UserError(
            f"The column {name!r} has another whole number for each example, as an identifier "
            "has: there are no groups in it."
        )
    if len(distinct) > (MOST_GROUPS if whole else MOST_SINGLE):
        edges = np.unique(np.quantile(numbers[given], QUANTILES, method="inverted_cdf"))
        edges = edges[edges < distinct[-1]]
        names, member = _ranges(edges, distinct[0], distinct[-1]), np.searchsorted(edges, numbers)
        cuts: tuple[float, ...] | None = tuple(map(float, edges))
    else:
        names, member = _written(distinct), np.searchsorted(distinct, numbers)
        cuts = None
    member = np.where(given, member, len(names))
    missing = () if given.all() else (NOT_GIVEN,)
    return Partition((*names, *missing), member, cuts)


def cross(name: str, first: Partition, second: Partition) -> Partition:
    """Every group of one column with every group of another, those without examples too.

    Raises:
      UserError: these would be more than 50.
    """
    cells = len(first.values) * len(second.values)
    _check_count(name, cells, "combinations")
    return Partition(
        tuple(f"{a}, {b}" for a in first.values for b in second.values),
        first.member * len(second.values) + second.member,
    )


def _numbers(values: Shaped[np.ndarray, " n"]) -> Float64[np.ndarray, " n"] | None:
    """The column as numbers, nan where there is none; None for names and yes-or-no."""
    if values.dtype.kind in "iuf":
        exact = values.astype(np.float64)
        return np.where(np.isfinite(exact), exact, np.nan)
    if values.dtype.kind == "b":
        return None
    numbers = []
    for value in values.tolist():
        if (number := _number(value)) is None:
            return None
        numbers.append(number)
    return None if all(map(math.isnan, numbers)) else np.array(numbers, np.float64)


def _number(value: Any) -> float | None:
    """A number, nan for no value, None for what is no number."""
    text = str(value).strip()
    if not text:
        return math.nan
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _check_count(name: str, count: int, what: str) -> None:
    if count > MOST_GROUPS:
        raise UserError(
            f"The column {name!r} has {count:,} {what}; at most {MOST_GROUPS} groups can be told "
            "apart. Give a column of fewer, coarser values."
        )


def _last_missing(values: tuple[str, ...], member: Int[np.ndarray, " n"]) -> Partition:
    if NOT_GIVEN not in values:
        return Partition(values, member)
    place = values.index(NOT_GIVEN)
    order = [i for i in range(len(values)) if i != place] + [place]
    return Partition(tuple(values[i] for i in order), np.argsort(order)[member])


def _ranges(edges: Float64[np.ndarray, " edges"], least: float, most: float) -> list[str]:
    """Names of the groups between edges, with as many digits as tell them apart."""
    bounds = _written(np.array([least, *edges, most]))
    pairs = itertools.pairwise(bounds)
    return [low if low == high else f"{low} to {high}" for low, high in pairs]


def _written(numbers: Float64[np.ndarray, " n"]) -> list[str]:
    if np.all(numbers == np.round(numbers)):
        return [f"{number:.0f}" for number in numbers]
    for digits in range(3, 18):
        written = [f"{number:.{digits}g}" for number in numbers]
        if len(set(written)) == len(set(numbers.tolist())):
            break
    return written
