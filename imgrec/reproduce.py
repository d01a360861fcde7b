"""python -m imgrec.reproduce ID: measures a recorded claim again, and says whether it holds.

ID is the name of a file in results/; --list shows them all. Everything is written into a new
folder, and neither results/ nor the runs that are there are touched. Exit codes: 0 the second
measurement lies where the first says it should, 1 it does not, or a run failed, 2 bad input, 75
stopped (the command that is then printed goes on).
"""

import datetime
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console

from imgrec import claims, cli, launching, reproduction
from imgrec.console import EXIT_STOPPED, create, interruptible
from imgrec.errors import UserError, unknown
from imgrec.files import write_text
from imgrec.launching import Outcome
from imgrec.reproduction import Again

_USAGE = """usage: python -m imgrec.reproduce ID [FLAGS]
       python -m imgrec.reproduce --list

  ID: the name of a file in results/, as in results/ID.json

"""


def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit code."""
    names, given = _parse(argv)
    known = claims.load_all(Path(given.results or reproduction.ROOT / "results"))
    console = create()
    if given.list:
        for name, result in known.items():
            console.print(_listed(name, result), markup=False)
        return 0
    if len(names) != 1:
        raise UserError(f"Name one claim, got {' '.join(names) or 'none'}; --list shows all.")
    if names[0] not in known:
        raise unknown("claim", names[0], known)
    again = reproduction.plan(
        names[0],
        known[names[0]],
        Path(given.workdir or _new_folder(names[0])),
        seeds=_seeds(given.seeds),
        data_root=given.data_root,
        run=given.run,
    )
    _describe(again, console)
    if given.plan:
        for run in again.runs:
            console.print(f"  {shlex.join(run.command)}", markup=False)
        return 0
    reproduction.begin(again)
    with interruptible():
        return _reproduce(again, argv, console)


def _reproduce(again: Again, argv: Sequence[str], console: Console) -> int:
    failed: list[Outcome] = []

    def ended(outcome: Outcome) -> None:
        console.print(f"{outcome.name}: {outcome.status} ({outcome.seconds:.0f} s)", markup=False)
        failed.extend([outcome] if outcome.status == "failed" else [])

    try:
        launching.run_all(
            again.runs,
            logs=again.folder / "logs",
            said=lambda line: console.print(line, markup=False),
            ended=ended,
        )
    except KeyboardInterrupt:
        rest = [a for a in argv[1:] if not a.startswith("--workdir")]
        goes_on = ["python", "-m", "imgrec.reproduce", *rest, f"--workdir={again.folder}"]
        console.print(f"Stopped. This goes on:\n  {shlex.join(goes_on)}", markup=False)
        return EXIT_STOPPED
    if failed:
        print(f"error: {failed[0].name} failed:\n{failed[0].error}", file=sys.stderr)
        return 1
    found = reproduction.collect(again)
    verdict = claims.compare(again.recorded, found)
    for line in _seed_by_seed(again.recorded, found):
        console.print(line, markup=False)
    console.print(verdict.said, markup=False)
    console.print("reproduced" if verdict.inside else "NOT reproduced")
    record = {"id": again.name, "reproduced": verdict.inside, "said": verdict.said}
    record["rule"] = claims.rule(again.recorded)
    write_text(again.folder / "verdict.json", json.dumps(record, indent=2) + "\n")
    console.print(f"{again.result_path}, {again.folder / 'verdict.json'}", markup=False)
    return 0 if verdict.inside else 1


def _describe(again: Again, console: Console) -> None:
    r = again.recorded
    kind = claims.rule(r)
    console.print(_listed(again.name, r), markup=False)
    for line in reproduction.circumstances(again):
        console.print(line, markup=False)
    console.print(f"rule: {claims.RULES[kind]}", markup=False)
    expected = claims.interval(r, len(again.seeds) or len(r["values"]))
    if expected is not None:
        console.print(f"expected: {expected.low:.5g} to {expected.high:.5g}")
    if again.seeds:
        console.print(f"seeds: {', '.join(map(str, again.seeds))}")
    if (seconds := r.get("seconds")) and isinstance(seconds, list):
        console.print(f"a run took {sum(seconds) / len(seconds):,.0f} s then")
    console.print(f"folder: {again.folder}", markup=False)


def _listed(name: str, result: Mapping[str, Any]) -> str:
    values = result["values"]
    value = result.get("value", result.get("median", result.get("mean", values[0])))
    spread = f" ± {result['std']:.2g}" if result.get("std") is not None else ""
    return (
        f"{name}: {result['claim']}: {result['metric']} {value:.5g}{spread}, {len(values)} values"
    )


def _seed_by_seed(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Runs of one seed beside each other, which on one machine are equal to the last bit."""
    if not (recorded.get("seeds") and found.get("seeds")):
        return []
    then = dict(zip(recorded["seeds"], recorded["values"], strict=True))
    lines = []
    for seed, value in zip(found["seeds"], found["values"], strict=True):
        was = f"recorded {then[seed]:.5g}" if seed in then else "not recorded"
        same = ", equal" if then.get(seed) == value else ""
        lines.append(f"seed {seed}: {value:.5g}, {was}{same}")
    return lines


def _seeds(texts: Sequence[str]) -> list[int]:
    if not all(text.isdigit() for text in texts) or len(set(texts)) < len(texts):
        raise UserError(f"--seeds={','.join(texts)}: expected numbers, each once, as in 0,1,2.")
    return [int(text) for text in texts]


def _new_folder(name: str) -> Path:
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / "reproduced" / f"{name}-{now}"


def _parse(argv: Sequence[str]) -> tuple[list[str], flags.FlagValues]:
    given = flags.FlagValues()
    text = flags.DEFINE_string
    flags.DEFINE_bool("list", False, "every claim, and what was measured", flag_values=given)
    flags.DEFINE_bool("plan", False, "say what would be run, and stop", flag_values=given)
    flags.DEFINE_list(
        "seeds", [], "of the runs, as in 0 or 0,1,2; by default those recorded", flag_values=given
    )
    text(
        "data_root", "", "folder of the official files; by default $IMGREC_DATA", flag_values=given
    )
    text("run", "", "a finished run folder, for claims about one", flag_values=given)
    text("results", "", "folder of the recorded results", flag_values=given)
    text(
        "workdir",
        "",
        "of what is written, to go on there; by default a new one in runs/reproduced",
        flag_values=given,
    )
    if cli.HELP & set(argv):
        print(_USAGE + cli.flag_help(given))
        sys.exit(0)
    return cli.read_flags(given, argv), given


if __name__ == "__main__":
    cli.run(main)
