import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from imgrec.errors import UserError
from imgrec.training import profiling


@pytest.mark.parametrize(
    "text, steps", [("", None), ("0:1", range(1)), ("100:105", range(100, 105))]
)
def test_steps_are_said_as_from_and_to(text, steps):
    assert profiling.parse(text, 105) == steps


@pytest.mark.parametrize(
    "text, said",
    [
        ("5", "expected FROM:TO in steps, as in --profile=100:105"),
        ("a:b", "expected FROM:TO"),
        ("-1:3", "expected FROM:TO"),
        ("7:7", "holds no step"),
        ("7:5", "holds no step"),
        ("100:106", r"the run, which has 105 steps.*--profile=99:105"),
        ("300:900", r"--profile=0:105"),
    ],
)
def test_steps_that_cannot_be_traced_are_refused_in_words(text, said):
    with pytest.raises(UserError, match=said):
        profiling.parse(text, 105)


def observed(folder, steps, start, end):
    """What is told of a loop from one step to another, in which each step is a small product."""
    said = []
    product = jax.jit(lambda x: x @ x)
    x = product(jnp.ones((64, 64)))
    with profiling.tracing(folder, steps, said.append) as observe:
        for step in range(start, end):
            observe(step, x)
            x = product(x / 64)
        observe(end, x)
    return said


def test_the_trace_holds_the_steps_asked_for_and_no_other(tmp_path):
    said = observed(tmp_path, range(2, 4), 0, 6)
    (path,) = (tmp_path / "profile").rglob("perfetto_trace.json.gz")
    assert f"steps 2 to 4 in {path}" in said[0] and "ui.perfetto.dev" in said[1]
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    numbers = [e["args"]["step_num"] for e in events if e.get("name") == "train"]
    assert sorted(map(int, numbers)) == [2, 3]


def test_a_run_that_stops_inside_the_trace_still_writes_it(tmp_path):
    said = observed(tmp_path, range(1, 9), 0, 3)
    assert "steps 1 to 3" in said[0]
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_a_launch_that_begins_later_says_that_there_is_no_trace(tmp_path):
    said = observed(tmp_path, range(1, 3), 4, 6)
    assert "no trace" in said[0] and not (tmp_path / "profile").exists()


def test_nothing_is_written_where_nothing_is_asked(tmp_path):
    assert observed(tmp_path, None, 0, 2) == [] and not list(tmp_path.iterdir())
