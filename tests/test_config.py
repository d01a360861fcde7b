import dataclasses
import json
import re

import pytest
from ml_collections import ConfigDict

from imgrec import config
from imgrec.config import Experiment, ModelConfig, TrainConfig

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


def test_to_dict_is_json():
    experiment = Experiment(model=ModelConfig(options=ConfigDict({"b": {"c": (1, 2)}, "a": None})))
    plain = config.to_dict(experiment)
    assert json.loads(json.dumps(plain)) == plain
    assert plain["model"] == {"name": "lenet5", "options": {"a": None, "b": {"c": [1, 2]}}}
    assert plain["optimizer"]["weight_decay_rules"] == [["(.*/)?(bias|scale)", 0.0]]


def test_to_dict_names_every_field():
    names = {f"{name}." for name in config.flatten(config.to_dict(Experiment()))}
    sections = ("augment", "classifier", "data", "features", "head", "model", "optimizer")
    sections += ("schedule",)
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


def test_an_experiment_survives_its_dictionary():
    experiment = config.Experiment()
    experiment.optimizer.learning_rate_rules = (("stem/.*", 0.1),)
    experiment.data.holdout_classes = ("3",)
    experiment.model.options.depth = 3
    again = config.from_dict(json.loads(json.dumps(config.to_dict(experiment))))
    assert config.to_dict(again) == config.to_dict(experiment)
    assert again.optimizer.learning_rate_rules == (("stem/.*", 0.1),)
    with pytest.raises(ValueError, match=r"data\.datset"):
        config.from_dict({"data": {"datset": "mnist"}})


def test_the_old_spelling_of_the_default_placement_is_no_change():
    old = config.to_dict(Experiment())
    old["mesh"]["rules"] = [[".*", "fsdp"]]
    assert config.differences(old, config.to_dict(Experiment())) == []
    assert config.from_dict(old) == Experiment()
    old["mesh"]["rules"] = [["head/.*", "fsdp"]]
    assert config.differences(old, config.to_dict(Experiment()))
