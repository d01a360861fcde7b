"""python -m imgrec.evaluate --workdir=RUN: everything that can be said of a trained model.

Writes `metrics.json`, `predictions.npz`, figures and `report.html` into RUN/evaluation/SPLIT, and
a model card and a data sheet into RUN. Exit codes: 0 done (what could not be had is said), 2 bad
input, 75 stopped by a signal (nothing was changed).
"""

import dataclasses
import functools
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import ConfigDict
from rich.console import Console

from imgrec import cli, config, console, data
from imgrec.classical import subject as classical
from imgrec.config import DataConfig, Experiment
from imgrec.data import Dataset, Split, class_map
from imgrec.errors import UserError, unknown
from imgrec.evaluation import answers, predictions, sections, suite
from imgrec.evaluation.predictions import Predictions
from imgrec.evaluation.subject import Subject
from imgrec.evaluation.suite import Evaluated, Found, Options, Report
from imgrec.evaluation.unknown import ood_data
from imgrec.files import write_bytes, write_text
from imgrec.reporting import cards, data_sheet, report_page, saved_run
from imgrec.reporting.parts import Part
from imgrec.training import cluster, compilation_cache, input_spec, run_folder, trained, xla
from imgrec.training.clock import Clock

_USAGE = """usage: python -m imgrec.evaluate --workdir=RUN [FLAGS] [--data.FIELD=VALUE ...]

  --data.FIELD: any plain field of config.data, for another data set (--data.dataset=folder:PATH)
    or another place of the same (--data.root=FOLDER)
"""
SPLITS = ("test", "validation", "train")
# Fields of config.data that make a study of a training set, and are no part of evaluating.
_STUDIES: dict[str, Any] = {"mixture": (), "per_class": 0, "imbalance": 1.0, "label_noise": 0.0}


