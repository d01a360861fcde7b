"""Which processes make up a run: from flags, or from what SLURM, Open MPI or Kubernetes left.

Nothing here talks to anybody. A run is one process unless something says otherwise, so that a
workstation with several GPUs, an interactive allocation or one element of a job array never waits
for a coordinator that nobody started.
"""

import re
import socket
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from absl import flags

from imgrec.errors import UserError

_FIRST_PORT = 61440  # above those that Linux hands out by itself
_PORTS = 4096


@dataclass(frozen=True)
class Job:
    """One process's place among the processes of a run.

    Attributes:
      process: its number, from 0; process 0 coordinates, writes and speaks.
      processes: how many there are.
      coordinator: HOST:PORT of process 0; empty for a process that is alone.
      devices: which of the GPUs it sees are its own; None for all.
      found: where all this was found, in words.
    """

    process: int = 0
    processes: int = 1
    coordinator: str = ""
    devices: tuple[int, ...] | None = None
    found: str = "on its own"


@dataclass(frozen=True)
class _Found:
    """What a launcher says; None where it does not."""

    by: str
    process: int
    processes: int | None
    coordinator: str | None
    local_process: int = 0
    local_processes: int = 1
    bound: bool = False  # to GPUs of its own, by the launcher
    remedy: str = ""  # for what is None


def define_flags(flag_values: flags.FlagValues) -> None:
    """Adds the flags of a run over several processes."""
    flags.DEFINE_string(
        "coordinator", "", "HOST:PORT of process 0, in a run of several", flag_values=flag_values
    )
    flags.DEFINE_integer(
        "processes", None, "how many processes make up this run", flag_values=flag_values
    )
    flags.DEFINE_integer("process", None, "which of them this is, from 0", flag_values=flag_values)
    flags.DEFINE_float(
        "start_timeout",
        300.0,
        "seconds to wait for the others at the start",
        lower_bound=0.0,
        flag_values=flag_values,
    )
    flags.DEFINE_float(
        "lost_after",
        60.0,
        "seconds without a sign of life after which a process counts as lost",
        lower_bound=2.0,
        flag_values=flag_values,
    )


def find(
    environ: Mapping[str, str],
    *,
    coordinator: str = "",
    processes: int | None = None,
    process: int | None = None,
    full_name: Callable[[], str] = socket.getfqdn,
    gpus: Callable[[], int] | None = None,
) -> Job:
    """This process's place.

    What is given goes before IMGREC_COORDINATOR, IMGREC_PROCESSES and IMGREC_PROCESS, and these
    before what a launcher says.

    Args:
      environ: the environment variables.
      coordinator: HOST:PORT of process 0.
      processes: how many there are; 1 is alone, whatever the environment says.
      process: which of them this is.
      full_name: of this host, as its network knows it.
      gpus: how many there are on this host; by default those that the system lists.

    Raises:
      UserError: something is missing, or cannot be.
    """
    coordinator = coordinator or environ.get("IMGREC_COORDINATOR", "")
    processes = _number(environ, "IMGREC_PROCESSES") if processes is None else processes
    process = _number(environ, "IMGREC_PROCESS") if process is None else process
    if processes == 1 and not process:
        return Job(found="on its own, as --processes=1 says")
    launched = (
        _by_open_mpi(environ) or _by_slurm(environ) or _by_kubernetes(environ, processes, full_name)
    )
    if launched is None and not coordinator and process is None and processes is None:
        return Job()
    by, missing = [], []
    if launched is not None:
        by.append(launched.by)
        coordinator = coordinator or launched.coordinator or ""
        processes = launched.processes if processes is None else processes
        process = launched.process if process is None else process
    else:
        by.append("flags or IMGREC_* variables")
    missing = [
        f"--{name}={what}"
        for name, what, value in (
            ("coordinator", "HOST:PORT", coordinator or None),
            ("processes", "N", processes),
            ("process", "I", process),
        )
        if value is None
    ]
    if missing or processes is None or process is None:
        raise UserError(
            f"This run seems to be one of several processes ({by[0]}), but it is not said: "
            f"{', '.join(missing)}. {launched.remedy if launched else ''} Give all three of "
            "--coordinator=HOST:PORT (where process 0 runs), --processes=N and --process=I (from "
            "0), or --processes=1 for a run on its own."
        )
    if not 0 <= process < processes:
        raise UserError(
            f"--process={process} of --processes={processes}: processes are counted from 0 to "
            f"{max(processes - 1, 0)}."
        )
    if not re.fullmatch(r"(\[[0-9a-fA-F:.%\w]+\]|[^:\[\]/\s]+):\d{1,5}", coordinator):
        raise UserError(
            f"--coordinator={coordinator!r}: expected HOST:PORT of process 0, as in node01:61440."
        )
    devices = _own_gpus(environ, launched, gpus or _gpus_here)
    return Job(process, processes, coordinator, devices, by[0])


