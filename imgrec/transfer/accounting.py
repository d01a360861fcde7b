"""What became of a file's arrays, said to people: what was used, and what kept them from use."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from imgrec.errors import nearest


@dataclass(frozen=True)
class Accounting:
    """What became of every array of a file; `lines` says it to people.

    Attributes:
      naming: of the table.
      prefix: taken off all names.
      renamed: pairs (foreign name as in the file, our name), for every array used.
      numbers: how many numbers they are.
      ignored: foreign names that a network does not compute with.
      replaced: our names of a head that stays as the model began.
      left_out: foreign names of the head that was not taken.
      resized: one line for each array that was.
      cast: from which types to float32, and how many arrays.
      head: why the head is replaced, or "".
    """

    naming: str
    prefix: str
    renamed: tuple[tuple[str, str], ...]
    numbers: int
    ignored: tuple[str, ...]
    replaced: tuple[str, ...]
    left_out: tuple[str, ...]
    resized: tuple[str, ...]
    cast: Mapping[str, int]
    head: str

    def lines(self) -> list[str]:
        """The accounting in a few lines, the first of which says how much was used."""
        used = len({theirs for theirs, _ in self.renamed})
        said = [f"{used} arrays used ({self.numbers:,} numbers), in the naming of {self.naming}"]
        if self.renamed:
            theirs, ours = self.renamed[0]
            said.append(f"renamed: {theirs} is {ours}, and so on")
        if self.prefix:
            said.append(f"prefix taken off: {self.prefix!r}")
        if self.ignored:
            last = Counter(re.split(r"[./]", name)[-1] for name in self.ignored)
            listed = ", ".join(f"{name} ({count})" for name, count in sorted(last.items()))
            said.append(f"ignored: {listed}")
        said += [f"resized: {line}" for line in self.resized]
        said += [f"cast to float32: {n} arrays of {name}" for name, n in self.cast.items()]
        if self.replaced:
            left = f" ({', '.join(self.left_out)} left out)" if self.left_out else ""
            said.append(f"NEW HEAD: {', '.join(self.replaced)} start afresh: {self.head}{left}")
        return said


@dataclass
class Problems:
    """What keeps weights from fitting."""

    missing: list[tuple[str, str]] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    shapes: list[tuple[str, Any, Any]] = field(default_factory=list)
    unmapped: list[str] = field(default_factory=list)

    def any(self) -> bool:
        """Whether anything does."""
        return bool(self.missing or self.unexpected or self.shapes or self.unmapped)

    def message(self, naming: str, given: Mapping[str, str]) -> str:
        """All that differs, the first of each kind in full."""
        lost = [name for name, _ in self.missing]
        shown = [
            *_first(self.shapes, lambda p: f"shape of {p[0]}: {p[1]} there, {p[2]} here"),
            *_first(
                self.missing,
                lambda p: f"missing: {p[0]} (our {p[1]})" + _meant(p[0], self.unexpected),
            ),
            *_first(self.unexpected, lambda p: f"unexpected: {given[p]}" + _meant(p, lost)),
            *_first(self.unmapped, lambda p: f"not in the naming of {naming}: {p}"),
        ]
        listed = "".join(f"\n  {line}" for line in shown)
        return (
            f"these weights, in the naming of {naming}, are of another model: "
            f"{len(self.missing)} arrays are missing, {len(self.unexpected)} unexpected, "
            f"{len(self.shapes)} of another shape or type.{listed}\n"
            "Set config.model.name and config.model.options to the network they were trained in."
        )


def _first(items: Sequence[Any], line: Callable[[Any], str]) -> list[str]:
    """A line for each of the first items; the nearest names of hundreds would take seconds."""
    more = [f"and {len(items) - 8} more"] if len(items) > 8 else []
    return [line(item) for item in items[:8]] + more


def _meant(name: str, others: Sequence[str]) -> str:
    guess = nearest(name, others)
    return f"; perhaps {guess}" if guess else ""