def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit code."""
    given, overrides = _parse(argv)
    _check_alone()
    shown = console.create()
    with console.interruptible():
        try:
            return _evaluate(given, overrides, shown)
        except KeyboardInterrupt:
            shown.print("Stopped; nothing was written.", markup=False)
            return console.EXIT_STOPPED


def _check_alone() -> None:
    job = cluster.find(os.environ)
    if job.processes > 1:
        raise UserError(
            f"imgrec.evaluate runs in one process, on all devices of one host, and this is one of "
            f"{job.processes} ({job.found}). Start it once, with IMGREC_PROCESSES=1 where a "
            "launcher's variables are in its environment. (Training has tested the run already.)"
        )


@dataclass(frozen=True)
class _Opened:
    """What is evaluated, and where what is found goes."""

    folder: Path  # of the run
    out: Path
    experiment: Experiment
    class_names: tuple[str, ...]
    info: Mapping[str, Any]  # JSON values kept beside the metrics
    subject: Subject | None = None
    dataset: Dataset | None = None
    split: Split | None = None
    saved: Predictions | None = None
    saved_validation: Predictions | None = None


def _evaluate(given: flags.FlagValues, overrides: Mapping[str, Any], shown: Console) -> int:
    clock = Clock()
    folder = Path(given.workdir).expanduser()
    experiment = trained.read_experiment(folder)
    with clock("open"):
        opened = (_offline if given.offline else _online)(
            folder, experiment, given, overrides, shown
        )
    options = _options(given, opened)
    with console.bar(shown) as bar:
        evaluated = Evaluated(
            class_names=opened.class_names,
            options=options,
            predictions=opened.saved,
            validation=opened.saved_validation,
            subject=opened.subject,
            split=opened.split,
            dataset=opened.dataset,
            progress=bar,
        )
        with evaluated.computing():
            # While the first pass goes on, as nothing else can be done yet.
            drawn = report_page.learning_curves(opened.folder / "metrics.jsonl")
            with clock("first pass"):
                n = len(evaluated.predictions.label)
            told = f"{opened.info['dataset']} {opened.info['split']}: {n:,} images"
            shown.print(told, markup=False)

            def draw(name: str, found: Found) -> None:
                drawn[name] = report_page.part(name, found.numbers, found.material)

            report = suite.run(evaluated, sections.ALL, functools.partial(bar, "sections"), draw)
    with clock("write"):
        numbers = _write(opened, evaluated, report, drawn, clock)
    _say(opened, numbers, report, shown)
    return 0


def _online(
    folder: Path,
    experiment: Experiment,
    given: flags.FlagValues,
    overrides: Mapping[str, Any],
    shown: Console,
) -> _Opened:
    """The run with its model, its own data and the data that is evaluated."""
    shown.print(xla.configure(experiment), markup=False)
    shown.print(compilation_cache.configure(), markup=False)
    place = {name: value for name, value in overrides.items() if name == "root"}
    other = {name: value for name, value in overrides.items() if name != "root"}
    if "dataset" not in other:
        place, other = {**place, **other}, {}
    try:
        own = data.load(dataclasses.replace(experiment.data, **place))
        run = classical.open_run(folder, experiment=experiment, dataset=own)
    except UserError as error:
        if not other and (_out(folder, "", given.split) / "predictions.npz").exists():
            raise UserError(f"{error}\nWhat was saved can be reported on by --offline.") from None
        raise
    for line in run_folder.check_record(folder, own.info.record, allow_change=False):
        shown.print(line, markup=False)
    dataset, name = own, ""
    if other:
        dataset = _other(experiment, run.spec, {**other, **place})
        name = dataset.info.name
    split = {"test": dataset.test, "validation": dataset.validation, "train": dataset.train}[
        given.split
    ]
    if split is None:
        raise UserError("The run held no validation images out (config.data.validation).")
    if other:
        mapping = class_map.read(Path(given.map)) if given.map else None
        labels = class_map.match(dataset.info.class_names, run.spec.class_names, mapping)
        split = class_map.mapped(split, labels)
    out = _out(folder, name, given.split)
    info = {
        "dataset": dataset.info.name,
        "source": dataset.info.source,
        "split": given.split,
        "step": run.step,
        "seed": experiment.seed,
        **_total_steps(out),
    }
    return _Opened(folder, out, experiment, run.spec.class_names, info, run.subject, own, split)


def _offline(
    folder: Path,
    experiment: Experiment,
    given: flags.FlagValues,
    overrides: Mapping[str, Any],
    shown: Console,
) -> _Opened:
    """The run's saved predictions alone."""
    del shown
    out = _out(folder, overrides.get("dataset", ""), given.split)
    saved = predictions.load(out / "predictions.npz")
    validation = folder / "evaluation" / "validation" / "predictions.npz"
    before = _metrics(out)
    spec = input_spec.read(folder)
    names = spec.class_names if spec else tuple(c["name"] for c in before.get("per_class", ()))
    if len(names) != saved.logits.shape[1]:
        raise UserError(
            f"{folder} does not say what its {saved.logits.shape[1]} classes are called (no "
            f"{input_spec.NAME}, no metrics.json). Evaluate it once without --offline."
        )
    kept = ("dataset", "source", "split", "step", "total_steps", "seed")
    info = {"dataset": experiment.data.dataset, "split": given.split} | {
        name: before[name] for name in kept if name in before
    }
    return _Opened(
        folder,
        out,
        experiment,
        names,
        info,
        saved=saved,
        saved_validation=predictions.load(validation) if validation.exists() else None,
    )


def _other(
    experiment: Experiment, spec: input_spec.InputSpec, fields: Mapping[str, Any]
) -> Dataset:
    """Another data set, its images brought to what the network takes."""
    plain = dataclasses.replace(experiment.data, options=ConfigDict(), validation="0", **_STUDIES)
    defaults = {"image_size": spec.image_shape[0], "channels": spec.image_shape[2]}
    config = dataclasses.replace(plain, holdout_classes=(), group="", root="")
    return data.load(dataclasses.replace(config, **{**defaults, **fields}))


def _out(folder: Path, dataset: str, split: str) -> Path:
    name = re.sub(r"[^A-Za-z0-9.]+", "_", dataset).strip("_")
    return folder / "evaluation" / (f"{name}_{split}" if name else split)


def _metrics(out: Path) -> dict[str, Any]:
    """What an earlier evaluation wrote, if that can be read."""
    try:
        return dict(json.loads((out / "metrics.json").read_text()))
    except (OSError, ValueError):
        return {}


def _total_steps(out: Path) -> dict[str, Any]:
    """Kept, since training knows by it that this test was done."""
    before = _metrics(out)
    return {"total_steps": before["total_steps"]} if "total_steps" in before else {}


