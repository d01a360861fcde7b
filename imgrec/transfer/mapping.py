"""Foreign weights into a model and out of it, by a table of names and turns.

A table is data: entries that pair foreign names with ours, names that may be ignored, older
spellings. `convert` uses every array or says why not, and refuses anything that does not fit;
`export` goes the other way by the same table.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from imgrec.errors import UserError
from imgrec.transfer import turns
from imgrec.transfer.accounting import Accounting, Problems
from imgrec.transfer.turns import SAME, Turn

Tree = Any
Flat = dict[str, Any]

# Counters that PyTorch keeps beside weights, and that no network computes with.
_ALWAYS_IGNORED = (r"(.*\.)?num_batches_tracked", r"n_averaged")


@dataclass(frozen=True)
class Grid:
    """That an entry's position embeddings may be resized to the image, and how.

    Attributes:
      rows: of patches in this model's images.
      columns: of patches.
      prefix: how many tokens come before the grid's.
      index: which of the entry's foreign arrays they are.
    """

    rows: int
    columns: int
    prefix: int
    index: int = 0


@dataclass(frozen=True)
class Entry:
    """Foreign arrays that are ours under other names.

    Attributes:
      theirs: foreign names.
      ours: names in the variables, "params/stem/conv/kernel" or "batch_stats/...".
      turn: how the arrays are turned.
      classes_axis: the axis of the foreign arrays that counts classes; only a head has one,
        and a head for another number of classes is left as the model began.
      grid: for position embeddings.
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    turn: Turn = SAME
    classes_axis: int | None = None
    grid: Grid | None = None


@dataclass(frozen=True)
class Table:
    """How the weights of one model are named and laid out elsewhere.

    Attributes:
      naming: whose names these are ("timm").
      also: others that use the same names.
      entries: one for every variable of the model.
      ignored: regexes over whole foreign names that a network does not compute with.
      respelled: pairs (regex, replacement) that bring older spellings up to date.
      stem: what names of the whole network begin with and those of its backbone alone do not.
      made_with: fields of our module as the networks of this naming have them, where weights
        cannot tell.
      remarks: what people have to know of these networks, where not even the naming can tell.
    """

    naming: str
    entries: tuple[Entry, ...]
    ignored: tuple[str, ...] = ()
    respelled: tuple[tuple[str, str], ...] = ()
    stem: str = ""
    made_with: Mapping[str, Any] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @functools.cached_property
    def theirs(self) -> frozenset[str]:
        """All foreign names."""
        return frozenset(name for entry in self.entries for name in entry.theirs)


def choose(names: Iterable[str], tables: Sequence[Table]) -> Table:
    """The table that knows most of a file's names.

    Raises:
      UserError: none knows any.
    """
    names = list(names)
    scores = [len(_names(names, table)[1].keys() & table.theirs) for table in tables]
    if not any(scores):
        known = "".join(f"\n  {t.naming}: {min(t.entries[0].theirs)}, ..." for t in tables)
        raise UserError(
            f"none of its {len(names)} arrays is named as one of this model is, in any naming; "
            f"the first is {min(names, default='')!r}. Known are{known}\n"
            "Set config.model.name to the network they were trained in."
        )
    return tables[scores.index(max(scores))]


