"""A run over several processes: joined, kept together, and ended together.

JAX's distributed runtime connects the processes; what it does not do stands here. A process that
fails, or is lost, ends the others with a sentence that says which and why, instead of leaving
them to wait in a collective; and a signal to any one makes all stop at one agreed step. For a run
of one process every function here does nothing, and costs nothing.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Iterator
from typing import Any

import jax

from imgrec.errors import UserError
from imgrec.training.cluster import Job
from imgrec.training.signals import StopRequest
from imgrec.training.watch import BAD_INPUT, Watch, unreachable

_RETRY = 0.5  # seconds
_IPV6 = socket.has_dualstack_ipv6()  # JAX listens there, unless told otherwise
# One process belongs to one run, in JAX as here.
_watch: Watch | None = None
_agreements = 0


@contextlib.contextmanager
def joined(job: Job, *, start_timeout: float, lost_after: float) -> Iterator[None]:
    """Joins the other processes before anything computes, and leaves when all are done.

    An exception inside ends every process: each says which one failed, and why, and exits with
    the code that this one has.

    Args:
      job: of `cluster.find`.
      start_timeout: seconds to wait for the coordinator and the others.
      lost_after: seconds without a sign of life after which a process counts as lost.

    Raises:
      UserError: the coordinator cannot be reached, or not all came, in time.
    """
    global _watch
    if job.processes == 1:
        yield
        return
    with _interrupted_by_sigterm():
        _keep_stdout_for_python()
        _connect(job, start_timeout, lost_after)
        _watch = Watch(job, lost_after)
        with failing_together():
            yield
        _watch.leave()
        _watch = None
        jax.distributed.shutdown()


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """Tells the other processes of an exception, and ends this one with it.

    Inside `joined`, to be entered wherever what lies between would itself wait for the others
    while it is closed, as checkpoints do.
    """
    try:
        yield
    except BaseException as error:
        if _watch is not None:
            _watch.fail(error)
        raise


def agreed(value: Any) -> Any:
    """What process 0 passes here, on every process; a JSON value of at most some kilobytes.

    All processes have to call it, in the same order.
    """
    global _agreements
    if _watch is None:
        return value
    _agreements += 1
    key = f"imgrec/agreed/{_agreements}"
    if _watch.job.process == 0:
        _watch.client.key_value_set(key, json.dumps(value))
        return value
    return json.loads(_watch.wait_for(key))


def everyone(value: Any) -> list[Any]:
    """What each process passes here, by process; JSON values. All processes have to call it."""
    global _agreements
    if _watch is None:
        return [value]
    _agreements += 1
    key = f"imgrec/everyone/{_agreements}/"
    _watch.client.key_value_set(f"{key}{_watch.job.process}", json.dumps(value))
    return [json.loads(_watch.wait_for(f"{key}{i}")) for i in range(_watch.job.processes)]


def stop_request() -> StopRequest:
    """The request to stop of this run, whichever of its processes the signal reaches."""
    return StopRequest() if _watch is None else _SharedStop(_watch)


class _SharedStop(StopRequest):
    """A signal to one process stops all of them, at one step."""

    def __init__(self, watch: Watch):
        super().__init__()
        self._watch = watch

    def reached(self, step: int) -> bool:
        """As of `StopRequest`; the same on all processes."""
        stopping = self._watch.stopping_at(step)
        if stopping:
            self.received = self._watch.stopped_by
        return stopping

    def _remember(self, number: int, frame: types.FrameType | None) -> None:
        super()._remember(number, frame)
        # No more than this: a handler interrupts the loop anywhere, inside of locks, too.
        self._watch.asked = self.received


def _connect(job: Job, start_timeout: float, lost_after: float) -> None:
    """JAX's own start, with an end: it aborts the process when it has waited in vain."""
    host = job.coordinator.rpartition(":")[0].strip("[]")
    # gRPC would ask a proxy for the way to the next node.
    os.environ.setdefault("no_grpc_proxy", host)
    jax.config.update("jax_check_proxy_envs", False)
    # It would install a handler of SIGTERM; see imgrec.training.watch.
    jax.config.update("jax_enable_preemption_service", False)
    deadline = time.monotonic() + start_timeout
    if job.process == 0:
        _check_port_is_free(_port(job))
    else:
        _wait_for_coordinator(job, start_timeout)
    waiting = threading.Timer(deadline - time.monotonic(), _not_all_came, (job, start_timeout))
    waiting.daemon = True
    waiting.start()
    try:
        jax.distributed.initialize(
            job.coordinator,
            job.processes,
            job.process,
            local_device_ids=job.devices,
            cluster_detection_method="deactivate",
            coordinator_bind_address=None if _IPV6 else f"0.0.0.0:{_port(job)}",
            # Later than the timer and the watch, which say more.
            initialization_timeout=int(start_timeout) + 60,
            heartbeat_timeout_seconds=int(2 * lost_after) + 10,
        )
    finally:
        waiting.cancel()


def _port(job: Job) -> int:
    return int(job.coordinator.rpartition(":")[2])


def _check_port_is_free(port: int) -> None:
    try:
        with socket.socket(socket.AF_INET6 if _IPV6 else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
    except OSError as error:
        raise UserError(
            f"Process 0 cannot listen on port {port} of this host ({error.strerror}), where the "
            "others are to reach it. Perhaps another run has it: choose another port in "
            "--coordinator=HOST:PORT, the same for all processes, or in IMGREC_PORT."
        ) from None


def _wait_for_coordinator(job: Job, start_timeout: float) -> None:
    deadline = time.monotonic() + start_timeout
    while (problem := unreachable(job.coordinator, 5.0)) is not None:
        if time.monotonic() > deadline:
            raise UserError(
                f"Process {job.process} of {job.processes} could not reach the coordinator at "
                f"{job.coordinator} for {start_timeout:g} s ({problem}). Process 0 has to run "
                "there, started with the same --coordinator, and the port has to be open between "
                "the hosts; --start_timeout=SECONDS waits longer. This process found its place "
                f"from: {job.found}."
            )
        time.sleep(min(_RETRY, start_timeout))


def _not_all_came(job: Job, start_timeout: float) -> None:
    others = "the others have" if job.processes > 2 else "the other has"
    print(
        f"error: process {job.process} of {job.processes}: after {start_timeout:g} s not all of "
        f"{job.processes} processes have come to {job.coordinator}. See whether {others} started, "
        "with the same --coordinator and --processes and a --process of their own; their logs say "
        "what keeps them. --start_timeout=SECONDS waits longer.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(BAD_INPUT)


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM raises as Ctrl-C does, so that the others are told; the loop has its own way."""

    def interrupt(number: int, frame: types.FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _keep_stdout_for_python() -> None:
    """Gloo greets on stdout, with a line for each device and group; they go to /dev/null."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    sys.stdout = os.fdopen(kept, "w", buffering=1, encoding=sys.stdout.encoding)
