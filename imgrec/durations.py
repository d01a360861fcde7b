"""Lengths of training in one small grammar: "30ep", "5000st", "1.2Mex", "10%".

`ep` are epochs, `st` optimizer steps, `ex` examples, `%` a share of the whole run; the
numbers take the suffixes k and M. An epoch is exactly one pass over the training split;
batches run on across its end, so its length in steps need not be whole until it is asked.
"""

import re
from dataclasses import dataclass

from imgrec.errors import UserError

_GRAMMAR = re.compile(r"\s*(?P<number>\d+(\.\d+)?)\s*(?P<scale>[kM]?)\s*(?P<unit>ep|st|ex|%)\s*")
_SCALES = {"": 1.0, "k": 1e3, "M": 1e6}


@dataclass(frozen=True)
class Duration:
    """A parsed duration: `amount` of `unit`, which is one of ep, st, ex and %."""

    amount: float
    unit: str

    def steps(self, *, batch_size: int, examples: int, total_steps: int | None = None) -> int:
        """Number of optimizer steps, rounded to the nearest whole one.

        Args:
          batch_size: examples per optimizer step (the global batch).
          examples: size of the training split.
          total_steps: length of the run, which "%" refers to.

        Raises:
          UserError: a percentage where there is no run to take the share of.
        """
        if self.unit == "st":
            return round(self.amount)
        if self.unit == "ex":
            return round(self.amount / batch_size)
        if self.unit == "ep":
            return round(self.amount * examples / batch_size)
        if total_steps is None:
            raise UserError(f"'{self.amount:g}%' needs a whole to be a share of; use ep, st or ex.")
        return round(self.amount / 100 * total_steps)


def parse(text: str, field: str = "duration") -> Duration:
    """Parses one duration.

    Args:
      text: for example "30ep".
      field: the configuration field it came from, named in the error.

    Raises:
      UserError: the text is not in the grammar.
    """
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise UserError(
            f"{field}={text!r} is not a duration. Write a number and a unit: "
            "'30ep' (epochs), '5000st' (steps), '1.2Mex' (examples) or '10%' (of the run)."
        )
    return Duration(float(match["number"]) * _SCALES[match["scale"]], match["unit"])