def convert(
    foreign: Mapping[str, np.ndarray],
    table: Table,
    params: Tree,
    model_state: Tree,
    *,
    new_head: bool = False,
) -> tuple[Tree, Tree, Accounting]:
    """The model's variables with the values of foreign weights.

    Args:
      foreign: arrays by name.
      table: of the model, in the weights' naming.
      params: the model's parameters, or their shapes.
      model_state: what it keeps beside them (`{"batch_stats": ...}`), or its shapes.
      new_head: leave the model's head as it is, whatever the weights have.

    Returns:
      Parameters and state of the same structure, as numpy arrays of the same types, and what
      became of every foreign array. A head that has to be replaced is as it was given.

    Raises:
      UserError: names or shapes do not fit, listed with the nearest names that do; or values
        are not finite.
    """
    ours = _flat(params, model_state)
    prefix, given = _names(list(foreign), table)
    problems = Problems()
    problems.unmapped = sorted(ours.keys() - {name for e in table.entries for name in e.ours})
    ignored = [
        name
        for name in sorted(given.keys() - table.theirs)
        if any(re.fullmatch(regex, name) for regex in (*_ALWAYS_IGNORED, *table.ignored))
    ]
    problems.unexpected = sorted(given.keys() - table.theirs - set(ignored))

    head = [entry for entry in table.entries if entry.classes_axis is not None]
    why = _why_a_new_head(
        head, {name: foreign[original].shape for name, original in given.items()}, ours
    )
    if new_head and head:
        why = why or "as config.init.new_head asks"
    values: Flat = {}
    resized: list[str] = []
    cast: Counter[str] = Counter()
    for entry in table.entries:
        if why and entry in head:
            continue
        missing = [name for name in entry.theirs if name not in given]
        problems.missing += [(name, entry.ours[0]) for name in missing]
        if missing:
            continue
        arrays = [foreign[given[name]] for name in entry.theirs]
        shapes = [array.shape for array in _foreign_shapes(entry, ours)]
        if entry.grid:
            arrays, line = _on_grid(arrays, shapes, entry)
            resized += line
        for name, array, shape in zip(entry.theirs, arrays, shapes, strict=True):
            if array.shape != shape:
                problems.shapes.append((name, array.shape, shape))
            elif not jnp.issubdtype(array.dtype, jnp.floating):
                problems.shapes.append((name, f"{array.dtype}", "fractions"))
        if not problems.any():
            cast.update(str(array.dtype) for array in arrays if array.dtype != np.float32)
            for name, value in zip(entry.ours, entry.turn.into(tuple(arrays)), strict=True):
                values[name] = _finite(entry.theirs[0], value, ours[name].dtype)
    if problems.any():
        raise UserError(problems.message(table.naming, given))

    fresh = tuple(sorted(ours.keys() - values.keys()))
    accounting = Accounting(
        naming=table.naming,
        prefix=prefix,
        renamed=tuple(
            (given[theirs], name)
            for entry in table.entries
            for theirs in entry.theirs
            for name in entry.ours
            if name in values
        ),
        numbers=sum(value.size for value in values.values()),
        ignored=tuple(given[name] for name in ignored),
        replaced=fresh,
        left_out=tuple(given[n] for e in head if why for n in e.theirs if n in given),
        resized=tuple(resized),
        cast=dict(cast),
        head=why,
    )
    whole = flax.traverse_util.unflatten_dict({**ours, **values}, sep="/")
    return whole["params"], {k: v for k, v in whole.items() if k != "params"}, accounting


def export(params: Tree, model_state: Tree, table: Table) -> dict[str, np.ndarray]:
    """The model's variables as foreign arrays by foreign names; `convert` brings them back exactly.

    Raises:
      UserError: the table is not this model's.
    """
    ours = _flat(params, model_state)
    named = {name for entry in table.entries for name in entry.ours}
    if named != ours.keys():
        differ = ", ".join(sorted(named ^ ours.keys())[:10])
        raise UserError(
            f"The naming of {table.naming} is not of this model; it differs by {differ}."
        )
    found: dict[str, np.ndarray] = {}
    for entry in table.entries:
        arrays = entry.turn.out(tuple(np.asarray(ours[name]) for name in entry.ours))
        found |= {
            name: np.ascontiguousarray(array)
            for name, array in zip(entry.theirs, arrays, strict=True)
        }
    return found


def _flat(params: Tree, model_state: Tree) -> Flat:
    return flax.traverse_util.flatten_dict({"params": params, **model_state}, sep="/")


