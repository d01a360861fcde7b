import os
import sys
from pathlib import Path

import pytest

from imgrec.benchmarking import workers

# A worker without a framework: it counts what it is asked for, and prints where it should not.
CONTESTANT = """
import sys
from imgrec.benchmarking import workers

def prepare(task):
    print("noise of a library")
    if task.get("lacks"):
        raise ModuleNotFoundError("No module", name=task["lacks"])
    if task.get("fails"):
        raise SystemExit(3)
    taken = []
    def run(steps):
        print("more noise")
        taken.append(steps)
        if sum(taken) > task.get("most", 10**9):
            raise SystemExit(4)
    return run, {"seen": task}

workers.serve(prepare)
"""


@pytest.fixture
def start(tmp_path):
    """start(task): a worker of that contestant."""
    (tmp_path / "counting_contestant.py").write_text(CONTESTANT)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    return lambda task: workers.Worker("counting_contestant", task, environment=environment)


def test_a_worker_answers_for_the_steps_it_took_whatever_is_printed(start):
    with start({"size": 3}) as worker:
        assert worker.facts == {"seen": {"size": 3}}
        spent = worker.run(5)
        assert spent.wall > 0 and spent.cpu >= 0


def test_what_an_interpreter_lacks_is_said_by_name(start):
    with pytest.raises(workers.MissingError, match=r"^torch$"):
        start({"lacks": "torch"})


def test_a_worker_that_fails_is_no_hang(start):
    with pytest.raises(workers.WorkerError, match="counting_contestant ended with exit code 3"):
        start({"fails": True})
    with start({"most": 2}) as worker, pytest.raises(workers.WorkerError, match="exit code 4"):
        worker.run(3)


class Recorded(workers.Worker):
    """A worker that takes a second a step and notes its turns."""

    def __init__(self, name, turns, seconds=1.0):
        self.name, self.turns, self.one = name, turns, seconds

    def run(self, steps):
        self.turns.append((self.name, steps))
        return workers.Spent(self.one * steps, 2 * self.one * steps)


def test_everybody_has_every_turn_and_nobody_always_the_same_neighbour():
    turns = []
    two = {name: Recorded(name, turns) for name in "ab"}
    said = []
    spent = workers.take_turns(two, rounds=2, seconds=4.0, told=said.append)
    assert spent == {name: [workers.Spent(1.0, 2.0)] * 2 for name in "ab"}
    # Four steps are a turn, after one that finds its place; the second round begins with b.
    assert turns[-8:] == [(n, s) for n in "abba" for s in (1, 4)]
    assert len(said) == 2 and "a 1,000.00 ms" in said[0]


def test_slow_steps_make_turns_of_one():
    turns = []
    workers.take_turns({"a": Recorded("a", turns, 9.0)}, rounds=1, seconds=1.0, told=str)
    assert turns[-1] == ("a", 1)


def test_serving_needs_nothing_but_python():
    """Any interpreter can be a worker's, so the module imports only what every one has."""
    source = Path(workers.__file__).read_text()
    imported = [
        line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))
    ]
    assert all(name.partition(".")[0] in sys.stdlib_module_names for name in imported), imported
