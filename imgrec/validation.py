"""What the fields of an experiment may hold, whatever the data, the model and the devices.

What depends on those is checked by `imgrec.training.plan`, before any work begins too.
"""

import dataclasses
import math
import re
import typing
from typing import Any

from imgrec import durations
from imgrec.config import AugmentConfig, Experiment, FeaturesConfig
from imgrec.errors import UserError, unknown


def validate(experiment: Experiment) -> None:
    """Refuses wrong types and values that no data, model or device could make possible.

    Raises:
      UserError: naming the field, what was given and what was expected.
    """
    _check_types(experiment, Experiment, "")
    c = experiment
    one_of = {
        "augment.pad_mode": (c.augment.pad_mode, ("constant", "reflect")),
        "augment.erasing_fill": (c.augment.erasing_fill, ("mean", "noise")),
        "train.compute_dtype": (c.train.compute_dtype, ("float32", "bfloat16")),
        "train.bn_sync": (c.train.bn_sync, ("global", "per_device")),
        "train.remat": (c.train.remat, ("none", "blocks", "dots")),
        "optimizer.state_dtype": (c.optimizer.state_dtype, ("float32", "bfloat16")),
        "train.cpu_convolutions": (c.train.cpu_convolutions, ("auto", "native", "xla")),
        "train.cpu_fusion": (c.train.cpu_fusion, ("auto", "on", "off")),
        "eval.select": (c.eval.select, ("best", "last")),
        "data.crop": (c.data.crop, ("auto", "none", "center", "inception")),
        "data.sampling": (c.data.sampling, ("shuffle", "class_balanced")),
        "data.label_noise_kind": (c.data.label_noise_kind, ("symmetric", "asymmetric")),
        "data.resident": (c.data.resident, ("auto", "on", "off")),
        "data.interpolation": (c.data.interpolation, ("auto", "bilinear", "bicubic")),
        "data.on_bad_image": (c.data.on_bad_image, ("error", "skip")),
    }
    for name, (value, choices) in one_of.items():
        if value not in choices:
            raise unknown(f"value of config.{name}", value, choices)

    inf = float("inf")
    within = {
        "seed": (c.seed, 0, 2**32 - 1),
        "data.batch_size": (c.data.batch_size, 1, inf),
        "data.split_seed": (c.data.split_seed, 0, 2**32 - 1),
        "data.image_size": (c.data.image_size, 0, inf),
        "data.channels": (c.data.channels, 0, 4),
        "data.crop_fraction": (c.data.crop_fraction or 1, 0.01, 1),
        "data.crop_area": (c.data.crop_area[0], 0, c.data.crop_area[1]),
        "data.crop_area[1]": (c.data.crop_area[1], 1e-6, 1),
        "data.crop_aspect": (c.data.crop_aspect[0], 1e-3, c.data.crop_aspect[1]),
        "data.crop_aspect[1]": (c.data.crop_aspect[1], 1e-3, 1e3),
        "data.per_class": (c.data.per_class, 0, inf),
        "data.imbalance": (c.data.imbalance, 1, inf),
        "data.label_noise": (c.data.label_noise, 0, 1),
        "data.workers": (c.data.workers, 0, 1024),
        "data.threads": (c.data.threads, 1, inf),
        "data.prefetch": (c.data.prefetch, 1, inf),
        **_augment_limits(c.augment),
        "optimizer.learning_rate": (c.optimizer.learning_rate, 0, inf),
        "optimizer.weight_decay": (c.optimizer.weight_decay, 0, inf),
        "optimizer.clip_norm": (c.optimizer.clip_norm, 0, inf),
        "optimizer.layer_decay": (c.optimizer.layer_decay, 1e-3, 1),
        "distill.alpha": (c.distill.alpha, 0, 1),
        "distill.temperature": (c.distill.temperature, 1e-2, 1e3),
        "train.steps_per_call": (c.train.steps_per_call, 1, inf),
        "train.accumulate": (c.train.accumulate, 1, inf),
        "train.label_smoothing": (c.train.label_smoothing, 0, 0.999),
        "train.ema": (c.train.ema, 0, 0.999999),
        "mesh.data": (c.mesh.data, -1, inf),
        "mesh.fsdp": (c.mesh.fsdp, -1, inf),
        "mesh.tensor": (c.mesh.tensor, -1, inf),
        "mesh.cpu_devices": (c.mesh.cpu_devices, 0, inf),
        "eval.batch_size": (c.eval.batch_size, 0, inf),
        "checkpoint.keep": (c.checkpoint.keep, 1, inf),
    }
    for name, (number, low, high) in within.items():
        if not (low <= number <= high and math.isfinite(number)):
            limits = f"at least {low:g}" if high == inf else f"between {low:g} and {high:g}"
            raise UserError(f"config.{name}={number} is impossible; it must be {limits}.")
    for name, weight in c.data.mixture:
        if not (0 < weight < inf):
            raise UserError(
                f"config.data.mixture gives {name!r} the weight {weight}; expected > 0."
            )
    if c.data.mixture and c.data.sampling != "shuffle":
        raise UserError(
            "config.data.mixture draws by the weights of its data sets, and "
            f"config.data.sampling={c.data.sampling!r} by classes; set one of them."
        )
    if c.data.per_class and c.data.imbalance > 1:
        raise UserError(
            "config.data.per_class makes all classes equally large, and config.data.imbalance "
            "unequally; set one of them."
        )
    _check_classical(c)
    if c.data.workers and c.data.resident == "on":
        raise UserError(
            "config.data.workers read batches on the host, which config.data.resident='on' "
            "leaves nothing to do; set one of them."
        )
    axes = (c.mesh.data, c.mesh.fsdp, c.mesh.tensor)
    if 0 in axes or axes.count(-1) > 1:
        raise UserError(
            f"config.mesh is data={axes[0]}, fsdp={axes[1]}, tensor={axes[2]}; each axis takes "
            "a positive number of devices, and at most one of them -1 (all that are left)."
        )
    for name, text in {
        "train.duration": c.train.duration,
        "schedule.warmup": c.schedule.warmup,
        "optimizer.unfreeze_every": c.optimizer.unfreeze_every,
        "eval.every": c.eval.every,
        "checkpoint.every": c.checkpoint.every,
        "log.every": c.log.every,
    }.items():
        duration = durations.parse(text, f"config.{name}")
        may_be_none = ("schedule.warmup", "optimizer.unfreeze_every")
        if duration.amount == 0 and name not in may_be_none:
            raise UserError(f"config.{name}={text!r} must be longer than nothing.")
    if durations.parse(c.train.duration).unit == "%":
        raise UserError("config.train.duration must be in ep, st or ex: '%' is a share of it.")
    for name, rules in {
        "optimizer.weight_decay_rules": [rule[0] for rule in c.optimizer.weight_decay_rules],
        "optimizer.learning_rate_rules": [rule[0] for rule in c.optimizer.learning_rate_rules],
        "optimizer.freeze": c.optimizer.freeze,
        "mesh.rules": [rule[0] for rule in c.mesh.rules],
    }.items():
        for regex in rules:
            try:
                re.compile(regex)
            except re.error as error:
                raise UserError(f"config.{name}: {regex!r} is no regex ({error}).") from None
    if len(c.augment.mean) != len(c.augment.std):
        raise UserError("config.augment.mean and config.augment.std need the same length.")


