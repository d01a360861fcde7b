"""What a page is made of: parts with a title, and in them sentences, tables and pictures."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Item = Any  # Text | Table | Picture | Details
Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Text:
    """A paragraph; `faint` ones explain, others state."""

    text: str
    faint: bool = False


@dataclass(frozen=True)
class Table:
    """A table of texts; the first column names the rows."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """An image file of the report.

    Attributes:
      name: of its file, with the suffix .svg or .png.
      content: the file.
      caption: what to see in it.
      wide: it takes a row of its own.
    """

    name: str
    content: bytes = field(repr=False)
    caption: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Details:
    """Items that are folded away until asked for."""

    summary: str
    items: Sequence[Item]


@dataclass(frozen=True)
class Part:
    """A part of the page.

    Attributes:
      anchor: by which it is linked to, also the section's name in `metrics.json`.
      title: of it.
      about: one or two sentences that say how to read it.
      items: in their order.
    """

    anchor: str
    title: str
    about: str
    items: Sequence[Item]


def pictures(items: Sequence[Item]) -> list[Picture]:
    """All pictures among items, folded ones included."""
    found: list[Picture] = []
    for item in items:
        if isinstance(item, Picture):
            found.append(item)
        elif isinstance(item, Details):
            found += pictures(item.items)
    return found


def of(numbers: Numbers, name: str) -> list[Any] | None:
    """The interval of a number, where there is one."""
    return (numbers.get("intervals") or {}).get(name)


def notes(numbers: Numbers) -> list[Text]:
    """What a section says of itself in words: notes, and reasons for what is not there."""
    said = [*numbers.get("notes", ())]
    said += [f"{name.replace('_', ' ')}: {why}" for name, why in numbers.get("reasons", {}).items()]
    return [Text(sentence, faint=True) for sentence in dict.fromkeys(said)]


def escaped(text: str) -> str:
    """Text that a user may have named, fit for HTML."""
    return html.escape(text)
