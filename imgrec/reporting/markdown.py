"""Markdown: text that nobody's name can break, tables, and blanks that only a person can fill.

A blank is kept between two comments, so that a document which is made anew takes over what a
person wrote into the old one.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~$!])")
_KEPT = re.compile(r"<!-- owner:([a-z_]+) -->\n(.*?)\n<!-- /owner -->", re.DOTALL)
_EMPTY = "> **To be filled in by the owner:**"


def escaped(text: object) -> str:
    """A name or value as plain text, on one line."""
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    return _SPECIAL.sub(r"\\\1", line)


def code(text: str) -> str:
    """A block of code, whatever is in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; all cells are escaped."""
    lines = [[escaped(cell) for cell in row] for row in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def listed(sentences: Iterable[str]) -> str:
    """Points, which are Markdown already."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def blank(key: str, question: str, kept: Mapping[str, str]) -> str:
    """A place for the owner's words: those kept, or the question that they are to answer.

    Args:
      key: of lower case letters and underscores, the only one of its document.
      question: what only a person knows.
      kept: what `filled` found in the document's former version.
    """
    return f"<!-- owner:{key} -->\n{kept.get(key, f'{_EMPTY} {question}')}\n<!-- /owner -->"


def filled(document: str) -> dict[str, str]:
    """What people wrote into the blanks of a document, by key; blanks still empty are left out."""
    return {key: text for key, text in _KEPT.findall(document) if not text.startswith(_EMPTY)}