def _check_classical(c: Experiment) -> None:
    """A classical classifier is alone, and what only it reads is set for it only."""
    if c.classifier.name:
        others = {
            "head.name": (c.head.name, "trained"),
            "distill.teacher": (c.distill.teacher, ""),
        }
        for name, (value, default) in others.items():
            if value != default:
                raise UserError(
                    f"config.{name}={value!r} is about a network, and config.classifier.name="
                    f"{c.classifier.name!r} fits a classical classifier; set one of them."
                )
        if (c.features.name == "network") != bool(c.init.weights):
            raise UserError(
                f"config.features.name={c.features.name!r} with config.init.weights="
                f"{c.init.weights!r}: features of a network are those of named weights, as in "
                "--config.features.name=network --config.init.weights=runs/mnist_lenet; features "
                "by hand have none."
            )
        return
    unset = FeaturesConfig()
    for field in dataclasses.fields(FeaturesConfig):
        if getattr(c.features, field.name) != getattr(unset, field.name):
            raise UserError(
                f"config.features.{field.name} is set, and only a classical classifier reads it. "
                "Set --config.classifier.name=svm, or another of imgrec.classical."
            )
    if c.classifier.options:
        raise UserError(
            f"config.classifier.options.{min(c.classifier.options)} is set without a "
            "classifier. Set --config.classifier.name=svm, or another of imgrec.classical."
        )


