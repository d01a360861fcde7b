import dataclasses
import json
import re

import pytest
from ml_collections import ConfigDict

from imgrec import config
from imgrec.config import Experiment, ModelConfig, TrainConfig
from imgrec.errors import UserError

SECTIONS = [f.name for f in dataclasses.fields(Experiment) if dataclasses.is_dataclass(f.type)]
FIELDS = [
    f"{outer.name}.{inner.name}" if outer.name in SECTIONS else outer.name
    for outer in dataclasses.fields(Experiment)
    for inner in (dataclasses.fields(outer.type) if outer.name in SECTIONS else [outer])
]


def get(experiment, name):
    section, _, field = name.rpartition(".")
    return getattr(getattr(experiment, section) if section else experiment, field)


def with_field(name, value):
    experiment = Experiment()
    section, _, field = name.rpartition(".")
    setattr(getattr(experiment, section) if section else experiment, field, value)
    return experiment


def another(value):
    """A value of the same type that is not the same."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, ConfigDict):
        return ConfigDict({"width": 4})
    if isinstance(value, tuple):
        return (*value, "other")
    return value + {str: "x", int: 1, float: 0.125}[type(value)]


def test_the_defaults_are_valid():
    config.validate(Experiment())


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_refuses_another_type(name):
    with pytest.raises(UserError, match=re.escape(f"config.{name}=") + ".*has the type") as refusal:
        config.validate(with_field(name, None))
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
        config.validate(with_field(name, value))


def test_a_whole_number_is_a_float():
    config.validate(with_field("optimizer.learning_rate", 1))
    config.validate(with_field("optimizer.learning_rate_rules", (("head/.*", 10),)))


@pytest.mark.parametrize(("section", "meant"), [("", "seed"), ("train", "ema")])
def test_refuses_a_field_that_a_config_file_made_up(section, meant):
    experiment = Experiment()
    setattr(getattr(experiment, section) if section else experiment, meant + "s", 1)
    with pytest.raises(UserError, match=f"Unknown field of config.* Did you mean '{meant}'"):
        config.validate(experiment)


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
            config.validate(with_field(name, value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 2**32 - 1),
        ("optimizer.learning_rate", 0.0),
        ("augment.rotation", 180.0),
        ("train.label_smoothing", 0.999),
        ("train.ema", 0.9999),
        ("train.compute_dtype", "bfloat16"),
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
    config.validate(with_field(name, value))


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("task", "clasification", "classification"),
        ("augment.pad_mode", "reflection", "reflect"),
        ("train.compute_dtype", "bf16", "bfloat16"),
        ("train.cpu_fusion", "of", "off"),
        ("eval.select", "latest", "last"),
    ],
)
def test_refuses_other_choices_and_names_the_nearest(name, value, meant):
    with pytest.raises(UserError, match=f"config.{name} '{value}'. Did you mean '{meant}'"):
        config.validate(with_field(name, value))


DURATIONS = ["train.duration", "schedule.warmup", "eval.every", "checkpoint.every", "log.every"]


@pytest.mark.parametrize("name", DURATIONS)
def test_refuses_what_is_no_duration(name):
    with pytest.raises(UserError, match=f"config.{name}='10' is not a duration"):
        config.validate(with_field(name, "10"))


@pytest.mark.parametrize("name", [name for name in DURATIONS if name != "schedule.warmup"])
def test_refuses_intervals_of_nothing(name):
    with pytest.raises(UserError, match=f"config.{name}='0ep' must be longer than nothing"):
        config.validate(with_field(name, "0ep"))


def test_a_run_is_no_share_of_itself():
    with pytest.raises(UserError, match=r"config.train.duration must be in ep, st or ex"):
        config.validate(with_field("train.duration", "50%"))


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 1, 0), (-1, -1, 1), (-1, 1, -1)])
def test_refuses_meshes_without_a_size(sizes):
    experiment = Experiment()
    experiment.mesh.data, experiment.mesh.fsdp, experiment.mesh.tensor = sizes
    with pytest.raises(UserError, match="each axis takes a positive number of devices, and at"):
        config.validate(experiment)


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
        config.validate(with_field(name, value))


def test_mean_and_std_come_together():
    with pytest.raises(UserError, match="need the same length"):
        config.validate(with_field("augment.mean", (0.5,)))


def test_to_dict_is_json():
    experiment = Experiment(model=ModelConfig(options=ConfigDict({"b": {"c": (1, 2)}, "a": None})))
    plain = config.to_dict(experiment)
    assert json.loads(json.dumps(plain)) == plain
    assert plain["model"] == {"name": "lenet5", "options": {"a": None, "b": {"c": [1, 2]}}}
    assert plain["optimizer"]["weight_decay_rules"] == [["(.*/)?(bias|scale)", 0.0]]


def test_to_dict_names_every_field():
    names = {f"{name}." for name in config.flatten(config.to_dict(Experiment()))}
    sections = ("augment", "data", "head", "model", "optimizer", "schedule")
    empty = {f"{section}.options." for section in sections}  # that hold nothing yet
    assert names | empty == {f"{name}." for name in FIELDS}


def test_flatten():
    nested = {"a": 1, "b": {"c": {"d": [1, 2]}, "e": None, "f": {}}}
    assert config.flatten(nested) == {"a": 1, "b.c.d": [1, 2], "b.e": None}


def test_equal_experiments_share_a_fingerprint():
    fingerprint = config.fingerprint(Experiment())
    assert re.fullmatch("[0-9a-f]{12}", fingerprint)
    assert config.fingerprint(Experiment()) == fingerprint
    assert config.fingerprint(Experiment(train=TrainConfig())) == fingerprint


def test_neither_order_nor_the_type_of_a_whole_number_is_part_of_the_fingerprint():
    one, other = Experiment(), Experiment()
    one.model.options = ConfigDict({"a": 1, "b": 2.5})
    other.model.options = ConfigDict({"b": 2.5, "a": 1.0})
    one.optimizer.learning_rate, other.optimizer.learning_rate = 1.0, 1
    assert config.differences(config.to_dict(one), config.to_dict(other)) == []
    assert config.fingerprint(one) == config.fingerprint(other)


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_part_of_fingerprint_and_differences(name):
    default = Experiment()
    changed = with_field(name, another(get(default, name)))
    assert config.fingerprint(changed) != config.fingerprint(default)
    (line,) = config.differences(config.to_dict(default), config.to_dict(changed))
    assert line.startswith(f"{name}.width: " if name.endswith(".options") else f"{name}: ")


def test_differences_lists_exactly_what_differs():
    saved, now = Experiment(), Experiment(seed=1)
    now.train.duration = "2ep"
    saved.model.options = ConfigDict({"width": 8, "kept": 1})
    now.model.options = ConfigDict({"dropout": 0.1, "kept": 1})
    assert config.differences(config.to_dict(saved), config.to_dict(now)) == [
        "model.options.dropout: '(not set)' -> 0.1",
        "model.options.width: 8 -> '(not set)'",
        "seed: 0 -> 1",
        "train.duration: '10ep' -> '2ep'",
    ]


def test_a_field_that_the_saved_one_lacks_had_its_default():
    saved, default = config.to_dict(Experiment()), config.to_dict(Experiment())
    del saved["data"]["crop"]
    default["data"]["crop"] = "none"
    now = Experiment()
    assert config.differences(saved, config.to_dict(now)) == []
    now.data.crop = "none"
    assert config.differences(saved, config.to_dict(now), default=default) == []
    (line,) = config.differences(saved, config.to_dict(now))
    assert line == "data.crop: 'auto' -> 'none'"
