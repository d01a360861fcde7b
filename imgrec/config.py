"""The vocabulary: an experiment is one typed value, and a run is a pure function of it.

`Experiment` nests one level of dataclasses. A config file returns one from
`get_config(arg="")`; every field can then be set on the command line
(`--config.train.duration=2ep`). `imgrec.validation` says what the fields may hold.
"""

# The annotations are read at run time by ml_collections, so they must be real types:
# no `from __future__ import annotations` here.

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_collections import ConfigDict


@dataclass
class DataConfig:
    """Which images, from where, and how they are cut into splits and batches."""

    dataset: str = "digits"
    root: str = ""  # folder with the official files; "" is $IMGREC_DATA, else ~/.cache/imgrec
    batch_size: int = 128  # global: over all devices and hosts, before accumulation splits it
    validation: str = "10%"  # share or count cut from train; "0" for none
    split_seed: int = 0  # of the cut alone, so that seeds of a study share their splits
    test: str = "10%"  # likewise, where nobody published a split: own folders and manifests
    group: str = ""  # column of a manifest whose equal values never part between splits
    # What is left open up to `interpolation`, and augment.mean and std, is as published weights
    # that init.weights names were made with; with others, or none, as the comments say.
    image_size: int = 0  # side to resize to on the host; 0 keeps the data set's own
    channels: int = 0  # 1 or 3 that image files are converted to; 0 is 3, or what is published
    crop: str = "auto"  # "none" (the whole, squashed), "center", or "inception": random, to train
    crop_fraction: float = 0.0  # of the resized shorter side that a centre crop keeps; 0 is 0.875
    crop_area: tuple[float, float] = (0.08, 1.0)  # shares of the area an Inception crop takes
    crop_aspect: tuple[float, float] = (0.75, 4 / 3)  # width over height of it
    interpolation: str = "auto"  # "bilinear" or "bicubic", both with antialiasing
    on_bad_image: str = "error"  # or "skip": leave unreadable files out, and say how many
    options: ConfigDict = field(default_factory=ConfigDict)  # the data set's own: scenes' knobs
    holdout_classes: tuple[str, ...] = ()  # that training never sees; evaluation does, as unknown
    mixture: tuple[tuple[str, float], ...] = ()  # more sets to train on, by weight beside 1
    sampling: str = "shuffle"  # or "class_balanced": every class equally often
    per_class: int = 0  # most training images of a class; 0 is all
    imbalance: float = 1.0  # first class over last, the sizes between falling exponentially
    label_noise: float = 0.0  # share of training labels that are made wrong
    label_noise_kind: str = "symmetric"  # any wrong class; or "asymmetric": a similar one
    resident: str = "auto"  # the training set whole on the device: "on", "off", or if it fits
    workers: int = 0  # processes that read and decode beside this one; 0 for threads alone
    threads: int = 4  # that read and decode, in each process
    prefetch: int = 2  # batches held ready on the device


@dataclass
class AugmentConfig:
    """What happens to training images on the device, in this order, keyed per example."""

    random_resized_crop: bool = False  # a random box, enlarged to the image's own size
    crop_area: tuple[float, float] = (0.08, 1.0)  # shares of the area that the box takes
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)  # width over height of it
    pad_crop: int = 0  # pixels padded on each side before a random crop to the same size
    pad_mode: str = "constant"  # or "reflect"
    flip: bool = False  # left and right, with probability one half
    flip_vertical: bool = False  # top and bottom, with probability one half
    rotation: float = 0.0  # largest angle in degrees
    translate: float = 0.0  # largest shift along each axis, as a share of the side
    scale: tuple[float, float] = (1.0, 1.0)  # least and most; above 1 enlarges
    shear: float = 0.0  # largest angle in degrees, along each axis
    perspective: float = 0.0  # farthest that a corner moves along each axis, in half sides
    fill: int = 0  # level, 0 to 255, outside of what is rotated, shifted, ... or a policy moves
    policy: str = ""  # randaugment, trivialaugment, autoaugment_cifar10, augmix, three_augment, ...
    options: ConfigDict = field(default_factory=ConfigDict)  # the policy's own: n, m, severity, ...
    brightness: float = 0.0  # factors are drawn from 1 - this to 1 + this
    contrast: float = 0.0  # likewise
    saturation: float = 0.0  # likewise
    hue: float = 0.0  # largest turn, as a share of the colour circle; at most 0.5
    greyscale: float = 0.0  # probability, as all that follow up to `erasing`
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)  # pixels; drawn uniformly
    sharpen: float = 0.0
    sharpen_factor: float = 2.0  # 0 blurs, 1 changes nothing
    posterize: float = 0.0
    posterize_bits: int = 4  # that stay
    solarize: float = 0.0
    solarize_threshold: int = 128  # levels from it on are inverted
    equalize: float = 0.0
    autocontrast: float = 0.0
    invert: float = 0.0
    cutout: int = 0  # side in pixels of the square set to the mean
    erasing: float = 0.0  # probability
    erasing_area: tuple[float, float] = (0.02, 0.33)  # shares of the area that are hidden
    erasing_aspect: tuple[float, float] = (0.3, 3.3)  # width over height of the hidden box
    erasing_fill: str = "mean"  # or "noise": every level of every pixel at random
    mixup: float = 0.0  # alpha of Beta(alpha, alpha); 0 is off
    cutmix: float = 0.0  # alpha; with mixup on as well, each example draws one of the two
    mean: tuple[float, ...] = ()  # of the normalisation, on the scale [0, 1]; () is the data set's
    std: tuple[float, ...] = ()


