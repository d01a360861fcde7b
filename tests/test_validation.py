import dataclasses
import re

import pytest
from ml_collections import ConfigDict

from imgrec.config import Experiment, ModelConfig
from imgrec.errors import UserError
from imgrec.validation import validate

SECTIONS = [f.name for f in dataclasses.fields(Experiment) if dataclasses.is_dataclass(f.type)]
FIELDS = [
    f"{outer.name}.{inner.name}" if outer.name in SECTIONS else outer.name
    for outer in dataclasses.fields(Experiment)
    for inner in (dataclasses.fields(outer.type) if outer.name in SECTIONS else [outer])
]


def with_field(name, value):
    experiment = Experiment()
    section, _, field = name.rpartition(".")
    setattr(getattr(experiment, section) if section else experiment, field, value)
    return experiment


def test_the_defaults_are_valid():
    validate(Experiment())


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_refuses_another_type(name):
    with pytest.raises(UserError, match=re.escape(f"config.{name}=") + ".*has the type") as refusal:
        validate(with_field(name, None))
    assert "NoneType; expected" in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seed", True, "config.seed=True has the type bool; expected int"),
        ("seed", 1.0, "config.seed=1.0 has the type float; expected int"),
        ("train.ema", "0.9", "config.train.ema='0.9' has the type str; expected float"),
        ("train.ema", False, "config.train.ema=False has the type bool; expected float"),
        ("augment.flip", 1, "config.augment.flip=1 has the type int; expected bool"),
        ("augment.mean", [0.5], "config.augment.mean=[0.5] has the type list; expected tuple"),
        ("augment.mean", (0.5, "x"), "config.augment.mean[1]='x' has the type str"),
        ("optimizer.freeze", "stem", "config.optimizer.freeze='stem' has the type str"),
        ("mesh.rules", (("a",),), "config.mesh.rules[0]=('a',) has the type tuple"),
        ("mesh.rules", (("a", 1),), "config.mesh.rules[0][1]=1 has the type int; expected str"),
        ("model.options", {}, "config.model.options={} has the type dict; expected ConfigDict"),
        ("train", ModelConfig(), "has the type ModelConfig; expected TrainConfig"),
        ("mesh.rules", ModelConfig(), "has the type ModelConfig; expected tuple"),
    ],
)
def test_says_which_type_was_expected(name, value, message):
    with pytest.raises(UserError, match=re.escape(message)):
        validate(with_field(name, value))


def test_a_whole_number_is_a_float():
    validate(with_field("optimizer.learning_rate", 1))
    validate(with_field("optimizer.learning_rate_rules", (("head/.*", 10),)))


@pytest.mark.parametrize(("section", "meant"), [("", "seed"), ("train", "ema")])
def test_refuses_a_field_that_a_config_file_made_up(section, meant):
    experiment = Experiment()
    setattr(getattr(experiment, section) if section else experiment, meant + "s", 1)
    with pytest.raises(UserError, match=f"Unknown field of config.* Did you mean '{meant}'"):
        validate(experiment)


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("seed", (-1, 2**32)),
        ("data.batch_size", (0, -128)),
        ("data.split_seed", (-1, 2**32)),
        ("data.image_size", (-1,)),
        ("data.threads", (0,)),
        ("data.prefetch", (0,)),
        ("augment.pad_crop", (-1,)),
        ("augment.rotation", (-1.0, 181.0, NAN)),
        ("augment.cutout", (-1,)),
        ("augment.translate", (-0.1, 1.1)),
        ("augment.shear", (-1.0, 45.0)),
        ("augment.perspective", (-0.1, 0.5)),
        ("augment.fill", (-1, 256)),
        ("augment.hue", (-0.1, 0.6)),
        ("augment.blur", (-0.1, 1.1)),
        ("augment.posterize_bits", (-1, 9)),
        ("augment.solarize_threshold", (-1, 257)),
        ("augment.erasing", (-0.1, 1.1)),
        ("augment.mixup", (-0.1, INF, NAN)),
        ("augment.cutmix", (-0.1, INF)),
        ("optimizer.learning_rate", (-0.1, INF, NAN)),
        ("optimizer.weight_decay", (-1e-4, INF)),
        ("optimizer.clip_norm", (-1.0, INF)),
        ("optimizer.layer_decay", (0.0, -0.5, 1.1, NAN)),
        ("distill.alpha", (-0.1, 1.1)),
        ("distill.temperature", (0.0, INF)),
        ("train.accumulate", (0, -1)),
        ("train.label_smoothing", (-0.1, 1.0)),
        ("train.ema", (-0.1, 1.0)),
        ("mesh.data", (-2,)),
        ("mesh.fsdp", (-2,)),
        ("mesh.tensor", (-2,)),
        ("eval.batch_size", (-1,)),
        ("checkpoint.keep", (0,)),
    ],
)
def test_refuses_impossible_numbers(name, values):
    for value in values:
        with pytest.raises(UserError, match=re.escape(f"config.{name}={value} is impossible; it")):
            validate(with_field(name, value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 2**32 - 1),
        ("optimizer.learning_rate", 0.0),
        ("augment.rotation", 180.0),
        ("train.label_smoothing", 0.999),
        ("train.ema", 0.9999),
        ("train.compute_dtype", "bfloat16"),
        ("train.remat", "blocks"),
        ("train.remat", "dots"),
        ("optimizer.state_dtype", "bfloat16"),
        ("train.cpu_fusion", "on"),
        ("train.cpu_fusion", "off"),
        ("augment.pad_mode", "reflect"),
        ("eval.select", "last"),
        ("eval.every", "10%"),
        ("schedule.warmup", "5ep"),
        ("mesh.fsdp", 8),
        ("optimizer.weight_decay_rules", ()),
    ],
)
def test_takes_what_its_comments_promise(name, value):
    validate(with_field(name, value))


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("augment.pad_mode", "reflection", "reflect"),
        ("train.compute_dtype", "bf16", "bfloat16"),
        ("train.remat", "block", "blocks"),
        ("optimizer.state_dtype", "bf16", "bfloat16"),
        ("train.cpu_fusion", "of", "off"),
        ("eval.select", "latest", "last"),
    ],
)
def test_refuses_other_choices_and_names_the_nearest(name, value, meant):
    with pytest.raises(UserError, match=f"config.{name} '{value}'. Did you mean '{meant}'"):
        validate(with_field(name, value))


