"""Contestants as processes that take turns: one works, the others sleep.

What decides speed (XLA_FLAGS, the thread pool, the interpreter itself) holds for a whole
process, so contestants cannot share one. They talk by lines of JSON over pipes: a worker reads
what it is to prepare, answers with facts about itself, and then answers every number of steps
with the seconds that they took, of the clock and of the processors. The latter count what the
process did, whatever else the machine was doing. This module needs Python alone, so that any
interpreter can be a worker's.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_PROJECT = Path(__file__).parents[2]
Run = Callable[[int], object]


class Spent(NamedTuple):
    """Seconds."""

    wall: float
    cpu: float  # of all threads of the process together


class WorkerError(Exception):
    """A contestant's process ended before it answered; what it printed says why."""


class MissingError(Exception):
    """A contestant's interpreter lacks a module; the message is its name."""


class Worker:
    """The near end of a contestant's process."""

    def __init__(
        self,
        module: str,
        task: Mapping[str, Any],
        *,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
    ):
        """Starts `python -m module`, which calls `serve`, and waits until it is prepared.

        Args:
          module: by its dotted name.
          task: JSON values for the function that prepares.
          python: an interpreter, which need not have this project installed.
          environment: of the process; by default this one's.

        Raises:
          MissingError: the interpreter lacks what the contestant needs.
          WorkerError: the process failed otherwise.
        """
        env = dict(os.environ if environment is None else environment)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_PROJECT), env.get("PYTHONPATH"))))
        self._module = module
        self._process = subprocess.Popen(
            [python, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )
        try:
            self.facts: dict[str, Any] = self._ask(task)
        except BaseException:
            self.close()
            raise
        if missing := self.facts.get("missing"):
            self.close()
            raise MissingError(missing)

    def run(self, steps: int) -> Spent:
        """What so many steps took, their results waited for."""
        return Spent(**self._ask(steps))

    def close(self) -> None:
        """Ends the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, question: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        answer = ""
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            pass
        if not answer:
            raise WorkerError(
                f"{self._module} ended with exit code {self._process.wait()} instead of answering."
            )
        return json.loads(answer)


def serve(prepare: Callable[[dict[str, Any]], tuple[Run, Mapping[str, Any]]]) -> None:
    """The far end: prepares the contestant, then runs it whenever it is asked, until told no more.

    Args:
      prepare: gives a function that takes so many steps and waits for their results, and facts
        about the contestant.
    """
    # Whatever a library prints must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(answer: Mapping[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        run, facts = prepare(json.loads(sys.stdin.readline()))
    except ModuleNotFoundError as error:
        say({"missing": error.name})
        return
    say(facts)
    for line in sys.stdin:
        steps = int(line)
        begin, cpu = time.perf_counter(), time.process_time()
        run(steps)
        say({"wall": time.perf_counter() - begin, "cpu": time.process_time() - cpu})


def take_turns(
    workers: Mapping[str, Worker],
    *,
    rounds: int,
    seconds: float = 1.0,
    told: Callable[[str], object] = print,
) -> dict[str, list[Spent]]:
    """What a step of every worker took in each round.

    A turn is one step that is not counted, which finds the caches full of somebody else's data,
    and then as many as take about `seconds`. The order changes from round to round, so that
    nobody always follows the same neighbour.

    Args:
      workers: by name.
      rounds: that count; one more goes before, in which each worker's number of steps is found.
      seconds: of a turn, about.
      told: is given a line a round.
    """
    steps = {name: _steps_in(worker, seconds) for name, worker in workers.items()}
    spent: dict[str, list[Spent]] = {name: [] for name in workers}
    names = list(workers)
    for i in range(rounds):
        for name in _rotated(names, i):
            workers[name].run(1)
            turn = workers[name].run(steps[name])
            spent[name].append(Spent(*(s / steps[name] for s in turn)))
        latest = ", ".join(f"{name} {1e3 * spent[name][-1].wall:,.2f} ms" for name in names)
        told(f"round {i + 1} of {rounds}, a step: {latest}")
    return spent


def _steps_in(worker: Worker, seconds: float) -> int:
    worker.run(1)  # compiles, allocates, chooses algorithms
    steps = 1
    while (spent := worker.run(steps).wall) < seconds / 2:
        steps *= 2
    return max(1, round(steps * seconds / spent))


def _rotated(names: Sequence[str], by: int) -> list[str]:
    cut = by % len(names)
    return [*names[cut:], *names[:cut]]