@dataclass
class ModelConfig:
    """A registered model and the fields of its module that differ from their defaults."""

    name: str = "lenet5"
    options: ConfigDict = field(default_factory=ConfigDict)


@dataclass
class InitConfig:
    """Where parameters start from."""

    # Published weights by name ("efficientnet_lite0", see python -m imgrec.models), a run folder,
    # whose best variables are taken, or a file of weights (safetensors, a PyTorch state dict,
    # .npz of big_vision); "" is the model's own way.
    weights: str = ""
    # The head as the model begins, even where the weights have one for as many classes.
    new_head: bool = False


@dataclass
class HeadConfig:
    """How the head comes about: trained with the rest, or fitted to a fixed network's features.

    "probe" is logistic regression, "knn" a vote of the nearest neighbours, "prototype" the nearest
    class mean; with them nothing is trained by steps, and `imgrec.training.heads` says what is
    done. Options that are given several values are chosen by the validation split.
    """

    name: str = "trained"
    cache: str = ""  # folder of computed features, which runs may share; "" is the run's own
    options: ConfigDict = field(default_factory=ConfigDict)  # l2, k, temperature, metric, ...


@dataclass
class ClassifierConfig:
    """A classical classifier, fitted to features of images; no network is trained then.

    Of several values of an option the validation split chooses. `imgrec.classical` says what is
    done, and reads `data`, `features`, `seed`, `eval.batch_size` and `log` beside this.
    """

    name: str = ""  # knn, svm, linear_svm, random_forest, ...; "" is none: a network is trained
    options: ConfigDict = field(default_factory=ConfigDict)  # k, c, gamma, trees, ...


@dataclass
class FeaturesConfig:
    """What a classical classifier is given of an image."""

    # "pixels", "hog", "lbp", "colour", "edges", "gabor", "words", or several as "hog+colour"; or
    # "network": what that of init.weights hands to its head.
    name: str = "pixels"
    deskew: bool = False  # slanted strokes are set upright first, as is good for digits
    cache: str = ""  # folder of computed features, which runs may share; "" is the run's own
    options: ConfigDict = field(default_factory=ConfigDict)  # orientations, cell, cells, words, ...


@dataclass
class DistillConfig:
    """Learning from a teacher's soft labels beside the true ones (Hinton et al. 2015)."""

    teacher: str = ""  # a run folder, whose best variables teach; "" is none
    alpha: float = 0.9  # the teacher's share of the loss; the rest is the cross-entropy's
    temperature: float = 4.0  # that both are softened by


@dataclass
class OptimizerConfig:
    """An optax optimizer by name, and regex rules over parameter names.

    Rules are pairs (regex, multiplier); the first that matches a whole name
    ("stem/conv/kernel") wins, a name that none matches gets 1, and a rule that decides
    for no parameter is an error.
    """

    name: str = "sgd"
    learning_rate: float = 0.1
    weight_decay: float = 0.0
    clip_norm: float = 0.0  # of the global gradient norm; 0 is off
    weight_decay_rules: tuple[tuple[str, float], ...] = (("(.*/)?(bias|scale)", 0.0),)
    learning_rate_rules: tuple[tuple[str, float], ...] = ()
    layer_decay: float = 1.0  # multiplies the learning rate once more each layer below the head
    freeze: tuple[str, ...] = ()  # regexes of parameters that never move
    unfreeze_every: str = "0st"  # the next layer from the top thaws; 0 is all at once
    state_dtype: str = "float32"  # or "bfloat16": of momentum, the first moment
    options: ConfigDict = field(default_factory=ConfigDict)  # momentum, nesterov, b1, b2, ...


@dataclass
class ScheduleConfig:
    """The learning rate as a pure function of the step, relative to optimizer.learning_rate."""

    name: str = "cosine"
    warmup: str = "0st"  # linear from 0
    options: ConfigDict = field(default_factory=ConfigDict)


@dataclass
class TrainConfig:
    """How long, and with which arithmetic."""

    duration: str = "10ep"
    accumulate: int = 1  # parts that a batch is cut into, whose gradients are averaged
    steps_per_call: int = 1  # steps in one call of the compiled program, for a resident set
    label_smoothing: float = 0.0
    ema: float = 0.0  # decay of the moving average of parameters and statistics; 0 is off
    compute_dtype: str = "float32"  # or "bfloat16"; parameters stay float32
    bn_sync: str = "global"  # batch norm sees the whole batch; or "per_device": each its own rows
    remat: str = "none"  # "blocks" are computed again in the backward pass, or all but their "dots"
    cpu_convolutions: str = "auto"  # "native": C++ kernels; "xla"; or the faster that can be had
    cpu_fusion: str = "auto"  # XLA's CPU library fusion: "on", "off", or on for its convolutions


