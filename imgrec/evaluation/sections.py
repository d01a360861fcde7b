"""The sections of a report: which numbers each is made of."""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from imgrec.data import Split
from imgrec.errors import unknown
from imgrec.evaluation import explanations, galleries, metrics, ranking
from imgrec.evaluation.confidence.calibration import calibration
from imgrec.evaluation.confidence.conformal import conformal
from imgrec.evaluation.confidence.selective import selective
from imgrec.evaluation.explanations import sanity
from imgrec.evaluation.features.representations import likeness, representations
from imgrec.evaluation.groups import image_columns
from imgrec.evaluation.groups.groups import groups
from imgrec.evaluation.groups.imbalance import imbalance
from imgrec.evaluation.label_errors import label_errors
from imgrec.evaluation.robustness.adversarial import adversarial
from imgrec.evaluation.robustness.benchmark import corruption_benchmark
from imgrec.evaluation.robustness.dose_response import dose_response
from imgrec.evaluation.robustness.published import published_benchmark
from imgrec.evaluation.robustness.sweeps import sweep
from imgrec.evaluation.suite import Evaluated, Found, MissingError, Options, Section
from imgrec.evaluation.unknown import odin
from imgrec.evaluation.unknown.new_classes import new_classes
from imgrec.evaluation.unknown.open_set import open_set
from imgrec.evaluation.unknown.unseen import unseen

RESAMPLES = 1000
_SHOWN = 24  # suspects whose images are shown
_EXPLAINED = 8  # images whose answers are explained
_SWEPT = 2_000  # images, at most, that every dial is turned of
_ATTACKED = 1_000
_QUICK = ("grad_cam", "grad_cam_plus_plus", "hires_cam", "rollout")  # explanations of one pass
_QUERIES = 1_000  # of retrieval in the standard suite; the full one lets all images ask
_NOT_GROUPS = ("clean_label",)  # columns that tell of labels, not of images


def _classification(e: Evaluated) -> dict[str, Any]:
    p = e.predictions
    return metrics.classification(
        p.logits, p.label, e.class_names, resamples=RESAMPLES, seed=e.options.seed
    )


def _ranking(e: Evaluated) -> dict[str, Any]:
    p, count = e.predictions, 500 if _full(e.options) else 200
    return ranking.ranking(p.logits, p.label, e.class_names, resamples=count, seed=e.options.seed)


def _by_validation(section: Callable[..., dict[str, Any]]) -> Callable[[Evaluated], dict[str, Any]]:
    """A section that fits something on validation, and does with less where there is none."""

    def run(e: Evaluated) -> dict[str, Any]:
        p = e.predictions
        try:
            v = e.validation
        except MissingError:
            return section(p.logits, p.label, seed=e.options.seed)
        return section(p.logits, p.label, v.logits, v.label, seed=e.options.seed)

    return run


def _conformal(e: Evaluated) -> dict[str, Any]:
    p, v = e.predictions, e.validation
    return conformal(p.logits, p.label, v.logits, v.label, e.class_names, seed=e.options.seed)


def _imbalance(e: Evaluated) -> dict[str, Any]:
    p = e.predictions
    counts = np.bincount(e.dataset.train.labels(), minlength=len(e.class_names))
    given: tuple[Any, ...] = ()
    with contextlib.suppress(MissingError):
        given = (e.validation.logits, e.validation.label)
    return imbalance(p.logits, p.label, e.class_names, counts, *given, seed=e.options.seed)


def _groups(e: Evaluated) -> dict[str, Any]:
    p, known = e.predictions, e.split.columns()
    if absent := [name for name in e.options.columns if name not in known]:
        if not known:
            raise MissingError(f"the data set has no column {absent[0]!r}, nor any other")
        raise unknown("column of groups", absent[0], known)
    wanted = e.options.columns or [name for name in known if name not in _NOT_GROUPS]
    # What somebody told of the images goes before what is measured of them.
    columns = image_columns.derived_columns(e.split) | {name: known[name] for name in wanted}
    return groups(p.logits, p.label, e.class_names, columns, seed=e.options.seed)


