"""python -m imgrec.prepare DATASET --to=FOLDER: sharded, checked, quick to read at random.

DATASET is any name that --config.data.dataset takes; what is written is read back with
--config.data.dataset=prepared:FOLDER. `python -m imgrec.prepare check DATASET` reads everything
and reports what is in it and what is wrong with it. Exit codes: 0 done, 1 not all could be
read (or, with --strict, a split has copies of another), 2 bad input, 75 stopped by a signal (run
the same command to go on).
"""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from rich.console import Console

from imgrec import cli, data
from imgrec.config import DataConfig
from imgrec.console import EXIT_STOPPED, bar, create, interruptible
from imgrec.data import audit, duplicates, prepared, preparing
from imgrec.errors import UserError
from imgrec.files import write_text
from imgrec.reporting import audit_page, audit_text

_USAGE = """usage: python -m imgrec.prepare DATASET --to=FOLDER [--from=FOLDER] [FLAGS]
       python -m imgrec.prepare check DATASET [--from=FOLDER] [--out=FOLDER] [--strict]

DATASET: {names}

"""


def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit code."""
    checking, config, given = _parse(argv)
    console = create()
    with interruptible():
        try:
            if checking:
                return _check(config, given, console)
            return _prepare(config, given, console, _command(argv))
        except KeyboardInterrupt:
            then = (
                "Stopped; nothing was written."
                if checking
                else f"Stopped. What is in {given.to} is whole; go on with:\n  {_command(argv)}"
            )
            console.print(then, markup=False)
            return EXIT_STOPPED


def _prepare(config: DataConfig, given: flags.FlagValues, console: Console, command: str) -> int:
    if not given.to:
        raise UserError("Where to? Give a folder: --to=FOLDER.")
    settings = preparing.Settings(
        short_side=given.short_side,
        quality=given.quality,
        shard_mb=given.shard_mb,
        workers=given.workers,
    )
    folder = Path(given.to).expanduser()
    official = data.load_official(config)
    with bar(console) as shown:
        outcome = preparing.prepare(official, folder, settings, command, shown)
    console.print(
        f"{outcome.written} files written, {outcome.kept} were there and whole; "
        f"{outcome.total_bytes / 1e6:,.1f} MB in {folder}. Read it with "
        f"--config.data.dataset=prepared:{folder}",
        markup=False,
    )
    return 0


def _check(config: DataConfig, given: flags.FlagValues, console: Console) -> int:
    official = data.load_official(config)
    prefix, _, path = config.dataset.partition(":")
    damaged = prepared.damaged_files(Path(path).expanduser()) if prefix == "prepared" else []
    with bar(console) as shown:
        found = audit.audit(official, given.workers, given.near, damaged, shown)
    text = audit_text.render(found)
    console.print(text, markup=False, end="")
    if given.out:
        folder = Path(given.out).expanduser()
        _write_text(folder / "audit.txt", text)
        _write_text(folder / "audit.json", json.dumps(audit.as_json(found), indent=1) + "\n")
        _write_text(folder / "audit.html", audit_page.render(found, official))
        console.print(f"audit.html, audit.json and audit.txt are in {folder}", markup=False)
    return int(not found.whole or (given.strict and found.leaking))


def _parse(argv: Sequence[str]) -> tuple[bool, DataConfig, flags.FlagValues]:
    """Whether to check, the data set, and the flags."""
    given = flags.FlagValues()
    defaults = preparing.Settings()
    text, number = flags.DEFINE_string, flags.DEFINE_integer
    text("from", "", "folder of the official files, as --config.data.root", flag_values=given)
    text("to", "", "folder to write to; a stopped call goes on there", flag_values=given)
    text("out", "", "folder for audit.html, audit.json and audit.txt", flag_values=given)
    number("short_side", 0, "pixels to shrink the shorter side to; 0: none", flag_values=given)
    number("quality", defaults.quality, "of shrunk JPEG files", flag_values=given)
    number("shard_mb", defaults.shard_mb, "MiB of a shard, about", flag_values=given)
    number("workers", defaults.workers, "threads that read and encode", flag_values=given)
    flags.DEFINE_float(
        "near",
        duplicates.LEAST_CORRELATION,
        "correlation of 16x16 pictures from which on two images are copies",
        lower_bound=0.9,
        upper_bound=1.0,
        flag_values=given,
    )
    number("channels", 0, "as --config.data.channels", flag_values=given)
    number("split_seed", 0, "as --config.data.split_seed", flag_values=given)
    text("test", DataConfig.test, "as --config.data.test", flag_values=given)
    text("group", "", "as --config.data.group", flag_values=given)
    flags.DEFINE_bool("strict", False, "exit 1 when splits share images", flag_values=given)
    if cli.HELP & set(argv):
        print(_USAGE.format(names=", ".join(data.names())) + cli.flag_help(given))
        sys.exit(0)
    rest = cli.read_flags(given, argv)
    checking = rest[:1] == ["check"]
    names = rest[checking:]
    if len(names) != 1:
        told = f"got {' '.join(names)}" if names else "got none"
        raise UserError(
            f"Name one data set, {told}. For example: python -m imgrec.prepare "
            f"{'check ' * checking}imagenet --from=FOLDER{' --to=FOLDER' * (not checking)}. "
            f"Known: {', '.join(data.names())}."
        )
    if given.workers < 1:
        raise UserError(f"--workers={given.workers} is impossible; expected 1 or more.")
    config = DataConfig(
        dataset=names[0],
        root=str(given["from"].value),
        channels=given.channels,
        split_seed=given.split_seed,
        test=given.test,
        group=given.group,
    )
    return checking, config, given


def _command(argv: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "imgrec.prepare", *argv[1:]])


def _write_text(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}.") from None


if __name__ == "__main__":
    cli.run(main)
