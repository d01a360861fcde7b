"""A folder in which many runs lie: one command at a time, and only runs that belong there."""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

from imgrec import config
from imgrec.config import Experiment
from imgrec.errors import UserError


def check(folder: Path) -> None:
    """Refuses the folder of a single run."""
    if (folder / "config.json").exists():
        raise UserError(
            f"{folder} is the folder of a single run. Choose another with --workdir=FOLDER."
        )


def check_begun(folder: Path, experiment: Experiment, default: Experiment) -> None:
    """Refuses a run folder that was begun with another experiment; one not begun is fine.

    Args:
      folder: of the run.
      experiment: resolved, as the run would save it.
      default: the resolved default, whose values stand for fields that are newer than the run.

    Raises:
      UserError: saying in which fields they differ.
    """
    path = folder / "config.json"
    if not path.exists():
        return
    try:
        saved = json.loads(path.read_text())["experiment"]
        changes = config.differences(
            saved, config.to_dict(experiment), default=config.to_dict(default)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}). Restore it, or choose another --workdir."
        ) from None
    if changes:
        raise UserError(
            f"{folder} was begun with another configuration (saved -> now):\n  "
            + "\n  ".join(changes)
            + "\nGive the values it was begun with, or choose another --workdir=FOLDER."
        )


@contextlib.contextmanager
def alone(folder: Path, what: str) -> Iterator[None]:
    """Keeps a second command out of the folder, whose runs would write over the first one's.

    Args:
      folder: made where it lacks.
      what: is at work there, in words: "sweep".

    Raises:
      UserError: another is at work, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be written: {error.strerror}. Choose another with "
            "--workdir=FOLDER."
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"Another {what} is at work in {folder}. Wait for it, or choose another with "
                "--workdir=FOLDER."
            ) from None
        yield
