"""Every command of README and docs/ works: it is parsed as written, then run at a tiny scale.

Commands are the lines of fenced blocks that begin with a program, and pieces of `inline code`. A
fenced one runs in this process, on a small network and few images in place of its own: what is to
be shown is that the command, its flags, files and fields exist and lead where the page says. A
block below `<!-- checked, not run: REASON -->`, and inline code, are only parsed: do the verb or
script, each flag, each field and each configuration exist?
"""

import importlib
import io
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgrec import augment, cli, data, fields, launching, models, reproduction, validation
from imgrec.config import AugmentConfig, DistillConfig, Experiment, InitConfig, ModelConfig
from imgrec.data import ArraySource, Dataset, Info, Split, sampling
from imgrec.launching import Outcome
from imgrec.tasks import registry
from imgrec.training import optimizers, schedules

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CHECKED = "<!-- checked, not run: "
PROGRAMS = ("python ", "make ", "find ", "pip ", "sbatch ", "source ")
INLINE = re.compile(r"`((?:python|sbatch|pip install|make) [^`]+)`")
WITHOUT_FILES = {
    "mnist": (1, 10),
    "fashion_mnist": (1, 10),
    "cifar10": (3, 10),
    "cifar100": (3, 100),
}
SIDE = 16  # of the images in place of a configuration's own


def commands(page: Path) -> list[tuple[str, bool]]:
    """(command, whether it is to be run), once each."""
    found: dict[str, bool] = {}
    outside, before = [], ""
    lines = iter(page.read_text().splitlines())
    for line in lines:
        if not line.startswith("```"):
            outside.append(line)
            before = line or before
            continue
        block = "\n".join(iter(lambda: next(lines), "```")).replace("\\\n", " ")
        if line == "```" and block.startswith(PROGRAMS):
            for each in block.splitlines():
                command = re.sub(r"\s+#.*", "", each).strip()
                if not command.startswith("source "):
                    found[command] = not before.startswith(CHECKED)
        before = ""
    for line in INLINE.findall("\n".join(outside)):
        found.setdefault(" ".join(line.split()), False)
    return list(found.items())


COMMANDS = dict(item for page in PAGES for item in commands(page))
RUN = [c for c, run in COMMANDS.items() if run and not c.startswith(("make ", "pip "))]


def arguments(command: str) -> list[str]:
    """A command's own words: without a program that feeds it, and without where it writes to."""
    return shlex.split(command.split(" | ")[-1].partition(" > ")[0])


def test_there_are_commands_of_every_verb():
    assert len(RUN) > 30
    verbs = [p.stem for p in (ROOT / "imgrec").glob("*.py") if "cli.run(main)" in p.read_text()]
    for verb in [*verbs, "models"]:
        assert any(f"imgrec.{verb}" in command for command in RUN), verb


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_it_names_what_exists(command):
    program, *rest = arguments(command)
    if program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "pip":
        extra = re.search(r"\[(\w+)\]", command)
        assert extra is None or f"\n{extra[1]} = " in (ROOT / "pyproject.toml").read_text()
    elif program == "sbatch":
        script = next(word for word in rest if not word.startswith("--"))
        assert (ROOT / script).is_file()
    else:
        assert program == "python", command
        _check_python(rest)


def _check_python(words: list[str]) -> None:
    if words[0] == "-m" and words[1].startswith("imgrec."):
        verb = words[1].removeprefix("imgrec.")
        parts = [verb.replace(".", "/") + ".py", f"{verb}/__main__.py"]
        there = [ROOT / "imgrec" / part for part in parts if (ROOT / "imgrec" / part).is_file()]
        assert there, f"no verb {verb}"
        text = there[0].read_text() + (ROOT / "imgrec/training/cluster.py").read_text()
        text += (ROOT / "imgrec/launching/engine_flags.py").read_text()
        _check_flags(words[2:], text)
    elif words[0].endswith(".py"):
        assert (ROOT / words[0]).is_file(), words[0]
        _check_flags(words[1:], (ROOT / words[0]).read_text())
    else:
        assert words[:2] == ["-m", "pytest"], words


def _check_flags(words: list[str], source: str) -> None:
    for word in words:
        if word == "--":
            return
        name, _, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name in ("help", "..."):
            continue
        if name == "config" and "..." not in value and "FILE" not in value:
            assert (ROOT / value.partition(":")[0]).is_file(), value
        elif name.startswith("config."):
            fields.check(name.removeprefix("config."))
        elif name.startswith("data."):
            fields.check(name)
        elif name != "config":
            # As a flag of absl's or as one of argparse's.
            assert f'"{name}"' in source or f'"--{name}"' in source, f"no flag --{name}"


