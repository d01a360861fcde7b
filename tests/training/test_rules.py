import re
from collections import namedtuple

import jax
import pytest

from imgrec.errors import UserError
from imgrec.training import rules

NAMES = ["head/bias", "head/kernel", "stem/conv/kernel", "stem/norm/bias", "stem/norm/scale"]


def decide(*pairs, default=1.0):
    return rules.decide(pairs, NAMES, field="optimizer.weight_decay_rules", default=default)


def test_names_are_the_paths_in_the_order_of_the_leaves():
    Moments = namedtuple("Moments", "nu mu")
    tree = {"stem": {"conv": {"kernel": 0}}, "head": [1, (Moments(2, 3), {"b": 4, "a": 5})]}
    names = ["head/0", "head/1/0/nu", "head/1/0/mu", "head/1/1/a", "head/1/1/b", "stem/conv/kernel"]
    assert rules.names(tree) == names
    assert jax.tree.leaves(tree) == [1, 2, 3, 5, 4, 0]
    assert rules.names({}) == []


def test_a_name_that_no_rule_matches_gets_the_default():
    assert decide() == [1.0] * 5
    assert decide(("head/.*", 10.0)) == [10.0, 10.0, 1.0, 1.0, 1.0]


def test_the_first_match_decides():
    first = decide(("stem/norm/.*", 0.0), (".*/bias", 2.0), ("stem/.*", 0.5), (".*", 3.0))
    assert first == [2.0, 3.0, 0.5, 0.0, 0.0]


def test_a_regex_has_to_match_the_whole_name():
    assert decide(("(.*/)?(bias|scale)", 0.0)) == [0.0, 1.0, 1.0, 0.0, 0.0]
    with pytest.raises(UserError, match="the rule 'bias' matches none of the 5 parameters"):
        decide(("bias", 0.0))


def test_a_rule_that_matches_nothing_is_named_with_the_nearest_name():
    with pytest.raises(UserError) as refusal:
        decide((".*/bias", 0.0), ("heads/kernel", 0.1))
    message = str(refusal.value)
    assert message.startswith("config.optimizer.weight_decay_rules: the rule 'heads/kernel' match")
    assert "the nearest is 'head/kernel'" in message
    assert "match the whole name" in message


def test_where_nothing_is_near_a_name_serves_as_an_example():
    with pytest.raises(UserError, match=re.escape("parameters, for example 'head/bias'.")):
        decide(("@", 0.0))


@pytest.mark.parametrize(
    "pairs",
    [
        [(".*", 0.0), ("head/.*", 1.0)],
        [("head/bias", 0.0), ("head/kernel", 0.0), ("head/.*", 1.0)],
        [("head/.*", 0.0), ("head/.*", 1.0)],
    ],
)
def test_a_rule_behind_others_that_match_all_it_matches_is_refused(pairs):
    with pytest.raises(UserError, match=r"the rule 'head/.*' decides nothing, since rules before"):
        decide(*pairs)
