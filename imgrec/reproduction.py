"""A recorded claim, measured again in a folder of its own: what is run for it, and what it gives.

A test accuracy is measured again by its recorded configuration, one run a seed through the front
door, whatever has become of the file in `configs/` since. Any other claim is measured again by its
recorded command, which writes below the folder named by IMGREC_MEASURED.
"""

import json
import os
import runpy
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgrec import claims, config, data, extensions
from imgrec.config import DataConfig, Experiment
from imgrec.errors import UserError
from imgrec.files import write_text
from imgrec.launching import Run, training_run
from imgrec.training import resolving, run_folder

ROOT = Path(__file__).parents[1]
MARK = "reproduction.json"
RECIPE = '''"""The configuration of a recorded claim, as it was."""

import json
from pathlib import Path

from imgrec.config import Experiment, from_dict


def get_config(arg: str = "") -> Experiment:
    return from_dict(json.loads(Path(__file__).with_name("recipe.json").read_text()))
'''


@dataclass(frozen=True)
class Again:
    """A claim that is to be measured again.

    Attributes:
      name: of the result.
      recorded: the result.
      folder: of all that is written.
      seeds: of the runs; () where the recorded command sees to that.
      runs: what is started, one after the other.
      experiment: that is run for each seed; None where a command is.
    """

    name: str
    recorded: Mapping[str, Any]
    folder: Path
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]
    experiment: Experiment | None

    @property
    def result_path(self) -> Path:
        """Where the second measurement is written."""
        return self.folder / "results" / f"{self.name}.json"


def plan(
    name: str,
    recorded: Mapping[str, Any],
    folder: Path,
    *,
    seeds: Sequence[int] = (),
    data_root: str = "",
    run: str = "",
) -> Again:
    """What is to be run; nothing is written, and nothing computed.

    Args:
      name: of the result.
      recorded: the result.
      folder: for all that is written.
      seeds: other than the recorded ones.
      data_root: folder of official files; "" is where they are looked for anyway.
      run: a finished run folder, for a claim about one.

    Raises:
      UserError: the data or a run that it needs is not there, its configuration has fields that
        exist no more, or seeds are asked of a command that sees to them itself.
    """
    folder = folder.absolute()
    root = data.root_folder(DataConfig(root=data_root)).absolute()
    if not _is_recipe(recorded):
        if seeds:
            raise UserError(
                f"{name} is measured by one command for all its seeds or rounds "
                f"({recorded['command']}). Leave --seeds out."
            )
        command = (*_environment(root, folder), *_filled(name, recorded, root, run))
        return Again(name, recorded, folder, (), (Run(name, folder, command, ROOT),), None)
    experiment = _recorded_experiment(name, recorded)
    _check_data(name, recorded, experiment, root)
    chosen = tuple(seeds or recorded["seeds"])
    runs = []
    for seed in chosen:
        made = training_run(
            f"seed{seed}",
            folder / "runs" / f"seed{seed}",
            str(folder / "recipe.py"),
            [f"--config.seed={seed}"],
            ROOT,
        )
        command = (*_environment(root, folder), *made.command)
        runs.append(Run(made.name, made.folder, command, ROOT))
    return Again(name, recorded, folder, chosen, tuple(runs), experiment)


def begin(again: Again) -> None:
    """Makes the folder, or finds that it is that of the same reproduction, stopped.

    Raises:
      UserError: the folder holds something else; nothing in it is changed then.
    """
    mark = {"id": again.name, "seeds": list(again.seeds), "recorded": dict(again.recorded)}
    path = again.folder / MARK
    if path.exists():
        if json.loads(path.read_text()) == mark:
            return
        raise UserError(
            f"{again.folder} holds the reproduction of another claim, or of other seeds. Choose "
            "another with --workdir=FOLDER, or leave --workdir out for a new one."
        )
    if again.folder.is_dir() and any(again.folder.iterdir()):
        raise UserError(
            f"{again.folder} is not empty, and a claim is measured again in a folder of its own. "
            "Choose another with --workdir=FOLDER, or leave --workdir out."
        )
    write_text(path, json.dumps(mark, indent=2) + "\n")
    if again.experiment is not None:
        recipe = json.dumps(config.to_dict(again.experiment), indent=2)
        write_text(again.folder / "recipe.json", recipe + "\n")
        write_text(again.folder / "recipe.py", RECIPE)


def collect(again: Again) -> dict[str, Any]:
    """The second measurement, once all has been run.

    Raises:
      UserError: the command ended well and wrote no result, or one that is none.
    """
    if again.experiment is None:
        if not again.result_path.is_file():
            raise UserError(
                f"The command of {again.name} wrote no {again.result_path}. A command that "
                "measures a claim writes below imgrec.claims.root()."
            )
        return claims.load(again.result_path)
    r = again.recorded
    folders = [run.folder for run in again.runs]
    found = claims.of_runs(folders, claim=r["claim"], target=r["target"], command=r["command"])
    return claims.write(again.result_path, found)