def _options(given: flags.FlagValues, opened: _Opened) -> Options:
    strange = {}
    for name, other in ood_data.named(given.ood).items():
        if opened.subject is None:
            raise UserError("--ood asks the model about other images; leave out --offline.")
        shape = opened.subject.image_shape
        strange[name] = ood_data.ood_split(other, opened.experiment.data, shape)
    shifted = {}
    for name, other in ood_data.named(given.shifted, "--shifted").items():
        if opened.subject is None:
            raise UserError("--shifted needs the model; leave out --offline.")
        place = dataclasses.replace(
            opened.experiment.data, root=other.root or opened.experiment.data.root
        )
        shifted[name] = data.load_shifted(other.dataset, place)
    return Options(
        suite=given.suite,
        seed=given.seed,
        columns=tuple(given.groups),
        reference=_reference(given.reference) if given.reference else None,
        unknown=strange,
        shifted=shifted,
        adversarial=given.adversarial,
        projection=given.tsne or given.suite == "full",
        rendered=opened.experiment.data if opened.info["dataset"] == "scenes" else None,
        held_out=opened.dataset is not None and opened.dataset.held_out is not None,
    )


def _reference(run: str) -> Mapping[str, Any]:
    """The table of errors that mean corruption errors are relative to."""
    path = Path(run).expanduser()
    path = path if path.is_file() else path / "evaluation" / "test" / "metrics.json"
    found = _metrics(path.parent) if path.name == "metrics.json" else {}
    if "robustness" not in found:
        raise UserError(
            f"--reference={run}: there is no corruption table in {path}. Make one first: python "
            f"-m imgrec.evaluate --workdir={run} --suite=full."
        )
    return {"name": run, **found["robustness"]}


def _write(
    opened: _Opened,
    evaluated: Evaluated,
    report: Report,
    drawn: Mapping[str, Part],
    clock: Clock,
) -> dict[str, Any]:
    """Writes all files, the metrics last; returns the metrics."""
    out = opened.out
    classification = report.numbers.pop("classification", {})
    numbers = {
        **classification,
        **report.numbers,
        **opened.info,
        "missing": report.missing,
        "seconds": {**clock.seconds(), "sections": report.seconds},
    }
    page = report_page.render(
        numbers,
        drawn,
        name=opened.experiment.name,
        seconds=report_page.json_object(opened.folder / "seconds.json"),
        cost=report_page.json_object(opened.folder / "cost.json"),
    )
    if jax.process_index() == 0:
        predictions.save(evaluated.predictions, out / "predictions.npz")
        if evaluated.has_validation and "validation" in vars(evaluated):
            there = opened.folder / "evaluation" / "validation" / "predictions.npz"
            predictions.save(evaluated.validation, there)
            _calibrate(opened, evaluated.validation)
        for name, content in page.files.items():
            write_bytes(out / name, content)
        write_text(out / "report.html", page.html)
        predictions.write_metrics(numbers, out / "metrics.json")
        if out == _out(opened.folder, "", "test"):
            write_text(opened.folder / "report.html", page.html)
            _write_cards(opened)
    return numbers


def _calibrate(opened: _Opened, validation: Predictions) -> None:
    """Keeps beside the run what makes its answers to single images honest."""
    spec = input_spec.read(opened.folder)
    if spec is None or "step" not in opened.info:
        return
    try:
        fitted = answers.fit(
            validation.logits,
            validation.label,
            step=opened.info["step"],
            input_digest=input_spec.digest(spec),
        )
    except ValueError:  # no finite logits, of which the report tells
        return
    answers.save(fitted, opened.folder)