def _augment_limits(a: AugmentConfig) -> dict[str, tuple[int | float, ...]]:
    """Value, least and most of each number, by name."""
    limits: dict[str, tuple[int | float, ...]] = {
        "pad_crop": (a.pad_crop, 0, math.inf),
        "rotation": (a.rotation, 0, 180),
        "translate": (a.translate, 0, 1),
        "shear": (a.shear, 0, 44),  # at 45 along both axes nothing is left of the image
        "perspective": (a.perspective, 0, 0.45),  # from 0.5 on corners may fall in one line
        "fill": (a.fill, 0, 255),
        "brightness": (a.brightness, 0, 10),
        "contrast": (a.contrast, 0, 10),
        "saturation": (a.saturation, 0, 10),
        "hue": (a.hue, 0, 0.5),
        "sharpen_factor": (a.sharpen_factor, 0, 10),
        "posterize_bits": (a.posterize_bits, 0, 8),
        "solarize_threshold": (a.solarize_threshold, 0, 256),
        "cutout": (a.cutout, 0, math.inf),
        "mixup": (a.mixup, 0, math.inf),
        "cutmix": (a.cutmix, 0, math.inf),
    }
    for name in (
        "greyscale",
        "blur",
        "sharpen",
        "posterize",
        "solarize",
        "equalize",
        "autocontrast",
        "invert",
        "erasing",
    ):
        limits[name] = (getattr(a, name), 0, 1)
    for name, low, high in (
        ("crop_area", 1e-6, 1),
        ("crop_aspect", 1e-3, 1e3),
        ("scale", 0.1, 10),
        ("blur_sigma", 0.05, 20),
        ("erasing_area", 1e-6, 1),
        ("erasing_aspect", 1e-3, 1e3),
    ):
        least, most = getattr(a, name)
        limits[f"{name}[0]"] = (least, low, most)
        limits[f"{name}[1]"] = (most, low, high)
    return {f"augment.{name}": limit for name, limit in limits.items()}


def _check_types(value: Any, expected: Any, path: str) -> None:
    """Checks a value against a dataclass annotation, recursively."""
    if dataclasses.is_dataclass(value) and type(value) is expected:
        names = [f.name for f in dataclasses.fields(value)]
        for name in vars(value):
            if name not in names:
                raise unknown(f"field of config{path}", name, names)
        for f in dataclasses.fields(value):
            _check_types(getattr(value, f.name), f.type, f"{path}.{f.name}")
        return
    origin, args = typing.get_origin(expected), typing.get_args(expected)
    if origin is tuple:
        good = isinstance(value, tuple)
        if good and len(args) == 2 and args[1] is Ellipsis:
            for i, item in enumerate(value):
                _check_types(item, args[0], f"{path}[{i}]")
        elif good and len(value) == len(args):
            for i, (item, kind) in enumerate(zip(value, args, strict=True)):
                _check_types(item, kind, f"{path}[{i}]")
        else:
            good = False
    elif expected is float:
        good = isinstance(value, int | float) and not isinstance(value, bool)
    elif expected is int:
        good = isinstance(value, int) and not isinstance(value, bool)
    else:
        good = isinstance(value, expected)
    if not good:
        wanted = getattr(expected, "__name__", None) if origin is None else str(expected)
        raise UserError(
            f"config{path}={value!r} has the type {type(value).__name__}; expected {wanted}."
        )
