"""A model on a published shifted test set, by the rules of those who published it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from imgrec.data import Shifted, Source, Split, class_map
from imgrec.data.dataset import Encoded
from imgrec.data.shifted import FOR_VALIDATION, Part
from imgrec.errors import UserError, unknown
from imgrec.evaluation import bootstrap
from imgrec.evaluation.robustness.conditions import Answers, Progress, answers_of_parts
from imgrec.evaluation.robustness.corruption_table import ECE, calibration_errors, table
from imgrec.evaluation.robustness.scalars import Scalars
from imgrec.evaluation.subject import Subject


def published_benchmark(
    subject: Subject,
    shifted: Shifted,
    *,
    clean: Split | None = None,
    kinds: Sequence[str] | None = None,
    reference: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """What a shifted set, as `data.load_shifted` opens it, says of a model.

    Args:
      subject: the model. Classes of the same name are the same.
      shifted: the set.
      clean: the test split that it is to be compared with, by the model's labels. Of a corrupted
        set these are the images that were corrupted; where they are not, or where it is None,
        those that came with the set are taken.
      kinds: of a corrupted set; None for all that are not for validation.
      reference: of a corrupted set, as of `robustness.corruption_benchmark`.
      seed: of the resamples.
      progress: told of every part.

    Returns:
      name, base, source, notes, n; restricted_to, the number of classes that the model chose
      among (those that occur in the set), None for all.
      Of a corrupted set also seed and what `corruption_table.table` returns.
      Of any other accuracy, nll and ece_equal_width_15; clean_accuracy of `clean`, restricted
      alike and of the images of these classes alone, n_clean, and accuracy_drop between the
      two; with intervals, and reasons for what is None.

    Raises:
      UserError: the model does not know a class of the set, or there is no such kind in it.
    """
    label_of = _labels(subject, shifted)
    occurring = np.unique(label_of[shifted.classes])
    classes = None if len(occurring) == len(subject.class_names) else occurring
    report = {
        "name": shifted.name,
        "base": shifted.base,
        "source": shifted.source,
        "notes": list(shifted.notes),
        "restricted_to": None if classes is None else len(classes),
    }

    def split(source: Source | Encoded, name: str) -> Split:
        if not isinstance(source, Source):
            raise ValueError("The images are not decoded: open the set by data.load_shifted.")
        return class_map.mapped(Split(name, source, np.arange(len(source))), label_of.tolist())

    parts = {
        part: split(source, f"{shifted.name} {part}")
        for part, source in _chosen(shifted, kinds).items()
    }
    found = answers_of_parts(subject, list(parts.values()), classes=classes, progress=progress)
    one = next(iter(parts.values()))
    if not shifted.profile:
        of_classes = None if clean is None else _of(clean, classes)
        before = None
        if of_classes is not None:
            before = answers_of_parts(subject, [of_classes], classes=classes)
        return report | _natural(found, before, seed)
    if clean is not None and not np.array_equal(clean.labels(), one.labels()):
        clean = None
    if clean is None and shifted.clean is not None:
        clean = split(shifted.clean, f"{shifted.name} clean")
    return (
        report
        | {"seed": seed}
        | table(
            found,
            list(dict.fromkeys(part.kind for part in parts)),
            sorted({part.severity for part in parts}),
            clean=None if clean is None else answers_of_parts(subject, [clean], classes=classes),
            profile=shifted.profile,
            reference=reference,
            seed=seed,
        )
    )


def _labels(subject: Subject, shifted: Shifted) -> Int[np.ndarray, " theirs"]:
    """The model's label for each of theirs; `LEFT_OUT` for those that do not occur."""
    known = set(subject.class_names)
    theirs = shifted.wnids if known & set(shifted.wnids) else shifted.class_names
    labels = np.full(len(theirs), class_map.LEFT_OUT)
    occurring = [theirs[label] for label in shifted.classes]
    labels[shifted.classes] = class_map.match(occurring, subject.class_names)
    return labels


def _chosen(shifted: Shifted, kinds: Sequence[str] | None) -> Mapping[Part, Source | Encoded]:
    there = list(dict.fromkeys(part.kind for part in shifted.parts))
    if kinds is None:
        kinds = [
            kind for kind in there if shifted.profile == "mnist_c" or kind not in FOR_VALIDATION
        ]
    for kind in kinds:
        if kind not in there:
            raise unknown(f"corruption of {shifted.name}", kind, there)
    if not kinds:
        raise UserError(f"{shifted.name} holds no corruption to evaluate on; it has {there}.")
    return {part: source for part, source in shifted.parts.items() if part.kind in kinds}


def _of(split: Split, classes: Int[np.ndarray, " classes"] | None) -> Split | None:
    """The examples of some classes; None where there are none."""
    if classes is None:
        return split
    rows = split.rows[np.isin(split.labels(), classes)]
    return Split(split.name, split.source, rows) if len(rows) else None


def _natural(found: Answers, clean: Answers | None, seed: int) -> dict[str, Any]:
    """Numbers on a set that was collected, beside those on the set it is compared with."""
    n, weights = len(found), bootstrap.resamples(len(found), seed=seed)
    right, ece = found.correct[:, 0], calibration_errors(found, weights)
    scalars = Scalars(weights)
    scalars.mean("accuracy", right)
    scalars.mean("nll", found.nll[:, 0])
    scalars.set(ECE, ece.mean, ece.interval)
    if clean is None:
        for name in ("clean_accuracy", "accuracy_drop"):
            scalars.lack(name, "There are no images of these classes to compare with.")
        return {"n": n, "n_clean": 0, **scalars.report()}
    before = clean.correct[:, 0]
    hits, n_clean = int(before.sum()), len(before)
    scalars.set("clean_accuracy", hits / n_clean, bootstrap.wilson(hits, n_clean))
    # Two samples, each resampled by itself.
    of_clean = bootstrap.resampled_sums(before, bootstrap.resamples(n_clean, seed=seed + 1))
    drops = of_clean / n_clean - bootstrap.resampled_sums(right, weights) / n
    scalars.set("accuracy_drop", hits / n_clean - right.mean(), bootstrap.interval(drops))
    return {"n": n, "n_clean": n_clean, **scalars.report()}
