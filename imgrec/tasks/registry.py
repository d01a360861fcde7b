"""Tasks by name, for `config.task`."""

from collections.abc import Callable

from imgrec.errors import unknown
from imgrec.tasks.classification import Classification

# name -> what makes the task from the fields of `Classification`. A task of one class an image may
# have any loss; whatever evaluates it sees logits.
_KINDS: dict[str, Callable[..., Classification]] = {"classification": Classification}


def register(name: str, kind: Callable[..., Classification]) -> None:
    """Adds a task: a subclass of `Classification`, or a function that makes one of its fields."""
    if name in _KINDS:
        raise ValueError(f"The task {name!r} is registered twice.")
    _KINDS[name] = kind


def find(name: str) -> Callable[..., Classification]:
    """What makes the task of a name.

    Raises:
      UserError: there is none.
    """
    if name not in _KINDS:
        raise unknown("value of config.task", name, _KINDS)
    return _KINDS[name]
