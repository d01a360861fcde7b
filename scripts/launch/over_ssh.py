"""One run over several hosts by ssh, a process on each; nothing but ssh is needed there.

    python scripts/launch/over_ssh.py --hosts=node1,node2 [--cwd=/shared/imgrec] -- \
        .venv/bin/python -m imgrec.main --config=CONFIG --workdir=/shared/runs/NAME

The project, its environment and the run folder have to be on a file system that all share. The
first host is the coordinator. SIGTERM and SIGINT (Ctrl-C) go to all processes, which save and
exit with 75; a second one kills. So does the end of this program or of a connection save, and
when one process fails, the others get --grace seconds to end by themselves. Exit codes: that of
the processes where they agree, else the first that is neither 0 nor 75.
"""

import argparse
import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EXIT_BAD_INPUT, EXIT_STOPPED = 2, 75
_PORTS = range(61440, 65536)  # above what kernels give to outgoing connections

# Without a terminal to ask for passwords on; a host that is silent for a minute is lost.
_SSH = "ssh -o BatchMode=yes -o ServerAliveInterval=15 -o ServerAliveCountMax=4"

# What runs on each host, around the command. ssh passes no signals on, but it closes the standard
# input when it ends; so signals go as words through it, and its end counts as one. Lines pass
# through a loop that outlives the connection: the run must still be able to write while it saves.
_SHEPHERD = """
trap "" PIPE
cd {cwd} || exit 2
exec 3<&0 4>&1
shepherd() {{
  {environment} {command} </dev/null 3<&- 4>&- 5>&- &
  run=$!
  ( while read -r word; do kill -s "$word" "$run"; done; kill -s TERM "$run" ) <&3 2>/dev/null &
  listener=$!
  wait "$run"
  code=$?
  kill "$listener" 2>/dev/null
  return "$code"
}}
code=$({{ {{ shepherd 2>&1; echo "$?" >&5; }} |
  while IFS= read -r line; do printf "%s\\n" "$line" >&4; done 2>/dev/null; }} 5>&1)
exit "$code"
"""


def main(argv: Sequence[str]) -> int:
    """Runs the command line; returns the exit code."""
    given = _parse(argv)
    commands = commands_for(
        given.hosts, given.command, cwd=given.cwd, port=given.port, ssh=shlex.split(given.ssh)
    )
    if given.dry_run:
        for command in commands:
            print(shlex.join(command))
        return 0
    hosts = [Host(host, command) for host, command in zip(given.hosts, commands, strict=True)]
    return watch(hosts, grace=given.grace)


def commands_for(
    hosts: Sequence[str],
    command: Sequence[str],
    *,
    cwd: str,
    port: int,
    ssh: Sequence[str],
) -> list[list[str]]:
    """What is started here for each host.

    Args:
      hosts: by names that ssh knows, and, of the first, that the others can connect to.
      command: of the run, the same on all.
      cwd: where it starts.
      port: of the coordinator.
      ssh: the program and its options.
    """
    address = hosts[0].rpartition("@")[2]
    commands = []
    for process, host in enumerate(hosts):
        environment = {
            "IMGREC_COORDINATOR": f"{address}:{port}",
            "IMGREC_PROCESSES": str(len(hosts)),
            "IMGREC_PROCESS": str(process),
            "PYTHONUNBUFFERED": "1",
        }
        script = _SHEPHERD.format(
            cwd=shlex.quote(cwd),
            environment=" ".join(f"{name}={shlex.quote(v)}" for name, v in environment.items()),
            command=shlex.join(command),
        )
        commands.append([*ssh, host, f"exec sh -c {shlex.quote(script)}"])
    return commands


@dataclass
class Host:
    """A host and what was started for it; its lines are printed with its name before them."""

    name: str
    command: Sequence[str]

    def __post_init__(self) -> None:
        """Starts it, in a session of its own: the terminal's Ctrl-C is passed on by words."""
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._printing = threading.Thread(target=self._print, daemon=True)
        self._printing.start()

    def send(self, word: str) -> None:
        """Sends a signal's name, such as TERM, to the process on the host."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{word}\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass  # it has ended

    def exit_code(self) -> int | None:
        """Of the process, None while it runs; 255 where ssh lost it."""
        code = self.process.poll()
        if code is not None:
            self._printing.join(timeout=5)
        return code

    def _print(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            print(f"[{self.name}] {line}", end="", flush=True)


def watch(hosts: Sequence[Host], *, grace: float) -> int:
    """Waits for all, passes signals on, and lets none wait for one that is gone.

    Args:
      hosts: with their processes.
      grace: seconds that the others have to end when one has failed, and again when they were
        asked to.

    Returns:
      The exit code of the job.
    """
    received: list[str] = []

    def handle(number: int, frame: object) -> None:
        del frame
        received.append(signal.Signals(number).name)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    codes: dict[str, int] = {}
    words = ["TERM", "KILL"]  # to be sent, one after the other
    deadline: float | None = None
    try:
        while len(codes) < len(hosts):
            for host in hosts:
                code = host.exit_code()
                if code is not None and host.name not in codes:
                    codes[host.name] = code
                    print(f"[{host.name}] exit code {code}", flush=True)
                    if code and deadline is None:
                        deadline = time.monotonic() + grace
            late = deadline is not None and time.monotonic() > deadline
            if received or late:
                received.clear()
                running = [host for host in hosts if host.name not in codes]
                word = words.pop(0) if words else ""
                names = ", ".join(host.name for host in running)
                if running:
                    print(f"{word} to {names}" if word else f"no answer from {names}", flush=True)
                for host in running:
                    if word:
                        host.send(word)
                    else:  # a host that is lost hears nothing
                        host.process.kill()
                deadline = time.monotonic() + grace
            time.sleep(0.05)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return verdict(list(codes.values()))


def verdict(codes: Sequence[int]) -> int:
    """0 or 75 where all processes say so, or some one and some the other; else the first other."""
    other = [code for code in codes if code not in (0, EXIT_STOPPED)]
    if other:
        return other[0] if other[0] > 0 else 128 - other[0]
    return max(codes)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="over_ssh.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--hosts", required=True, help="names, by commas; the first coordinates")
    parser.add_argument("--cwd", default=None, help="where the command starts; here by default")
    parser.add_argument("--port", type=int, default=0, help="of the coordinator; 0 draws one")
    parser.add_argument("--grace", type=float, default=120.0, help="seconds; see above")
    parser.add_argument("--ssh", default=_SSH, help="program and options")
    parser.add_argument("--dry_run", action="store_true", help="print the commands, and stop")
    parser.add_argument("command", nargs="+", help="after --")
    given = parser.parse_args(argv)
    given.hosts = [host.strip() for host in given.hosts.split(",")]
    if "" in given.hosts or len(set(given.hosts)) < len(given.hosts):
        parser.error("--hosts: expected different names, by commas: --hosts=node1,node2")
    if shutil.which(program := shlex.split(given.ssh)[0]) is None:
        parser.error(f"--ssh: there is no program {program}")
    given.port = given.port or random.choice(_PORTS)
    given.cwd = given.cwd or str(Path.cwd())
    return given


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