def _by_open_mpi(environ: Mapping[str, str]) -> _Found | None:
    """From mpirun, of Open MPI 4 (orte) and 5 (prte)."""
    size, rank = (_number(environ, f"OMPI_COMM_WORLD_{name}") for name in ("SIZE", "RANK"))
    if size is None or rank is None or size == 1:
        return None
    local_size = _number(environ, "OMPI_COMM_WORLD_LOCAL_SIZE") or 1
    uri, namespace = environ.get("OMPI_MCA_orte_hnp_uri", ""), environ.get("PMIX_NAMESPACE", "")
    # Both name the host of mpirun, where rank 0 is unless a host file says otherwise.
    ip = re.search(r"tcp6?://\[?([^,\]]+?)[,:\]]", uri)
    name = re.match(r"prterun-(.+)-\d+@", namespace)
    host = None
    if local_size == size:
        host = "127.0.0.1"
    elif ip or name:
        host = (ip or name)[1]  # type: ignore[index]
        host = f"[{host}]" if ":" in host else host
    elif nodes := environ.get("SLURM_JOB_NODELIST"):
        host = first_host(nodes)
    port = _port(environ, zlib.crc32((namespace or uri).encode()))
    return _Found(
        by=f"Open MPI, rank {rank} of {size}",
        process=rank,
        processes=size,
        coordinator=host and f"{host}:{port}",
        local_process=_number(environ, "OMPI_COMM_WORLD_LOCAL_RANK") or 0,
        local_processes=local_size,
        remedy="Open MPI did not tell where rank 0 runs.",
    )


def _by_slurm(environ: Mapping[str, str]) -> _Found | None:
    """From srun.

    SLURM_NTASKS is that of the allocation, and stands in the environment of a batch script, an
    interactive shell and whoever logs in beside them; only a step of several tasks is a run of
    several processes.
    """
    step, tasks, rank, nodes = (
        environ.get(f"SLURM_{name}")
        for name in ("STEP_ID", "STEP_NUM_TASKS", "PROCID", "STEP_NODELIST")
    )
    if step is None or tasks is None or rank is None or nodes is None or tasks == "1":
        return None
    size = _number(environ, "SLURM_STEP_NUM_TASKS")
    job = _number(environ, "SLURM_JOB_ID") or 0
    # Steps of one job may run side by side.
    port = _port(environ, job + 97 * (_number(environ, "SLURM_STEP_ID") or 0))
    node = _number(environ, "SLURM_NODEID") or 0
    bound = any(f"SLURM_{name}" in environ for name in ("GPUS_PER_TASK", "GPU_BIND"))
    return _Found(
        by=f"SLURM step {job}.{step}, task {rank} of {size}",
        process=_number(environ, "SLURM_PROCID") or 0,
        processes=size,
        coordinator=f"{first_host(nodes)}:{port}",
        local_process=_number(environ, "SLURM_LOCALID") or 0,
        local_processes=_tasks_on(node, environ.get("SLURM_STEP_TASKS_PER_NODE", "1")),
        bound=bound or "gpu" in environ.get("SLURM_TRES_PER_TASK", ""),
    )


def _by_kubernetes(
    environ: Mapping[str, str], processes: int | None, full_name: Callable[[], str]
) -> _Found | None:
    """From an indexed Job, or a JobSet of one such Job.

    Kubernetes tells a pod its index and not how many there are; the manifest has to, and an
    indexed Job that does not is a study of runs on their own.
    """
    index = _number(environ, "JOB_COMPLETION_INDEX")
    if index is None or processes is None:
        return None
    host, _, domain = full_name().partition(".")
    first = re.sub(rf"-{index}$", "-0", host)
    known = bool(domain) and host.endswith(f"-{index}")
    return _Found(
        by=f"Kubernetes, completion index {index}",
        process=index,
        processes=processes,
        coordinator=f"{first}.{domain}:{_port(environ, 0)}" if known else None,
        remedy="The pods of an indexed Job find each other by a headless service: set the Job's "
        "spec.template.spec.subdomain to its name (a JobSet does so by itself), or the variable "
        "IMGREC_COORDINATOR.",
    )


def first_host(nodes: str) -> str:
    """The first of SLURM's node list: "rack[1-2]n[03,05],other" begins with rack1n03."""
    first = re.split(r",(?![^\[]*\])", nodes)[0]
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)


def _tasks_on(node: int, tasks: str) -> int:
    """Of node number `node` in SLURM's "4(x2),3": the first two nodes have 4 tasks, the next 3."""
    counts: list[int] = []
    for part in tasks.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match:
            counts += [int(match[1])] * int(match[2] or 1)
    return counts[node] if node < len(counts) else 1


def _own_gpus(
    environ: Mapping[str, str], launched: _Found | None, gpus: Callable[[], int]
) -> tuple[int, ...] | None:
    """A share of the GPUs for each of several processes on one host that see the same ones.

    JAX would give each of them one GPU, by its rank, which leaves GPUs idle where there are more,
    and fails where the launcher has hidden the others already.
    """
    if launched is None or launched.local_processes == 1 or launched.bound:
        return None
    if "JAX_LOCAL_DEVICE_IDS" in environ:  # which JAX reads itself
        return None
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    count = gpus() if visible is None else len([each for each in visible.split(",") if each])
    if count < 2:
        return None
    share, rest = divmod(count, launched.local_processes)
    if rest or not share:
        raise UserError(
            f"{launched.local_processes} processes on this host ({launched.by}) cannot share "
            f"{count} GPUs evenly. Start as many as divide {count}, one a host for all of them, "
            "or say which each takes by JAX_LOCAL_DEVICE_IDS."
        )
    start = launched.local_process * share
    return tuple(range(start, start + share))


def _gpus_here() -> int:
    return sum(1 for path in Path("/dev").glob("nvidia*") if path.name[len("nvidia") :].isdigit())


def _port(environ: Mapping[str, str], job: int) -> int:
    given = _number(environ, "IMGREC_PORT")
    return _FIRST_PORT + job % _PORTS if given is None else given


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name)
    if text is None or text == "":
        return None
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{name}={text!r} in the environment: expected a whole number.") from None
