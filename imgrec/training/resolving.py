"""What an experiment leaves open, filled in, so that what is saved says what was used.

How images are prepared belongs to published weights: their size, crop, interpolation and
normalisation are taken where the configuration leaves them open. What it sets stays, and is
said aloud where the weights were made otherwise.
"""

import dataclasses

from imgrec import data
from imgrec.config import AugmentConfig, DataConfig, Experiment
from imgrec.errors import UserError
from imgrec.transfer import pretrained
from imgrec.transfer.pretrained import Preprocessing, Pretrained


def resolve(experiment: Experiment) -> Experiment:
    """The experiment with its open choices of preprocessing made; of a resolved one, itself.

    Args:
      experiment: a valid one, which is left as it is.

    Raises:
      UserError: `init.weights` names weights of another model.
    """
    weights = pretrained.named(experiment.init.weights)
    chosen, augment = experiment.data, experiment.augment
    if weights is not None:
        _check_model(experiment, weights)
        chosen = _prepared(chosen, weights.preprocessing)
        augment = _normalised(augment, weights.preprocessing)
    view = data.view_of(chosen, chosen.channels)
    chosen = dataclasses.replace(
        chosen,
        crop=view.crop,
        crop_fraction=view.crop_fraction,
        interpolation=view.interpolation,
    )
    return dataclasses.replace(experiment, data=chosen, augment=augment)


def said(experiment: Experiment) -> tuple[str, ...]:
    """How the images of a resolved experiment are prepared beside how its weights' were.

    Returns:
      Lines for people; none where no published weights are named.
    """
    weights = pretrained.named(experiment.init.weights)
    if weights is None:
        return ()
    wanted = _fields(
        _prepared(DataConfig(), weights.preprocessing),
        _normalised(AugmentConfig(), weights.preprocessing),
    )
    used = _fields(experiment.data, experiment.augment)
    same = [f"{name}={used[name]}" for name in used if used[name] == wanted[name]]
    other = [
        f"  OTHER PREPROCESSING: {name}={used[name]}, as configured; these weights were evaluated "
        f"with {wanted[name]}"
        for name in used
        if used[name] != wanted[name]
    ]
    return (*([f"  prepared as these weights were: {', '.join(same)}"] if same else []), *other)


def _check_model(experiment: Experiment, weights: Pretrained) -> None:
    if experiment.model.name != weights.model:
        raise UserError(
            f"config.init.weights={experiment.init.weights!r} are weights of the model "
            f"{weights.model!r}, and config.model.name is {experiment.model.name!r}. Set "
            f"--config.model.name={weights.model}, or other weights."
        )


def _prepared(config: DataConfig, preprocessing: Preprocessing) -> DataConfig:
    p = preprocessing
    return dataclasses.replace(
        config,
        image_size=config.image_size or p.image_size,
        channels=config.channels or 3,
        crop="center" if config.crop == "auto" else config.crop,
        crop_fraction=config.crop_fraction or p.crop_fraction,
        interpolation=(p.interpolation if config.interpolation == "auto" else config.interpolation),
    )


def _normalised(config: AugmentConfig, preprocessing: Preprocessing) -> AugmentConfig:
    if config.mean or config.std:
        return config
    return dataclasses.replace(config, mean=preprocessing.mean, std=preprocessing.std)


def _fields(chosen: DataConfig, augment: AugmentConfig) -> dict[str, str]:
    """What `resolve` decides, by name and as text, for the images that are evaluated."""
    fields = {
        "data.image_size": str(chosen.image_size),
        "data.channels": str(chosen.channels),
        "data.crop": "center" if chosen.crop == "inception" else chosen.crop,
        "data.crop_fraction": f"{chosen.crop_fraction:.4g}",
        "data.interpolation": chosen.interpolation,
        "augment.mean": _numbers(augment.mean),
        "augment.std": _numbers(augment.std),
    }
    if chosen.crop == "none":
        del fields["data.crop_fraction"]
    return fields


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
