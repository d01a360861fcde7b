"""Fields by name: what `cli` asks of them is tested there."""

import pytest
from ml_collections import ConfigDict

from imgrec import fields
from imgrec.config import Experiment, ModelConfig
from imgrec.errors import UserError


def test_fields_and_options_are_replaced_in_a_copy():
    before = Experiment(model=ModelConfig(options=ConfigDict({"width": 4, "rate": 0.1})))
    after = fields.replaced(
        before,
        {"seed": 3, "train.ema": 0.9, "model.options.width": 8, "optimizer.options.momentum": 0.5},
    )
    assert (after.seed, after.train.ema) == (3, 0.9)
    assert after.model.options.to_dict() == {"width": 8, "rate": 0.1}
    assert after.optimizer.options.to_dict() == {"momentum": 0.5}
    assert before.model.options.to_dict() == {"width": 4, "rate": 0.1}
    assert before == Experiment(model=ModelConfig(options=ConfigDict({"width": 4, "rate": 0.1})))


def test_all_options_are_replaced_at_once():
    before = Experiment(model=ModelConfig(options=ConfigDict({"width": 4})))
    after = fields.replaced(before, {"model.options": {"rate": 0.5}})
    assert after.model.options == ConfigDict({"rate": 0.5})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("train.emma", "Did you mean config.train.ema"),
        ("batch_size", "Did you mean config.data.batch_size"),
        ("train", "is a section"),
        ("model.options.a.b", "one name after"),
    ],
)
def test_what_is_no_field_is_refused(name, said):
    with pytest.raises(UserError, match=said):
        fields.replaced(Experiment(), {name: 1})


def test_defaults_are_of_all_fields():
    found = fields.defaults()
    assert found["train.duration"] == "10ep"
    assert all(fields.check(name) is None for name in found)
