"""Runs as tasks of Ray, on its cluster (`ray start`, or --engine_options=address=...) or here.

Ray keeps the queue and deals out CPUs and GPUs; a task whose node is lost is tried again, and
goes on from what the run saved.
"""

import importlib.util
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from imgrec.errors import UserError, unknown
from imgrec.launching.runs import Outcome, Run, execute

OPTIONS = ("address", "memory", "num_cpus", "num_gpus")
"""Of the cluster the address; of each run what Ray is to keep for it."""

_RETRIES = 3  # of a task whose worker or node is lost


def check(options: Mapping[str, Any]) -> None:
    """Refuses what cannot work.

    Raises:
      UserError: Ray is not installed, or an option is not known.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError(
            "The engine 'ray' needs Ray: pip install 'imgrec[ray]'. Without it, --engine=local "
            "runs one after the other here."
        )
    for name in options:
        if name not in OPTIONS:
            raise unknown("option of the engine 'ray'", name, OPTIONS)


def launch(
    runs: Sequence[Run], logs: Path, options: Mapping[str, Any], said: Callable[[str], None]
) -> Iterator[Outcome]:
    """Gives all to Ray, and gives outcomes as tasks end; an interrupt has them save and stop."""
    import ray

    wanted = {name: value for name, value in options.items() if name != "address"}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    ray.init(address=options.get("address"), ignore_reinit_error=True, log_to_driver=False)
    signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own would leave at once
    said(f"Ray has {_listed(ray.cluster_resources())}; each run takes {_listed(wanted or _ONE)}")
    task = ray.remote(max_retries=_RETRIES, **(wanted or _ONE))(_task)
    waiting = {task.remote(run, logs / f"{run.name}.log"): run for run in runs}
    try:
        while waiting:
            (reference,), _ = ray.wait(list(waiting), num_returns=1)
            yield _outcome(waiting.pop(reference), reference)
    except (KeyboardInterrupt, GeneratorExit):
        said(f"{len(waiting)} runs asked to save and stop; a second Ctrl-C does not wait for that")
        for reference in waiting:
            ray.cancel(reference)  # raises KeyboardInterrupt in `_task`
        ray.wait(list(waiting), num_returns=len(waiting))
        raise


_ONE = {"num_cpus": 1}


def _task(run: Run, log: Path) -> Outcome:
    """`execute` in a worker of Ray."""
    # `ray.cancel` interrupts, which workers do not notice whose driver was started with `&`.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return execute(run, log)


def _outcome(run: Run, reference: Any) -> Outcome:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        return Outcome(run.name, run.folder, None, error=f"Ray lost it: {error}")


def _listed(resources: Mapping[str, Any]) -> str:
    shown = {name: n for name, n in resources.items() if "memory" not in name and ":" not in name}
    return ", ".join(f"{value:g} {name}" for name, value in sorted(shown.items()))
