"""A model card (Mitchell et al. 2019, "Model Cards for Model Reporting"), filled from a run.

What was measured is told with its n and interval, what was not is said to be so, and what only a
person can know is a blank. Nothing else is claimed.
"""

from collections.abc import Mapping
from typing import Any

from imgrec import config
from imgrec.config import Experiment
from imgrec.reporting import markdown
from imgrec.reporting.card_numbers import analyses, not_measured
from imgrec.reporting.markdown import escaped
from imgrec.reporting.parts import Numbers, of
from imgrec.reporting.units import duration, number, percent, quantity
from imgrec.reporting.weaknesses import weaknesses

_NO_SETTINGS = ("log.", "checkpoint.", "mesh.", "name", "data.root", "data.resident")


def model_card(
    experiment: Mapping[str, Any],
    info: Mapping[str, Any],
    metrics: Numbers,
    *,
    launch: Mapping[str, Any] | None = None,
    cost: Mapping[str, Any] | None = None,
    seconds: Mapping[str, float] | None = None,
    previous: str = "",
) -> str:
    """The card, as Markdown.

    Args:
      experiment: as `config.to_dict` has it.
      info: class_names, image_shape, and source (of the data), as far as known.
      metrics: what `metrics.json` of the test split holds.
      launch: the run's last line in `launches.jsonl`.
      cost: `cost.json`.
      seconds: `seconds.json`.
      previous: the card that this one replaces, whose filled blanks are kept.
    """
    kept = markdown.filled(previous)
    launch, cost, seconds = launch or {}, cost or {}, seconds or {}

    def blank(key: str, question: str) -> str:
        return markdown.blank(key, question, kept)

    parts = [
        f"# Model card: {escaped(experiment.get('name') or 'model')}",
        "Made from the run and its evaluation; what is measured is replaced when the run is "
        "evaluated again, and what the owner writes between the comments is kept.",
        "## Model details",
        _details(experiment, info, launch, cost),
        blank("owner", "who made the model and answers for it, and how to reach them."),
        blank("licence", "under which licence it may be used, and how to cite it."),
        "## Intended use",
        blank("intended_use", "what the model is for, and who is to use it."),
        "### Out of scope",
        _out_of_scope(info, metrics),
        blank("out_of_scope", "uses that it is not for, although it might be tried for them."),
        "## Factors",
        _factors(metrics),
        blank("factors", "groups and conditions that matter in use, and were not measured."),
        "## Metrics",
        _how_measured(metrics),
        "## Evaluation data",
        _evaluation_data(experiment, metrics),
        blank("evaluation_data", "why this data stands for the images met in use."),
        "## Training data",
        _training_data(experiment, info),
        "## Quantitative analyses",
        *analyses(metrics),
        "## Limits that were measured",
        _limits(metrics),
        "## Ethical considerations",
        blank(
            "ethics",
            "who may be harmed by a wrong answer, whether images show people, and what was done "
            "about it.",
        ),
        "## Caveats and recommendations",
        blank("caveats", "what a user should know or do besides."),
        "## Cost",
        _cost(launch, cost, seconds),
        "## How to reproduce",
        _reproduce(experiment, launch),
    ]
    return "\n\n".join(parts) + "\n"


def _details(
    experiment: Mapping[str, Any],
    info: Mapping[str, Any],
    launch: Mapping[str, Any],
    cost: Mapping[str, Any],
) -> str:
    shape, names = info.get("image_shape"), info.get("class_names") or ()
    rows = [
        ("architecture", _architecture(experiment)),
        ("parameters", _count(cost.get("parameters"))),
        ("input", " x ".join(map(str, shape)) + " (height, width, channels)" if shape else None),
        ("output", f"one of {len(names):,} classes" if names else None),
        ("trained", launch.get("started")),
        ("initial weights", _at(experiment, "init", "weights") or "none: from scratch"),
        ("seed", experiment.get("seed")),
    ]
    text = markdown.table(("", ""), [(name, _known(value)) for name, value in rows])
    if names:
        some = ", ".join(map(escaped, names[:50]))
        text += f"\n\nClasses: {some}" + (
            f", and {len(names) - 50:,} more." if len(names) > 50 else "."
        )
    return text


def _out_of_scope(info: Mapping[str, Any], metrics: Numbers) -> str:
    names = info.get("class_names") or ()
    which = f"one of its {len(names):,} classes" if names else "one of its classes"
    text = f"The model always names {which}, whatever an image shows."
    unseen = _unseen(metrics)
    return f"{text} {unseen}" if unseen else f"{text} {not_measured('unseen', metrics)}"


def _unseen(metrics: Numbers) -> str:
    sentences = []
    for name, found in (metrics.get("unseen") or {}).get("sets", {}).items():
        best = found.get("best_score")
        if best is None:
            continue
        score = found["scores"][best]
        auroc = number(score["auroc"], of(score, "auroc"))
        sentences.append(
            f"Images of {escaped(name)} (n {found['n_ood']:,}) are told from its own (n "
            f"{found['n']:,}) by {escaped(score.get('title', best))} with an AUROC of {auroc}."
        )
    return " ".join(sentences)


