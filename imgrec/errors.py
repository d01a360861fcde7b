"""Errors that are help for the reader: what was given, what was expected, what to type.

A `UserError` is the user's to mend (a name, a path, a value); every verb prints its
message without a traceback and exits with code 2. Anything else is ours to mend.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input or configuration; the message says what to change."""


def nearest(given: str, known: Iterable[str]) -> str | None:
    """The known name that `given` most likely meant, or None when nothing is close."""
    by_lowercase = {name.lower(): name for name in known}
    matches = difflib.get_close_matches(given.lower(), list(by_lowercase), n=1, cutoff=0.5)
    return by_lowercase[matches[0]] if matches else None


def unknown(kind: str, given: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not registered.

    Args:
      kind: what the name stands for, in the singular ("data set", "model").
      given: what the user typed.
      known: every name that would have been accepted.
    """
    known = sorted(known)
    guess = nearest(given, known)
    meant = f" Did you mean {guess!r}?" if guess else ""
    return UserError(f"Unknown {kind} {given!r}.{meant} Known: {', '.join(known)}.")