@dataclass
class MeshConfig:
    """Devices along each axis; one of them may be -1, the rest of what is there.

    Rules are pairs (regex, placement) over parameter names, first match wins. A placement
    is "auto" (the tensor axis cuts attention and MLPs of transformers, the fsdp axis the largest
    axis that is left of what is no vector), "replicate", "fsdp" (the largest axis that the fsdp
    axis divides, and there has to be one) or one mesh axis an array axis, as in "-,tensor" or
    "fsdp,tensor".
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    rules: tuple[tuple[str, str], ...] = ((".*", "auto"),)
    cpu_devices: int = 0  # that a host's cores are shared out to; 0: as many as are fastest


@dataclass
class EvalConfig:
    """When validation is evaluated, and which parameters the test split finally sees."""

    every: str = "1ep"
    batch_size: int = 0  # 0 is data.batch_size
    select: str = "best"  # "best" by validation accuracy, or "last"


@dataclass
class CheckpointConfig:
    """How often the whole state is saved, and how many of the latest are kept."""

    every: str = "1ep"
    keep: int = 2


@dataclass
class LogConfig:
    """How often the device is asked for its metrics."""

    every: str = "50st"
    tensorboard: bool = True


@dataclass
class Experiment:
    """Everything that decides what a run computes."""

    name: str = ""  # "" is the config file's name
    seed: int = 0
    task: str = "classification"
    imports: tuple[str, ...] = ()  # modules of your own, which register data, models and tasks
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    init: InitConfig = field(default_factory=InitConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)


def to_dict(experiment: Experiment) -> dict[str, Any]:
    """The experiment as plain JSON values, nested as its dataclasses are."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, ConfigDict | Mapping):
            return {key: plain(item) for key, item in sorted(value.items())}
        if isinstance(value, tuple | list):
            return [plain(item) for item in value]
        return value

    return plain(experiment)


def from_dict(saved: Mapping[str, Any]) -> Experiment:
    """The experiment that `to_dict` made such values of; a field that lacks has its default.

    Raises:
      ValueError: a section or field that experiments do not have.
    """

    def read(kind: Any, values: Mapping[str, Any], where: str) -> Any:
        fields = {f.name: f.type for f in dataclasses.fields(kind)}
        if others := sorted(values.keys() - fields.keys()):
            raise ValueError(f"there is no field {where}{others[0]}")
        return kind(**{name: value(fields[name], values[name], name) for name in values})

    def value(kind: Any, found: Any, name: str) -> Any:
        if dataclasses.is_dataclass(kind):
            return read(kind, found, f"{name}.")
        if kind is ConfigDict:
            return ConfigDict(found)
        return _tuples(found)

    return read(Experiment, _in_todays_words(saved), "")


def _in_todays_words(saved: Mapping[str, Any]) -> Mapping[str, Any]:
    """Values saved when the default of mesh.rules was spelt "fsdp", with the default of today."""
    mesh = saved.get("mesh", {})
    if _tuples(mesh.get("rules")) != ((".*", "fsdp"),):
        return saved
    return {**saved, "mesh": {**mesh, "rules": [[".*", "auto"]]}}


def _tuples(value: Any) -> Any:
    """Lists as tuples, throughout."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"ema": 0.9}} as {"train.ema": 0.9}; an empty mapping vanishes."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def fingerprint(experiment: Experiment) -> str:
    """Twelve hex digits that two experiments share exactly when all their fields agree."""
    # A learning rate of 1 is that of 1.0, as it is in `differences`.
    text = json.dumps(_floats_as_ints(to_dict(experiment)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _floats_as_ints(value: Any) -> Any:
    """Whole floats as ints, throughout nested dictionaries and lists."""
    if isinstance(value, dict):
        return {key: _floats_as_ints(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_floats_as_ints(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def differences(
    saved: Mapping[str, Any], now: Mapping[str, Any], default: Mapping[str, Any] | None = None
) -> list[str]:
    """One line "field: was -> is" for each field in which two `to_dict` values differ.

    A field that the saved one lacks, since it is newer, had its value of `default`, by default
    that of `Experiment()`.
    """
    defaults = flatten(to_dict(Experiment()) if default is None else default)
    was, is_now = defaults | flatten(_in_todays_words(saved)), flatten(_in_todays_words(now))
    absent = "(not set)"
    return [
        f"{name}: {was.get(name, absent)!r} -> {is_now.get(name, absent)!r}"
        for name in sorted(was.keys() | is_now.keys())
        if was.get(name, absent) != is_now.get(name, absent)
    ]