def _label_errors(e: Evaluated) -> Found:
    if e.split.name == "train":
        raise MissingError("the model was trained on these labels, and believes them")
    p, clean = e.predictions, e.split.columns().get("clean_label")
    found = label_errors(p.logits, p.label, e.class_names, clean, seed=e.options.seed)
    shown = found["suspects"][:_SHOWN]
    if not shown:
        return Found(found)
    images = e.split.gather(np.array([s["index"] for s in shown]))["image"]
    captions = [f"{s['given']}\n{s['suggested']}?\n{100 * s['probability']:.0f} %" for s in shown]
    return Found(found, {"images": images, "captions": captions})


def _robustness(e: Evaluated) -> dict[str, Any]:
    return corruption_benchmark(
        e.subject,
        e.split,
        seed=e.options.seed,
        reference=e.options.reference,
        progress=functools.partial(e.progress, "batches under corruptions"),
    )


def _sweeps(e: Evaluated) -> dict[str, Any]:
    return sweep(
        e.subject,
        e.part(_SWEPT),
        seed=e.options.seed,
        progress=functools.partial(e.progress, "batches with turned dials"),
    )


def _adversarial(e: Evaluated) -> dict[str, Any]:
    return adversarial(
        e.subject,
        e.part(_ATTACKED),
        seed=e.options.seed,
        progress=functools.partial(e.progress, "batches under attack"),
    )


def _dose_response(e: Evaluated) -> dict[str, Any]:
    assert e.options.rendered is not None
    return dose_response(
        e.subject,
        e.options.rendered,
        most=_SWEPT,
        seed=e.options.seed,
        progress=functools.partial(e.progress, "doses"),
    )


def _published(e: Evaluated) -> dict[str, Any]:
    found = {
        name: published_benchmark(
            e.subject,
            shifted,
            clean=e.split,
            seed=e.options.seed,
            progress=functools.partial(e.progress, f"batches of {name}"),
        )
        for name, shifted in e.options.shifted.items()
    }
    return {"n": sum(each["n"] for each in found.values()), "sets": found}


def _unseen(e: Evaluated) -> dict[str, Any]:
    if e.split is not e.dataset.test:
        raise MissingError("other data sets are compared with the run's own test split")
    validation = e.validation_outputs if e.dataset.validation else None
    return unseen(
        train=e.train_sample,
        validation=validation,
        test=e.outputs,
        ood={name: e.outputs_of(split) for name, split in e.options.unknown.items()},
        variables=e.subject.variables,
        odin=_odin(e, {"test": e.split, **e.options.unknown}),
        seed=e.options.seed,
    )


def _open_set(e: Evaluated) -> dict[str, Any]:
    held_out = _held_out(e)
    return open_set(
        train=e.train_sample,
        validation=e.validation_outputs if e.dataset.validation else None,
        test=e.outputs,
        held_out=e.outputs_of(held_out),
        held_out_names=e.dataset.info.held_out_names,
        variables=e.subject.variables,
        odin=_odin(e, {"test": e.split, "held_out": held_out}),
        seed=e.options.seed,
    )


def _new_classes(e: Evaluated) -> dict[str, Any]:
    held_out, more = _held_out(e), e.dataset.held_out_train
    assert more is not None
    return new_classes(
        train=e.train_sample,
        test=e.outputs,
        held_out_train=e.outputs_of(more),
        held_out=e.outputs_of(held_out),
        held_out_names=e.dataset.info.held_out_names,
        seed=e.options.seed,
    )


def _held_out(e: Evaluated) -> Split:
    if e.split is not e.dataset.test or e.dataset.held_out is None:
        raise MissingError(
            "classes held out of training are compared with the run's own test split"
        )
    return e.dataset.held_out


def _odin(e: Evaluated, splits: Mapping[str, Split]) -> Mapping[str, Any] | None:
    if e.dataset.validation is None:
        return None
    return odin.measure(e.subject, e.dataset.validation, splits, e.options.seed)


def _representations(e: Evaluated) -> dict[str, Any]:
    if e.split.name == "train":
        raise MissingError("each training image would be its own nearest neighbour")
    own = e.dataset.validation is not None and e.split.name != "validation"
    return representations(
        train=e.train_sample,
        validation=e.validation_outputs if own else None,
        test=e.outputs,
        class_names=e.class_names,
        seed=e.options.seed,
    )