@pytest.fixture(scope="module")
def place(finished_run, tmp_path_factory):
    """A folder with the checkout's configurations, a few finished runs, and pictures."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("configs", "examples", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "results", folder / "results")  # some commands write there
    names = set(re.findall(r"\bruns/\w+", "\n".join(RUN))) - {"runs/x"}
    trained = {shlex.split(c)[-1].partition("=")[2] for c in RUN if "imgrec.main" in c}
    for name in (names - trained) | {"RUN", "runs/photos"}:
        shutil.copytree(finished_run / "run", folder / name)
    for image in ("photo.jpg", "more/a.png", "archive/b/c.png", "photos/star/d.png"):
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        source = finished_run / "images" / "ant" / "0.png"
        with Image.open(source) as opened:
            opened.save(folder / image)
    for seed, name in enumerate(("photos/star", "photos/circle")):
        (folder / name).mkdir(exist_ok=True)
        for pixels in np.random.default_rng(seed).integers(0, 256, (60, 12, 16, 3), np.uint8):
            Image.fromarray(pixels).save(folder / name / f"{pixels.sum()}.png")
    return folder


@pytest.fixture
def here(place, finished_run, monkeypatch):
    """The place is where commands start, and what they train is tiny."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    monkeypatch.setenv("IMGREC_CACHE", str(finished_run / "cache"))
    monkeypatch.setenv("XLA_FLAGS", "")
    real_parse, real_load = cli.parse, data.load

    def parse(argv, define):
        experiment, given = real_parse(argv, define)
        check_as_written(experiment)
        shrink(experiment)
        return experiment, given

    def load(wanted):
        return stand_in(wanted) if wanted.dataset in WITHOUT_FILES else real_load(wanted)

    def run_all(runs, *rest, ended=lambda outcome: None, **others):
        outcomes = [Outcome(run.name, run.folder, 0) for run in runs]
        for outcome in outcomes:
            ended(outcome)
        return outcomes

    monkeypatch.setattr(cli, "parse", parse)
    monkeypatch.setattr(data, "load", load)
    monkeypatch.setattr(launching, "run_all", run_all)
    monkeypatch.setattr(reproduction, "_check_data", lambda *arguments: None)
    return place


@pytest.mark.parametrize("command", RUN)
def test_it_runs(command, here, monkeypatch, capsys):
    words = arguments(command)[1:]
    if words[0] != "-m":
        monkeypatch.setattr(sys, "argv", [words[0], "drawn", "--count=8"])
        with pytest.raises(SystemExit) as exited:
            runpy.run_path(words[0], run_name="__main__")
        assert exited.value.code == 0
        return
    verb, rest = words[1].removeprefix("imgrec."), [filled(word) for word in words[2:]]
    if verb == "reproduce" and rest != ["--list"]:
        rest.append("--plan")
    if verb == "ablate":
        rest.append("--plan")
    if verb == "main" and "--dry_run" not in rest:  # the page's own folder holds a finished run
        rest.append(f"--workdir=trained/{RUN.index(command)}")
    rest = [word for word in rest if word != "..."]
    if rest == ["RUN", "RUN"]:
        rest[1] = "runs/photos"
    if " | " in command:
        monkeypatch.setattr(sys, "stdin", io.StringIO("photo.jpg\n"))
    module = importlib.import_module(f"imgrec.{verb}" + (".__main__" if verb == "models" else ""))
    if "--help" in rest:
        with pytest.raises(SystemExit) as exited:
            module.main([verb, *rest])
        assert exited.value.code == 0
    else:
        assert module.main([verb, *rest]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out


def filled(word: str) -> str:
    """A word of a command with what a page leaves open, and steps that a tiny run has."""
    word = word.replace("folder:PATH", "folder:photos").replace("FOLDER", ".")
    return word.replace("=100:105", "=1:2").replace("--calls=50", "--calls=3")


def check_as_written(c: Experiment) -> None:
    """What a plan checks before it reads data, and what it makes of the names."""
    validation.validate(c)
    models.create(c.model, 10)
    optimizers.check(c.optimizer)
    schedules.check(c.schedule)
    registry.find(c.task)
    augment.build(c.augment, (32, 32, 3), (0.5,) * 3, (0.25,) * 3, 10)
    prefix = c.data.dataset.partition(":")[0]
    assert prefix in {name.partition(":")[0] for name in data.names()}


def shrink(c: Experiment) -> None:
    """The same kind of run in seconds: two steps of a small network on small images."""
    if not c.model.name.startswith("patches"):  # the example is to be seen at work
        c.model = ModelConfig("small_cnn")
    c.init, c.distill, c.augment = InitConfig(), DistillConfig(), AugmentConfig()
    c.data.image_size, c.data.batch_size, c.data.workers = SIDE, 8, 0
    c.data.crop, c.data.per_class = "none", 0
    c.optimizer.layer_decay, c.optimizer.freeze = 1.0, ()
    c.optimizer.learning_rate_rules = ()
    c.schedule.warmup = "0st"
    c.train.duration, c.train.ema = "2st", 0.0
    c.eval.every = c.log.every = "2st"
    c.mesh.data = 1
    c.log.tensorboard = False


def stand_in(wanted) -> Dataset:
    """Noise with the channels and classes of a data set whose official files are not here."""
    channels, classes = WITHOUT_FILES[wanted.dataset]
    rng = np.random.default_rng(0)

    def split(name: str, n: int) -> Split:
        images = rng.integers(0, 256, (n, SIDE, SIDE, channels), dtype=np.uint8)
        return Split(name, ArraySource(images, np.arange(n) % classes), np.arange(n))

    info = Info(
        name=wanted.dataset,
        num_classes=classes,
        class_names=tuple(map(str, range(classes))),
        image_shape=(SIDE, SIDE, channels),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        source="noise",
    )
    visits = sampling.shuffled(32)
    return Dataset(split("train", 32), split("validation", 16), split("test", 16), info, visits)
