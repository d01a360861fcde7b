"""Keeping the processes of a run together: failed and lost ones found, a stop agreed on.

Everything goes through the key-value store of JAX's coordination service, in process 0.
"""

import contextlib
import ctypes
import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import jax
from jax._src import distributed as runtime  # the client's key-value store has no public name

from imgrec.errors import UserError
from imgrec.training.cluster import Job
from imgrec.training.signals import EXIT_STOPPED

BAD_INPUT = 2  # as of imgrec.cli
_FAILED = 1
_TICK = 0.5  # seconds between two looks at what the others say
_LINGER = 5.0  # that process 0, who keeps what is said, waits for the others to read it
_ROOT = "imgrec/watch/"
# What a collective says when another process is gone: a symptom, whose cause the watch finds.
_SYMPTOMS = ("Gloo", "NCCL", "nccl", "UNAVAILABLE", "Connection", "coordination service")


class Watch:
    """Every half second tells the others that this process lives, and looks at what they told.

    JAX has a preemption service of its own. It knows SIGTERM alone, does not say who got it, and
    counts calls, which Orbax makes as well, with steps: where a call makes several steps the two
    never agree. So the protocol is repeated here: who sees the request says how far it has gone
    and holds, and the step to stop at is the first that nobody has passed. Until then the loop
    pays for a lock that nobody holds, and no more.
    """

    def __init__(self, job: Job, lost_after: float):
        """Begins to watch.

        Args:
          job: this process's place.
          lost_after: seconds without a sign of life after which a process counts as lost.
        """
        self.job = job
        self.client: Any = runtime.global_state.client
        self.asked: str | None = None  # the signal this process got
        self.stopped_by: str | None = None
        self._lost_after = lost_after
        self._others = [i for i in range(job.processes) if i != job.process]
        self._ticks = 0
        self._seen = {i: ("", time.monotonic()) for i in self._others}
        self._told: set[str] = set()
        self._hosts = {job.process: socket.gethostname()}
        self._held = threading.Condition()
        self._at = -1  # the last step that the loop went on from
        self._stop_at: int | None = None
        self._agreeing = False
        self._all_done = threading.Event()
        self._over = threading.Event()
        self._ending = threading.Lock()
        self._abort_handler = _on_abort(self._aborted)
        self._thread = threading.Thread(target=self._run, name="imgrec-watch", daemon=True)
        self._thread.start()

    def stopping_at(self, step: int) -> bool:
        """Whether all are to stop before this step."""
        with self._held:
            self._held.wait_for(lambda: not self._agreeing)
            if self._stop_at is None:
                self._at = step
                return False
            return step >= self._stop_at

    def wait_for(self, key: str) -> str:
        """What another process says under a key; if it is lost, this process ends meanwhile."""
        while True:
            try:
                return str(self.client.blocking_key_value_get(key, 10_000))
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise

    def fail(self, error: BaseException) -> NoReturn:
        """Ends all processes for what happened in this one."""
        if isinstance(error, jax.errors.JaxRuntimeError) and any(
            symptom in str(error) for symptom in _SYMPTOMS
        ):
            time.sleep(2 * self._lost_after)  # the watch ends this process sooner
        code, expected = _FAILED, isinstance(error, UserError | OSError | RuntimeError)
        sentence = " ".join([str(error) or type(error).__name__, *getattr(error, "__notes__", ())])
        if isinstance(error, UserError):
            code = BAD_INPUT
        elif isinstance(error, KeyboardInterrupt):
            code, sentence = EXIT_STOPPED, "stopped by a signal; the same command goes on"
        elif isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else _FAILED
            sentence = f"exited with code {code}"
        elif not expected:
            sentence = f"{type(error).__name__}: {sentence}"
        if code == _FAILED:
            traceback.print_exception(error)
        self._end(sentence, code, here=True)

    def leave(self) -> None:
        """Waits for the others; they may have more to do, and may yet fail."""
        self._tell("done", "")
        while not self._all_done.wait(_TICK):
            pass
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_TICK):
            try:
                self._tick()
            except jax.errors.JaxRuntimeError:
                if not self._over.is_set():
                    self._end_without_coordinator()

    def _tick(self) -> None:
        self._ticks += 1
        self._tell("host", self._hosts[self.job.process])
        self._tell("alive", str(self._ticks), again=True)
        if self.asked:
            self._tell("stop", f"{self.asked} at {self._who(self.job.process)}")
        said: dict[str, dict[int, str]] = {}
        for key, value in self.client.key_value_dir_get(_ROOT):
            what, _, process = key.removeprefix(_ROOT).partition("/")
            said.setdefault(what, {})[int(process)] = value
        self._hosts |= said.get("host", {})
        self._look_for_failures(said.get("failed", {}))
        if "stop" in said:
            self._agree_to_stop(said["stop"], said.get("at", {}))
        if len(said.get("done", {})) == self.job.processes:
            self._all_done.set()
        else:
            self._look_for_the_lost(said.get("alive", {}))

    def _look_for_failures(self, failed: dict[int, str]) -> None:
        for process in sorted(failed):
            if process != self.job.process:
                message = json.loads(failed[process])
                self._end(f"{self._who(process)} ended: {message['sentence']}", message["code"])

    def _look_for_the_lost(self, alive: dict[int, str]) -> None:
        now = time.monotonic()
        for process in self._others:
            before, at = self._seen[process]
            if alive.get(process, "") != before:
                self._seen[process] = (alive[process], now)
            elif now - at > self._lost_after:
                self._end(
                    f"{self._who(process)} is lost: no sign of life for {now - at:.0f} s (killed, "
                    "out of memory, or its host or network is down; its own log may say more). "
                    "The same command goes on from the last checkpoint.",
                    _FAILED,
                )

    def _agree_to_stop(self, asked: dict[int, str], at: dict[int, str]) -> None:
        if self._stop_at is not None:
            return
        with self._held:
            self._agreeing = True  # the loop holds before its next step
            self._tell("at", str(self._at))
            if len(at) == self.job.processes:
                self._stop_at = 1 + max(int(step) for step in at.values())
                self.stopped_by = asked[min(asked)]
                self._agreeing = False
                self._held.notify_all()

    def _tell(self, what: str, value: str, *, again: bool = False) -> None:
        if again or what not in self._told:
            key = f"{_ROOT}{what}/{self.job.process}"
            self.client.key_value_set(key, value, allow_overwrite=again)
            self._told.add(what)

    def _end(self, sentence: str, code: int, *, here: bool = False) -> NoReturn:
        """Prints the sentence, tells it to the others if it is about this process, and exits."""
        # Where the service is in error, a call of it may never return.
        last = threading.Timer(3 * _LINGER, os._exit, (code,))
        last.daemon = True
        last.start()
        with self._ending:  # whoever comes second has nothing to add
            # With an end, since what does not answer may be what is being told about.
            telling = threading.Thread(target=self._tell_end, args=(sentence, code, here))
            telling.daemon = True
            telling.start()
            telling.join(_LINGER)
            self._say(sentence)
            if self.job.process == 0:
                self._linger()
            _exit(code)

    def _tell_end(self, sentence: str, code: int, here: bool) -> None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            if here:
                self._tell("failed", json.dumps({"sentence": sentence, "code": code}))
            self._tell("gone", "")

    def _linger(self) -> None:
        deadline = time.monotonic() + _LINGER
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            while time.monotonic() < deadline:
                gone = self.client.key_value_dir_get(f"{_ROOT}gone/")
                if len(gone) == self.job.processes:
                    time.sleep(_TICK / 5)  # they are at their last line
                    return
                time.sleep(_TICK / 5)

    def _aborted(self) -> None:
        """JAX aborts when it cannot reach process 0, after a page of its own; and for bugs."""
        if unreachable(self.job.coordinator, 1.0) is not None:
            self._end_without_coordinator()
        self._end("JAX ended this process; its own message stands above.", _FAILED, here=True)

    def _end_without_coordinator(self) -> NoReturn:
        # Nothing can be told any more, and trying to would wait for an answer.
        self._say(
            f"{self._who(0)}, the coordinator at {self.job.coordinator}, is lost: it answers no "
            "longer (killed, out of memory, or its host or network is down; its own log may say "
            "more). The same command goes on from the last checkpoint."
        )
        _exit(_FAILED)

    def _say(self, sentence: str) -> None:
        sys.stdout.flush()
        print(f"error: {self._who(self.job.process)}: {sentence}", file=sys.stderr, flush=True)

    def _who(self, process: int) -> str:
        host = f" ({self._hosts[process]})" if process in self._hosts else ""
        return f"process {process} of {self.job.processes}{host}"


def _exit(code: int) -> NoReturn:
    """Not sys.exit: that would wait for the others, who wait for this process."""
    for child in multiprocessing.active_children():
        child.terminate()
    os._exit(code)


def unreachable(address: str, timeout: float) -> str | None:
    """What stands in the way of a connection; None for nothing."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _on_abort(end: Callable[[], None]) -> Any:
    """Calls `end` when this process aborts; what is returned has to be kept.

    JAX aborts from a thread of its own, where handlers of Python's never run. One of ctypes does:
    it takes the interpreter's lock on whatever thread it is called.
    """
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: end())
    ctypes.CDLL(None).signal(signal.SIGABRT, handler)
    return handler
