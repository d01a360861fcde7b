import re

import pytest
from ml_collections import ConfigDict

from imgrec.errors import UserError
from imgrec.options import keyword_options


def factory(*, rate: float = 0.9, steps: int = 3, nesterov: bool = True, name: str = "a", at=(1,)):
    return rate, steps, nesterov, name, at


def without():
    return None


def checked(**options):
    return keyword_options(factory, ConfigDict(options), "optimizer")


def test_gives_what_was_set_and_nothing_else():
    assert checked() == {}
    assert checked(rate=0.5, nesterov=False) == {"rate": 0.5, "nesterov": False}
    assert keyword_options(factory, {"steps": 4}, "optimizer") == {"steps": 4}


def test_a_whole_number_becomes_a_float_where_one_is_expected():
    rate = checked(rate=1)["rate"]
    assert (rate, type(rate)) == (1.0, float)


def test_a_list_becomes_a_tuple_where_one_is_expected():
    assert keyword_options(factory, {"at": [1, 2]}, "optimizer") == {"at": (1, 2)}


def test_an_unknown_option_is_refused_with_the_nearest():
    with pytest.raises(UserError) as refusal:
        checked(nestrov=True)
    assert "Unknown option of optimizer 'factory' 'nestrov'" in str(refusal.value)
    assert "Did you mean 'nesterov'? Known: at, name, nesterov, rate, steps." in str(refusal.value)


def test_a_factory_without_options_says_so():
    assert keyword_options(without, {}, "schedule") == {}
    with pytest.raises(UserError, match=r"config\.schedule\.options\.x: 'without' takes no opt"):
        keyword_options(without, {"x": 1}, "schedule")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("rate", "0.9", "rate='0.9' has the type str; expected float, as in 0.9."),
        ("rate", True, "rate=True has the type bool; expected float"),
        ("steps", 3.5, "steps=3.5 has the type float; expected int"),
        ("steps", True, "steps=True has the type bool; expected int"),
        ("nesterov", 1, "nesterov=1 has the type int; expected bool"),
        ("name", 3, "name=3 has the type int; expected str, as in 'a'."),
        ("at", 0.5, "at=0.5 has the type float; expected tuple"),
    ],
)
def test_another_type_is_refused(option, value, message):
    with pytest.raises(UserError, match=re.escape(f"config.optimizer.options.{message}")):
        checked(**{option: value})
