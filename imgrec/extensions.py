"""Modules of one's own, named by `config.imports`: they register data sets, models and tasks.

They are imported before anything else looks at an experiment, in training and wherever a run is
opened later.
"""

import importlib

from imgrec.config import Experiment
from imgrec.errors import UserError


def load(experiment: Experiment) -> Experiment:
    """Imports what the experiment names, once a process; gives the experiment back.

    Raises:
      UserError: there is no such module, or it does not work.
    """
    for name in experiment.imports:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise UserError(
                f"config.imports names {name!r}, and there is no module {error.name!r}. Modules "
                "are looked for in the current folder and among the installed ones: write "
                "'examples.own_model' for examples/own_model.py."
            ) from None
        except UserError:
            raise
        except Exception as error:  # whatever a user's own file may raise
            raise UserError(
                f"The module {name!r} of config.imports does not work: "
                f"{type(error).__name__}: {error}"
            ) from error
    return experiment
