"""Values of a sweep: read, multiplied out, and named."""

import pytest

from imgrec.errors import UserError
from imgrec.launching import grid


def test_axes_multiply_with_the_last_varying_fastest():
    axes = grid.parse(["optimizer.learning_rate=0.1, 0.03", "--config.seed=0,1"])

    assert [axis.field for axis in axes] == ["optimizer.learning_rate", "seed"]
    assert [tuple(point.values()) for point in grid.points(axes)] == [
        ("0.1", "0"),
        ("0.1", "1"),
        ("0.03", "0"),
        ("0.03", "1"),
    ]


def test_commas_in_brackets_and_quotes_part_nothing():
    (axis,) = grid.parse(["augment.scale=(1.0, 1.0),[0.9,(1,2)],'a,b',\"\""])

    assert axis.values == ("(1.0, 1.0)", "[0.9,(1,2)]", "'a,b'", '""')
    assert [grid.unquoted(value) for value in axis.values[2:]] == ["a,b", ""]


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        ([], "No field to sweep"),
        (["seed"], "expected FIELD=VALUE"),
        (["=1"], "expected FIELD=VALUE"),
        (["seed="], "a value is empty"),
        (["seed=0,,1"], "a value is empty"),
        (["seed=0,1,"], "a value is empty"),
        (["seed=0,1, 0"], "the value 0 is there twice"),
        (["seed=0,1", "config.seed=2"], "--sweep='seed=0,1,2'"),
        (["augment.scale=(1,2"], r"\) is missing"),
        (["name='a,b"], "' is missing"),
    ],
)
def test_what_is_no_axis_is_refused(specs, said):
    with pytest.raises(UserError, match=said):
        grid.parse(specs)


def test_names_are_those_of_the_values_alone():
    name = grid.name({"optimizer.learning_rate": 0.1, "seed": 0})

    assert name == "learning_rate=0.1,seed=0"
    assert grid.name({"seed": 0, "optimizer.learning_rate": 0.1}) == name
    assert grid.name({"lr": 1e-3}) == grid.name({"lr": 0.001}) == "lr=0.001"
    assert grid.name({"lr": 1.0}) == grid.name({"lr": 1}) == "lr=1"
    # Fields that end alike keep their sections.
    both = {"model.name": "a", "optimizer.name": "b"}
    assert grid.name(both) == "model.name=a,optimizer.name=b"


def test_names_are_safe_for_folders_and_still_differ():
    names = [grid.name({"init.weights": value}) for value in ("/a/b", "/a:b", "a" * 300, "a" * 301)]

    assert len(set(names)) == 4
    for name in names:
        assert "/" not in name and ":" not in name and len(name) < 120
    assert grid.name({"init.weights": "/a/b"}) == names[0]