def _names(names: Sequence[str], table: Table) -> tuple[str, dict[str, str]]:
    """The prefix that all names share and the table does not know, and names without it.

    Returns:
      The prefix, and the file's names by the table's (or, for those it does not know, by
      themselves without the prefix).
    """
    best: tuple[int, str, dict[str, str]] = (-1, "", {})
    counted = [n for n in names if not any(re.fullmatch(regex, n) for regex in _ALWAYS_IGNORED)]
    prefix: str | None = ""
    while prefix is not None:
        found = _spelled(names, prefix, table)
        score = len(found.keys() & table.theirs)
        if score > best[0]:
            best = (score, prefix, found)
        match = re.match(re.escape(prefix) + r"[^./]+[./]", counted[0]) if counted else None
        longer = match.group() if match else None
        prefix = longer if longer and all(n.startswith(longer) for n in counted) else None
    return best[1], best[2]


def _spelled(names: Sequence[str], prefix: str, table: Table) -> dict[str, str]:
    """The file's names by what the table calls them."""
    found: dict[str, str] = {}
    others: list[tuple[str, str]] = []
    for name in names:
        stripped = spelled = name.removeprefix(prefix)
        for regex, replacement in table.respelled:
            spelled = re.sub(regex, replacement, spelled)
        if table.stem and spelled not in table.theirs and table.stem + spelled in table.theirs:
            spelled = table.stem + spelled
        if spelled == stripped:
            found[spelled] = name
        else:
            others.append((spelled, name))
    # Where two spellings of one name are there, the second is unexpected, and never lost.
    for spelled, name in others:
        found[name if spelled in found else spelled] = name
    return found


def _foreign_shapes(entry: Entry, ours: Flat) -> tuple[np.ndarray, ...]:
    """Arrays of the shapes that foreign ones have to have; their values mean nothing."""
    blank = np.zeros((), np.int8)
    return entry.turn.out(tuple(np.broadcast_to(blank, ours[name].shape) for name in entry.ours))


def _why_a_new_head(head: Sequence[Entry], given: Mapping[str, tuple[int, ...]], ours: Flat) -> str:
    """Why the head cannot be taken over, or "" where it can (or where it is plainly wrong)."""
    names = [name for entry in head for name in entry.theirs]
    if not any(name in given for name in names):
        return "the file has none" if names else ""
    counts = set()
    for entry in head:
        axis = entry.classes_axis
        assert axis is not None
        for name, like in zip(entry.theirs, _foreign_shapes(entry, ours), strict=True):
            there = given.get(name, ())
            if (
                len(there) != like.ndim
                or np.delete(there, axis).tolist() != np.delete(like.shape, axis).tolist()
            ):
                return ""
            counts.add((there[axis], like.shape[axis]))
    if len(counts) != 1:
        return ""
    ((there_classes, here_classes),) = counts
    if there_classes == here_classes:
        return ""
    return f"{there_classes} classes there, {here_classes} here"


def _on_grid(
    arrays: list[np.ndarray], shapes: Sequence[tuple[int, ...]], entry: Entry
) -> tuple[list[np.ndarray], list[str]]:
    """The entry's arrays with the position embeddings resized, where that is all they lack."""
    grid = entry.grid
    assert grid is not None
    there, here = arrays[grid.index].shape, shapes[grid.index]
    if there == here or len(there) != 3 or (there[0], there[2]) != (here[0], here[2]):
        return arrays, []
    side = round(max(there[1] - grid.prefix, 0) ** 0.5)
    if not side or side**2 + grid.prefix != there[1]:
        return arrays, []
    arrays = list(arrays)
    arrays[grid.index] = turns.resized(
        arrays[grid.index].astype(np.float32), (grid.rows, grid.columns), grid.prefix
    )
    name = entry.theirs[grid.index]
    return arrays, [f"{name} from {side}x{side} to {grid.rows}x{grid.columns} patches, bicubic"]


def _finite(name: str, value: np.ndarray, dtype: Any) -> np.ndarray:
    """The value in our type, refused where it is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        value = np.asarray(value).astype(dtype)
    finite = np.isfinite(value)
    if not finite.all():
        raise UserError(
            f"{np.size(value) - np.count_nonzero(finite)} of the {value.size:,} values of {name} "
            "are not finite; these weights come from a run that diverged, or are damaged."
        )
    return value
