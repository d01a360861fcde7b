"""python -m imgrec.predict --workdir=RUN PATH...: classify image files and folders.

Images are prepared as they were when the run was evaluated, since the run keeps how. Answers go to
standard output, everything else to standard error. Exit codes: 0 done, 1 some files could not be
read (the others are answered), 2 bad input, 75 stopped by a signal.
"""

import csv
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from jaxtyping import UInt8
from rich.console import Console

from imgrec import cli, console
from imgrec.classical import subject as classical
from imgrec.data import image_files
from imgrec.errors import UserError, unknown
from imgrec.evaluation import answers, explanations
from imgrec.evaluation.answers import Answer, Calibration
from imgrec.reporting import overlays, plots
from imgrec.reporting.overlays import Column
from imgrec.training import compilation_cache, input_spec, trained, xla
from imgrec.training.trained import Trained

_USAGE = """usage: python -m imgrec.predict --workdir=RUN PATH... [FLAGS]
       python -m imgrec.predict --weights=efficientnet_lite0 PATH... [FLAGS]

  PATH: an image, a folder, a pattern in quotes ('photos/**/*.jpg'), or - for a list on standard
    input, a path a line
"""
NONE_KNOWN = "none of the known classes"


def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit code."""
    given, named = _parse(argv)
    shown = Console(stderr=True, highlight=False, soft_wrap=True)
    with console.interruptible():
        try:
            return _predict(given, named, shown)
        except KeyboardInterrupt:
            shown.print("Stopped; what was answered before is whole.", markup=False)
            return console.EXIT_STOPPED
        except BrokenPipeError:  # whoever read the answers has seen enough
            sys.stderr.close()
            return 0


def _predict(given: flags.FlagValues, named: Sequence[str], shown: Console) -> int:
    paths = image_files.find(named, sys.stdin if "-" in named else ())
    run = _open(given, shown)
    calibration = _calibration(given, run, shown)
    explain = _explainer(given.explain, run)
    found = answers.answers(
        run.subject,
        run.spec.view,
        paths,
        calibration=calibration,
        top_k=min(given.top_k, len(run.spec.class_names)),
        reject_below=given.reject_below,
        reject_unknown=given.reject_unknown,
        seen=explain,
    )
    header, line = _FORMATS[given.format]
    unread: list[Answer] = []
    with console.bar(shown) as bar:
        sys.stdout.write(header)
        for done, answer in enumerate(found, 1):
            sys.stdout.write(line(answer))
            unread += [answer] if answer.error else []
            bar("images", done, len(paths))
    sys.stdout.flush()
    for answer in unread[:10]:
        shown.print(f"{answer.path} cannot be read: {answer.error}", markup=False)
    if unread:
        shown.print(f"{len(unread):,} of {len(paths):,} files cannot be read.", markup=False)
    return int(bool(unread))


def _open(given: flags.FlagValues, shown: Console) -> Trained:
    shown.print(compilation_cache.configure(), markup=False)
    if given.weights:
        return trained.open_weights(given.weights)
    folder = Path(given.workdir).expanduser()
    experiment = trained.read_experiment(folder)
    shown.print(xla.configure(experiment), markup=False)
    return classical.open_run(folder, experiment=experiment)


def _calibration(given: flags.FlagValues, run: Trained, shown: Console) -> Calibration | None:
    """What was fitted on validation, or a word on that there is nothing."""
    found = None
    if given.workdir:
        found = answers.load(run.folder, step=run.step, input_digest=input_spec.digest(run.spec))
    if found is not None:
        return found
    if given.workdir:
        hint = f"python -m imgrec.evaluate --workdir={given.workdir} does that"
    else:
        hint = "published weights come without validation images"
    if given.reject_unknown:
        raise UserError(f"--reject_unknown needs a threshold fitted on validation images: {hint}.")
    shown.print(f"Confidences are not calibrated: {hint}.", markup=False)
    return None


def _table(answer: Answer) -> str:
    """The path, a tab, and the classes in words; nothing of what could not be read."""
    if answer.error:
        return ""
    ranked = zip(answer.classes, answer.probabilities, strict=True)
    words = ", ".join(f"{name} {100 * p:.1f} %" for name, p in ranked)
    if not answer.known:
        words = f"{NONE_KNOWN} ({answer.why_not}; nearest: {words or 'none'})"
    return f"{answer.path}\t{words}\n"


def _json(answer: Answer) -> str:
    """A JSON object."""
    line: dict[str, Any] = {"path": answer.path}
    if answer.error:
        line["error"] = answer.error
    else:
        line |= {
            "prediction": _prediction(answer),
            "known": answer.known,
            "confidence": answer.probabilities[0] if answer.probabilities else None,
            "top": [
                {"class": name, "probability": p}
                for name, p in zip(answer.classes, answer.probabilities, strict=True)
            ],
            "prediction_set_95": answer.prediction_set and list(answer.prediction_set),
        }
        if answer.why_not:
            line["why_not"] = answer.why_not
    return json.dumps(line, ensure_ascii=False) + "\n"


_COLUMNS = ("path", "prediction", "confidence", "known", "top", "prediction_set_95", "error")


def _csv(answer: Answer) -> str:
    """A row of `_COLUMNS`."""
    if answer.error:
        return _row(answer.path, "", "", "", "", "", answer.error)
    ranked = zip(answer.classes, answer.probabilities, strict=True)
    return _row(
        answer.path,
        _prediction(answer),
        f"{answer.probabilities[0]:.6f}" if answer.probabilities else "",
        str(int(answer.known)),
        ";".join(f"{name}={p:.6f}" for name, p in ranked),
        ";".join(answer.prediction_set or ()),
        answer.why_not if not answer.classes else "",
    )


def _row(*values: str) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _prediction(answer: Answer) -> str:
    return answer.classes[0] if answer.known else NONE_KNOWN


# What comes first, and what is written of each answer.
_FORMATS: Mapping[str, tuple[str, Callable[[Answer], str]]] = {
    "table": ("", _table),
    "json": ("", _json),
    "csv": (_row(*_COLUMNS), _csv),
}


def _explainer(
    folder: str, run: Trained
) -> Callable[[Path, UInt8[np.ndarray, "height width channels"], int], None] | None:
    """What draws, for each image, what speaks for its likeliest class; None where not asked."""
    if not folder:
        return None
    explainer = explanations.Explainer(run.subject, batch_size=1)
    names = run.spec.class_names
    taken: set[str] = set()

    def draw(path: Path, image: UInt8[np.ndarray, "height width channels"], best: int) -> None:
        found = explainer(image[None], np.array([best]))
        sheet = overlays.explanation_sheet(
            image[None],
            [f"{path.name}\n{names[best]}"],
            [
                Column(method.title, found.maps[name], signed=method.signed)
                for name, method in explanations.METHODS.items()
                if name in found.maps
            ],
        )
        name = path.name
        while name in taken:  # of another folder
            name = f"_{name}"
        taken.add(name)
        plots.save_png(sheet, Path(folder).expanduser() / f"{name}.png")

    return draw


def _parse(argv: Sequence[str]) -> tuple[flags.FlagValues, list[str]]:
    """The flags, and what names the images."""
    given = flags.FlagValues()
    text = flags.DEFINE_string
    text("workdir", "", "folder of the run", flag_values=given)
    text("weights", "", "published weights by name, instead of a run", flag_values=given)
    flags.DEFINE_integer("top_k", 5, "classes of an answer", lower_bound=1, flag_values=given)
    text("format", "table", "table, json (an object a line) or csv", flag_values=given)
    flags.DEFINE_float(
        "reject_below",
        0.0,
        "confidence below which the answer is: none of the known classes",
        lower_bound=0.0,
        upper_bound=1.0,
        flag_values=given,
    )
    flags.DEFINE_bool(
        "reject_unknown",
        False,
        "reject images stranger than 95 % of the validation images",
        flag_values=given,
    )
    text("explain", "", "folder for a picture of what each answer is based on", flag_values=given)
    if cli.HELP & set(argv):
        print(_USAGE + cli.flag_help(given))
        sys.exit(0)
    named = cli.read_flags(given, argv)
    if bool(given.workdir) == bool(given.weights):
        raise UserError(
            "Which model? Give the folder of a run with --workdir=RUN, or the name of published "
            "weights with --weights=NAME, and not both."
        )
    if given.format not in _FORMATS:
        raise unknown("value of --format", given.format, _FORMATS)
    return given, named


if __name__ == "__main__":
    cli.run(main)