DURATIONS = ["train.duration", "schedule.warmup", "eval.every", "checkpoint.every", "log.every"]


@pytest.mark.parametrize("name", DURATIONS)
def test_refuses_what_is_no_duration(name):
    with pytest.raises(UserError, match=f"config.{name}='10' is not a duration"):
        validate(with_field(name, "10"))


@pytest.mark.parametrize("name", [name for name in DURATIONS if name != "schedule.warmup"])
def test_refuses_intervals_of_nothing(name):
    with pytest.raises(UserError, match=f"config.{name}='0ep' must be longer than nothing"):
        validate(with_field(name, "0ep"))


def test_a_run_is_no_share_of_itself():
    with pytest.raises(UserError, match=r"config.train.duration must be in ep, st or ex"):
        validate(with_field("train.duration", "50%"))


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 1, 0), (-1, -1, 1), (-1, 1, -1)])
def test_refuses_meshes_without_a_size(sizes):
    experiment = Experiment()
    experiment.mesh.data, experiment.mesh.fsdp, experiment.mesh.tensor = sizes
    with pytest.raises(UserError, match="each axis takes a positive number of devices, and at"):
        validate(experiment)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer.weight_decay_rules", (("(bias", 0.0),)),
        ("optimizer.learning_rate_rules", (("*", 0.1),)),
        ("optimizer.freeze", ("[",)),
        ("mesh.rules", ((".*", "fsdp"), ("+", "replicate"))),
    ],
)
def test_refuses_what_is_no_regex(name, value):
    with pytest.raises(UserError, match=f"config.{name}: .* is no regex"):
        validate(with_field(name, value))


def test_mean_and_std_come_together():
    with pytest.raises(UserError, match="need the same length"):
        validate(with_field("augment.mean", (0.5,)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head.name": "knn"}, "config.head.name='knn' is about a network"),
        ({"distill.teacher": "runs/x"}, "config.distill.teacher='runs/x' is about a network"),
        ({"init.weights": "runs/x"}, "features by hand have none"),
        ({"features.name": "network"}, "features of a network are those of named weights"),
    ],
)
def test_a_classical_classifier_is_alone(fields, message):
    experiment = with_field("classifier.name", "svm")
    validate(experiment)
    for name, value in fields.items():
        section, _, field = name.rpartition(".")
        setattr(getattr(experiment, section), field, value)
    with pytest.raises(UserError, match=re.escape(message)):
        validate(experiment)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("features.name", "hog"),
        ("features.deskew", True),
        ("features.cache", "x"),
        ("features.options", ConfigDict({"cell": 4})),
        ("classifier.options", ConfigDict({"k": 4})),
    ],
)
def test_what_only_a_classical_classifier_reads_is_set_for_one(name, value):
    with pytest.raises(UserError, match=rf"config\.{name}.* is set.*--config\.classifier\.name="):
        validate(with_field(name, value))