def _likeness(e: Evaluated) -> dict[str, Any]:
    return likeness(
        e.outputs,
        e.class_names,
        tsne=e.options.projection,
        queries=0 if _full(e.options) else _QUERIES,
        seed=e.options.seed,
    )


def _galleries(e: Evaluated) -> Found:
    p = e.predictions
    found = galleries.galleries(p.logits, p.label, features=e.outputs["features"])
    lists = {name: found[name] for name in ("confidently_wrong", "least_certain")}
    for name in ("prototypes", "hardest"):
        lists[name] = [example for each in found[name] for example in each["examples"]]
    material = {
        name: {"images": galleries.pictures(e.split, chosen), "captions": _captions(e, chosen)}
        for name, chosen in lists.items()
        if chosen
    }
    return Found({**found, "class_names": list(e.class_names)}, material)


def _captions(e: Evaluated, chosen: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{e.class_names[c['true']]}\n"
        + ("right" if c["true"] == c["predicted"] else f"said {e.class_names[c['predicted']]}")
        + f"\n{100 * c['confidence']:.0f} %"
        for c in chosen
    ]


def _explanations(e: Evaluated) -> Found:
    """Of the surest mistakes, and of the surest right answers to as many other classes."""
    p = e.predictions
    found = galleries.galleries(p.logits, p.label, count=_EXPLAINED // 2)
    right = [c["examples"][0] for c in found["prototypes"] if c["examples"]]
    chosen = [*found["confidently_wrong"], *right][:_EXPLAINED]
    if not chosen:
        raise MissingError("no image has finite logits")
    images = galleries.pictures(e.split, chosen)
    said = np.array([c["predicted"] for c in chosen])
    wanted = None if _full(e.options) else _QUICK
    explained = explanations.explain(e.subject, images, said, wanted)
    material: dict[str, Any] = {
        "images": images,
        "captions": _captions(e, chosen),
        "maps": explained.maps,
        "methods": explanations.METHODS,
    }
    numbers = explained.summary()
    if wanted is not None:
        others = [m.title for name, m in explanations.METHODS.items() if name not in wanted]
        numbers["notes"].append(f"With --suite=full also: {', '.join(others)}.")
    if _full(e.options):
        seed = e.options.seed
        numbers["sanity"] = {
            "deletion": sanity.deletion(e.subject, images, said, explained, seed=seed),
            "randomisation": sanity.randomisation(e.subject, images, said, seed=seed),
        }
    try:
        material["filters"] = explanations.first_filters(e.subject)
    except explanations.UnsupportedError as error:
        numbers["left_out"]["filters"] = str(error)
    return Found(numbers, material)


def _full(options: Options) -> bool:
    return options.suite == "full"


# In this order: what asks for the test images alone comes while other passes still go on.
ALL = (
    Section("classification", "classification", _classification),
    Section("calibration", "calibration", _by_validation(calibration)),
    Section("selective", "rejecting the unsure", _by_validation(selective)),
    Section("conformal", "prediction sets", _conformal),
    Section("imbalance", "frequent and rare classes", _imbalance),
    Section("groups", "groups of images", _groups),
    Section("label_errors", "likely label errors", _label_errors),
    Section("ranking", "ranking", _ranking),
    Section("galleries", "pictures", _galleries),
    Section("explanations", "what answers rest on", _explanations),
    Section("likeness", "likeness of features", _likeness),
    Section("robustness", "corrupted images", _robustness, _full),
    Section("sweeps", "turned dials", _sweeps, _full),
    Section(
        "dose_response",
        "exact doses",
        _dose_response,
        lambda o: _full(o) and o.rendered is not None,
    ),
    Section("published", "published shifted sets", _published, lambda o: bool(o.shifted)),
    Section("adversarial", "attacks", _adversarial, lambda o: _full(o) or o.adversarial),
    Section("representations", "features", _representations),
    Section("unseen", "unknown images", _unseen, lambda o: bool(o.unknown)),
    Section("open_set", "unknown classes", _open_set, lambda o: o.held_out),
    Section("new_classes", "new classes", _new_classes, lambda o: o.held_out),
)