def circumstances(again: Again) -> list[str]:
    """Sentences on what differs from when the claim was recorded: code, configuration, machine."""
    r = again.recorded
    return [
        _code(r["git_revision"]),
        *_configuration(again),
        _machine(r["device"]),
        *_packages(r.get("versions") or {}),
    ]


def _is_recipe(recorded: Mapping[str, Any]) -> bool:
    whole = bool(recorded.get("config")) and bool(recorded.get("seeds"))
    return whole and recorded["metric"] == "test accuracy"


def _recorded_experiment(name: str, recorded: Mapping[str, Any]) -> Experiment:
    try:
        return extensions.load(config.from_dict(recorded["config"]))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"The configuration of {name} is of an older imgrec ({error}). Check out the code that "
            f"measured it: git checkout {recorded['git_revision']}"
        ) from None


def _check_data(name: str, recorded: Mapping[str, Any], experiment: Experiment, root: Path) -> None:
    """Refuses data that is not there, is damaged, or has another test split."""
    there = config.from_dict(config.to_dict(experiment)).data
    there.root = str(root)
    found = len(data.load(there).test)
    if found != recorded["n"]:
        raise UserError(
            f"{name} was measured on {recorded['n']:,} test images, and {there.dataset!r} in "
            f"{root} has {found:,}. It is other data."
        )


def _environment(root: Path, folder: Path) -> tuple[str, ...]:
    return ("env", f"IMGREC_DATA={root}", f"IMGREC_MEASURED={folder}")


def _filled(name: str, recorded: Mapping[str, Any], root: Path, run: str) -> list[str]:
    """The recorded command with what it leaves open."""
    program, *arguments = shlex.split(recorded["command"])
    if program != "python":
        raise UserError(
            f"{name} was measured by {program!r}; run it yourself: {recorded['command']}"
        )
    text = " ".join(arguments)
    if "=RUN" in text and not (run and (Path(run) / "config.json").is_file()):
        raise UserError(
            f"{name} is a claim about a trained run ({recorded['command']}). Name one that is "
            f"finished: --run=FOLDER{f'; {run!r} is none' if run else ''}."
        )
    if "FOLDER" in text and not root.is_dir():
        raise UserError(
            f"{name} needs data, and there is no folder {root}. Set --data_root=FOLDER."
        )
    run = str(Path(run).absolute())
    filled = [a.replace("=RUN", f"={run}").replace("FOLDER", str(root)) for a in arguments]
    return [sys.executable, *filled]


def _code(revision: str) -> str:
    now = run_folder.git("rev-parse", "HEAD")
    listed = run_folder.git("diff", "--name-only", revision, "--", "imgrec", "configs", "scripts")
    if now is None or listed is None:
        return f"code: measured at {revision[:10]}, which cannot be compared with the code here"
    count = len(listed.splitlines())
    if not count:
        return f"code: that of the record, {revision[:10]}"
    return (
        f"code: measured at {revision[:10]}; {count} files in imgrec, configs and scripts differ "
        f"from it here ({now[:10]} and what is not committed)"
    )


def _configuration(again: Again) -> list[str]:
    """What the file in configs/ says today, where that can be found out by the name."""
    recorded = again.recorded
    if again.experiment is None or not recorded.get("config"):
        return []
    told = f"configuration: the recorded one, fingerprint {recorded.get('fingerprint')}"
    spec = _spec(recorded["config"]["name"])
    if spec is None:
        return [f"{told}; no file in configs/ has the name of it"]
    path, _, argument = spec.partition(":")
    today = runpy.run_path(path)["get_config"](*([argument] if argument else []))
    today.name, today.seed = recorded["config"]["name"], recorded["config"]["seed"]
    changes = config.differences(
        config.to_dict(resolving.resolve(again.experiment)),
        config.to_dict(resolving.resolve(today)),
    )
    where = Path(path).name + (f":{argument}" if argument else "")
    if not changes:
        return [f"{told}; configs/{where} still says so"]
    return [f"{told}; configs/{where} has changed since:", *(f"  {line}" for line in changes)]


def _spec(name: str) -> str | None:
    """The file in configs/, and its argument, whose experiment has a name by default."""
    for path in sorted((ROOT / "configs").glob("*.py"), key=lambda p: -len(p.stem)):
        if name == path.stem:
            return str(path)
        if name.startswith(f"{path.stem}_"):
            return f"{path}:{name.removeprefix(f'{path.stem}_')}"
    return None


def _machine(device: str) -> str:
    here = f"{run_folder.processor()}, {os.cpu_count()} cores"
    if device.startswith(here):
        return f"machine: like the one of the record ({device})"
    return f"machine: {here}; it was measured on {device}"


def _packages(then: Mapping[str, str | None]) -> list[str]:
    now = run_folder.versions()
    changed = [
        f"{name} {then[name]} -> {now[name]}"
        for name in now
        if name in then and then[name] != now[name]
    ]
    return [f"packages: {', '.join(changed)}"] if changed else []