def _write_cards(opened: _Opened) -> None:
    """The model card and the data sheet; what their owner wrote into the blanks stays."""
    saved = saved_run.read(opened.folder, opened.experiment.name, "test")
    spec = input_spec.read(opened.folder)
    info = {"class_names": opened.class_names, **opened.info}
    info |= {"name": opened.info["dataset"], "image_shape": spec and list(spec.image_shape)}
    card = cards.model_card(
        config.to_dict(opened.experiment),
        info,
        saved.metrics,  # as read back, where what is not a number is null
        launch=saved.launches[-1] if saved.launches else None,
        cost=saved.cost,
        seconds=saved.seconds,
        previous=_text(opened.folder / "model_card.md"),
    )
    write_text(opened.folder / "model_card.md", card)
    if opened.dataset is not None:
        counts, columns = data_sheet.describe(opened.dataset)
        sheet = data_sheet.data_sheet(
            info,
            counts,
            columns=columns,
            label_errors=saved.metrics.get("label_errors"),
            previous=_text(opened.folder / "data_sheet.md"),
        )
        write_text(opened.folder / "data_sheet.md", sheet)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _say(opened: _Opened, numbers: Mapping[str, Any], report: Report, shown: Console) -> None:
    """What a person should see at once: the main numbers, what is missing, where the rest is."""
    intervals = numbers.get("intervals", {})
    for name in ("accuracy", "balanced_accuracy", "loss"):
        if name in numbers:
            low, high = intervals.get(name) or (None, None)
            between = f" [{low:.4f}, {high:.4f}]" if low is not None else ""
            shown.print(f"{name.replace('_', ' ')} {numbers[name]:.4f}{between}", markup=False)
    for name, why in report.missing.items():
        shown.print(f"no {name}: {why}", markup=False)
    for name, text in report.defects.items():
        shown.print(f"{name} failed, which is a fault of imgrec:\n{text}", markup=False)
    spent = numbers["seconds"]
    shown.print(
        f"{opened.out / 'report.html'} written; seconds: first pass {spent['first pass']:.1f}, "
        f"total {spent['total']:.1f}",
        markup=False,
    )


def _parse(argv: Sequence[str]) -> tuple[flags.FlagValues, dict[str, Any]]:
    """The flags, and the fields of `config.data` that they set."""
    given = flags.FlagValues()
    text, switch = flags.DEFINE_string, flags.DEFINE_bool
    text("workdir", "", "folder of the run", flag_values=given)
    text("split", "test", "test, validation or train", flag_values=given)
    text("suite", "standard", "standard, or full: corruptions, sweeps, attacks", flag_values=given)
    text(
        "ood",
        "",
        "other data sets, NAME or NAME@FOLDER with commas, to be told from its own",
        flag_values=given,
    )
    text(
        "shifted",
        "",
        "published shifted sets, NAME or NAME@FOLDER with commas, as cifar10_c or imagenet_v2",
        flag_values=given,
    )
    flags.DEFINE_list("groups", [], "columns to report on; all by default", flag_values=given)
    text("reference", "", "a run whose corruption errors are the yardstick", flag_values=given)
    text("map", "", "JSON file: the other data set's classes as the run's", flag_values=given)
    switch("adversarial", False, "mount attacks in the standard suite too", flag_values=given)
    switch("tsne", False, "project features by t-SNE too, a minute", flag_values=given)
    switch("offline", False, "from saved predictions alone", flag_values=given)
    flags.DEFINE_integer("seed", 0, "of resamples and draws", lower_bound=0, flag_values=given)
    define: dict[Any, Callable[..., Any]] = {
        str: text,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
    }
    fields = {f.name: f.type for f in dataclasses.fields(DataConfig) if f.type in define}
    for name, kind in fields.items():
        define[kind](f"data.{name}", None, f"as --config.data.{name}", flag_values=given)
    if cli.HELP & set(argv):
        own = [name for name in given if not name.startswith("data.")]
        shown = flags.FlagValues()
        for name in own:
            shown[name] = given[name]
        print(_USAGE + cli.flag_help(shown))
        sys.exit(0)
    rest = cli.read_flags(given, argv)
    if rest and not given.workdir:
        given["workdir"].value = rest.pop(0)
    if rest or not given.workdir:
        told = f"got also {' '.join(rest)}" if rest else "got none"
        raise UserError(
            f"Give the folder of one run, {told}: python -m imgrec.evaluate --workdir=runs/NAME."
        )
    for name, choices in (("split", SPLITS), ("suite", suite.SUITES)):
        value = str(given[name].value)
        if value not in choices:
            raise unknown(f"value of --{name}", value, choices)
    found = {name: given[f"data.{name}"].value for name in fields}
    return given, {name: value for name, value in found.items() if value is not None}


if __name__ == "__main__":
    cli.run(main)
