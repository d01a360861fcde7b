"""python -m imgrec.report RUN...: runs side by side, and whether what differs between them matters.

Prints a table and writes a page: differences of configuration, learning curves, metrics with
intervals, paired tests against the first run, cost. Of one run it is a summary. Exit codes: 0
done (what a run lacks is said), 2 bad input.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from imgrec import cli
from imgrec.errors import UserError, unknown
from imgrec.files import write_text
from imgrec.reporting import comparison_page, comparison_text, saved_run, side_by_side

_USAGE = """usage: python -m imgrec.report RUN [RUN ...] [FLAGS]

  RUN: the folder of a run; all others are compared with the first

"""
FORMATS = ("table", "json")


def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit code."""
    folders, given = _parse(argv)
    runs = saved_run.read_all(folders, given.split)
    found = side_by_side.side_by_side(runs, given.split, seed=given.seed)
    beside, inside = runs[0].folder.parent / "comparison.html", runs[0].folder / "summary.html"
    out = Path(given.out or (beside if len(runs) > 1 else inside)).expanduser()
    try:
        write_text(out, comparison_page.render(found))
    except OSError as error:
        raise UserError(
            f"Cannot write {out}: {error.strerror or error}. Choose another file with --out=FILE."
        ) from None
    if given.format == "json":
        print(json.dumps(found, indent=1, allow_nan=False))
    else:
        print(comparison_text.render(found), end="")
        print(f"\n{out} written")
    return 0


def _parse(argv: Sequence[str]) -> tuple[list[str], flags.FlagValues]:
    """The folders and the flags."""
    given = flags.FlagValues()
    text = flags.DEFINE_string
    text(
        "out",
        "",
        "the page; by default comparison.html beside the first run, of one summary.html in it",
        flag_values=given,
    )
    text("format", "table", "what is printed: table or json", flag_values=given)
    text("split", "test", "whose metrics and predictions are compared", flag_values=given)
    flags.DEFINE_integer("seed", 0, "of resamples", lower_bound=0, flag_values=given)
    if cli.HELP & set(argv):
        print(_USAGE + cli.flag_help(given))
        sys.exit(0)
    folders = cli.read_flags(given, argv)
    if not folders:
        raise UserError(
            "Give the folder of a run, or of several: python -m imgrec.report runs/A runs/B."
        )
    if given.format not in FORMATS:
        raise unknown("value of --format", given.format, FORMATS)
    return folders, given


if __name__ == "__main__":
    cli.run(main)