def _factors(metrics: Numbers) -> str:
    found = metrics.get("groups")
    if not found:
        return not_measured("groups", metrics)
    names = [*found["columns"], *found["intersections"]]
    if not names:
        return "No column of the data and no measure of the images was evaluated by groups."
    text = "Evaluated by groups of: " + ", ".join(map(escaped, names)) + "."
    refused = [f"{escaped(name)}: {escaped(why)}" for name, why in found["refused"].items()]
    return text + ("\n\n" + markdown.listed(refused) if refused else "")


def _how_measured(metrics: Numbers) -> str:
    text = (
        "Accuracy is the share of images whose likeliest class is the label; balanced accuracy "
        "the mean of it over classes. Brackets are 95 % intervals from resampling the test images "
        "(Wilson's for shares of groups). They tell how sure the numbers are of this network, not "
        "how another seed of the same recipe would do."
    )
    selective = (metrics.get("selective") or {}).get("max_softmax") or {}
    chosen = [t for t in selective.get("thresholds", ()) if t.get("threshold") is not None]
    if not chosen:
        return text + " There is no decision threshold: the likeliest class is the answer."
    rows = [
        (
            percent(t["target_risk"], digits=0),
            t["chosen"],
            f"{t['threshold']:.4f}",
            percent(t["coverage"], of(t, "coverage")),
            percent(t["risk"], of(t, "risk")),
        )
        for t in chosen
    ]
    header = ("errors aimed at", "chosen", "least confidence", "images answered", "errors of them")
    return f"{text}\n\nThresholds of confidence, chosen on validation:\n\n" + markdown.table(
        header, rows
    )


def _evaluation_data(experiment: Mapping[str, Any], metrics: Numbers) -> str:
    rows = [
        ("data set", metrics.get("dataset") or _at(experiment, "data", "dataset")),
        ("split", metrics.get("split")),
        ("images", _count(metrics.get("n"))),
        ("source", metrics.get("source")),
        ("parameters of step", _count(metrics.get("step"))),
    ]
    return markdown.table(("", ""), [(name, _known(value)) for name, value in rows])


def _training_data(experiment: Mapping[str, Any], info: Mapping[str, Any]) -> str:
    name = escaped(_known(_at(experiment, "data", "dataset")))
    source = f": {escaped(info['source'])}" if info.get("source") else ""
    return (
        f"The training split of {name}{source}. Its data sheet tells more. Validation images "
        f"(config.data.validation {escaped(_known(_at(experiment, 'data', 'validation')))}) were "
        "held out of training; what was chosen was chosen by them."
    )


def _limits(metrics: Numbers) -> str:
    found = weaknesses(metrics)
    if not found:
        return "None could be told from what was measured, which does not mean that there are none."
    return markdown.listed(found)


def _cost(launch: Mapping[str, Any], cost: Mapping[str, Any], seconds: Mapping[str, float]) -> str:
    devices = launch.get("devices") or []
    rows = [
        ("compute to train, forward and backward", quantity(cost.get("flops"), "FLOP")),
        ("time in all", duration(seconds.get("total"))),
        ("device", f"{len(devices)} x {devices[0]}" if devices else "–"),
        ("processor", _known(launch.get("processor"))),
    ]
    text = markdown.table(("", ""), rows)
    return (
        f"{text}\n\nCompute is counted by the compiler before it optimises, without evaluation. "
        "Energy was not measured."
    )


def _reproduce(experiment: Mapping[str, Any], launch: Mapping[str, Any]) -> str:
    parts = []
    if command := launch.get("command"):
        parts.append(markdown.code(command))
    else:
        parts.append("The command is not known: there is no launches.jsonl.")
    revision = launch.get("git_revision")
    said = f"Git revision {escaped(_known(revision))}"
    if launch.get("git_dirty"):
        said += ", with changes that are in git.diff of the run folder"
    packages = launch.get("packages") or {}
    versions = ", ".join(f"{escaped(k)} {escaped(v)}" for k, v in packages.items() if v)
    parts.append(f"{said}. {f'With {versions}.' if versions else ''}".strip())
    changed = _settings(experiment)
    if changed:
        parts.append("Settings that differ from the defaults (config.json has all):")
        parts.append(markdown.table(("field", "value"), changed))
    return "\n\n".join(parts)


def _settings(experiment: Mapping[str, Any]) -> list[tuple[str, str]]:
    defaults = config.flatten(config.to_dict(Experiment()))
    return [
        (name, str(value))
        for name, value in config.flatten(experiment).items()
        if value != defaults.get(name) and not name.startswith(_NO_SETTINGS)
    ]


def _architecture(experiment: Mapping[str, Any]) -> Any:
    """The network, or the classical classifier with its features."""
    classifier, network = _at(experiment, "classifier", "name"), _at(experiment, "model", "name")
    if not classifier:
        return network
    name = _at(experiment, "features", "name")
    return f"{classifier} on features: {f'{network}, pre_logits' if name == 'network' else name}"


def _at(experiment: Mapping[str, Any], section: str, field: str) -> Any:
    return (experiment.get(section) or {}).get(field)


def _count(value: Any) -> str | None:
    return None if value is None else f"{value:,}"


def _known(value: Any) -> str:
    return "–" if value is None or value == "" else str(value)
