"""Every launcher's environment, as it stands in a process that the launcher started."""

import pytest

from imgrec.errors import UserError
from imgrec.training.cluster import Job, find, first_host

SRUN = {
    "SLURM_JOB_ID": "4242",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NODELIST": "node[003-004]",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}
MPIRUN = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
}
POD = {"JOB_COMPLETION_INDEX": "3", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}


def found(environ, gpus=0, name="host", **given):
    return find(environ, gpus=lambda: gpus, full_name=lambda: name, **given)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"CUDA_VISIBLE_DEVICES": "0,1,2,3"},
        # A batch script, an interactive shell or a login beside them: no step of several tasks.
        {name: SRUN[name] for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID")},
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_ID": "4294967290", "SLURM_PROCID": "0"},
        {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
        POD,  # one of a study's runs
    ],
)
def test_without_several_processes_nobody_is_waited_for(environ):
    assert found(environ, gpus=4) == Job()


def test_flags():
    job = found({}, coordinator="node01:1234", processes=3, process=2)
    assert (job.process, job.processes, job.coordinator) == (2, 3, "node01:1234")
    assert job.devices is None


def test_flags_go_before_variables_and_these_before_a_launcher():
    variables = {"IMGREC_COORDINATOR": "a:1", "IMGREC_PROCESSES": "4", "IMGREC_PROCESS": "3"}
    job = found({**SRUN, **variables}, process=1)
    assert (job.process, job.processes, job.coordinator) == (1, 4, "a:1")


@pytest.mark.parametrize("environ", [SRUN, MPIRUN, {**POD, "IMGREC_PROCESSES": "9"}])
def test_one_process_is_alone_whatever_the_environment_says(environ):
    job = found(environ, processes=1)
    assert (job.process, job.processes, job.coordinator) == (0, 1, "")


def test_slurm():
    job = found(SRUN)
    assert (job.process, job.processes) == (5, 8)
    assert job.coordinator == f"node003:{61440 + 4242 % 4096}"
    assert "SLURM step 4242.0" in job.found


def test_steps_side_by_side_have_ports_of_their_own():
    coordinators = {found({**SRUN, "SLURM_STEP_ID": str(i)}).coordinator for i in range(40)}
    assert len(coordinators) == 40


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("node[001-015],other", "node001"),
        ("node[07,9-12]", "node07"),
        ("rack[1-2]n[03,05],other", "rack1n03"),
        ("gpu-a.site.org,gpu-b", "gpu-a.site.org"),
    ],
)
def test_the_first_host_of_a_node_list(nodes, first):
    assert first_host(nodes) == first


def test_open_mpi_4():
    job = found(MPIRUN)
    assert (job.process, job.processes) == (2, 4)
    host, port = job.coordinator.split(":")
    assert host == "10.96.0.1" and 61440 <= int(port) < 65536


def test_open_mpi_5_names_its_host_otherwise():
    environ = {n: v for n, v in MPIRUN.items() if "orte" not in n}
    job = found({**environ, "PMIX_NAMESPACE": "prterun-node-7.site-12345@1"})
    assert job.coordinator.startswith("node-7.site:")
    same = found({**environ, "PMIX_NAMESPACE": "prterun-node-7.site-12345@1"}, process=0)
    assert same.coordinator == job.coordinator


def test_open_mpi_on_one_host_needs_no_network():
    assert found({**MPIRUN, "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}).coordinator.startswith("127.0.0.1:")


def test_open_mpi_that_does_not_tell_its_host():
    environ = {n: v for n, v in MPIRUN.items() if "orte" not in n}
    with pytest.raises(UserError, match="where rank 0 runs") as error:
        found(environ)
    assert "--coordinator=HOST:PORT" in str(error.value)


def test_an_indexed_job_finds_its_first_pod():
    environ = {**POD, "IMGREC_PROCESSES": "4"}
    job = found(environ, name="train-3.jaxpods.default.svc.cluster.local")
    assert (job.process, job.processes) == (3, 4)
    assert job.coordinator == "train-0.jaxpods.default.svc.cluster.local:61440"
    port = found({**environ, "IMGREC_PORT": "8476"}, name="set-workers-0-3.set").coordinator
    assert port == "set-workers-0-0.set:8476"


def test_pods_without_a_subdomain_are_told_what_they_lack():
    with pytest.raises(UserError, match="subdomain"):
        found({**POD, "IMGREC_PROCESSES": "4"}, name="train-3")


@pytest.mark.parametrize(
    ("environ", "gpus", "own"),
    [
        ({}, 4, (1,)),
        ({}, 8, (2, 3)),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, 8, (1,)),
        ({"CUDA_VISIBLE_DEVICES": "2"}, 4, None),  # bound by the launcher
        ({"SLURM_GPUS_PER_TASK": "2", "CUDA_VISIBLE_DEVICES": "0,1"}, 8, None),
        ({"JAX_LOCAL_DEVICE_IDS": "3"}, 4, None),
        ({}, 0, None),
        ({"SLURM_STEP_TASKS_PER_NODE": "7,1"}, 4, None),  # alone on the second node
    ],
)
def test_processes_on_one_host_share_its_gpus(environ, gpus, own):
    assert found({**SRUN, **environ}, gpus=gpus).devices == own


def test_gpus_that_cannot_be_shared_evenly():
    with pytest.raises(UserError, match="cannot share 6 GPUs"):
        found(SRUN, gpus=6)


@pytest.mark.parametrize(
    ("environ", "given", "expected"),
    [
        ({}, {"coordinator": "a:1"}, "--processes=N, --process=I"),
        ({}, {"process": 1}, "--coordinator=HOST:PORT, --processes=N"),
        ({"IMGREC_PROCESSES": "2"}, {}, "--coordinator=HOST:PORT, --process=I"),
        ({"IMGREC_PROCESSES": "two"}, {}, "IMGREC_PROCESSES='two'"),
        ({}, {"coordinator": "a:1", "processes": 2, "process": 2}, "counted from 0 to 1"),
        ({}, {"coordinator": "a:1", "processes": 2, "process": -1}, "counted from 0 to 1"),
        ({}, {"coordinator": "a", "processes": 2, "process": 0}, "expected HOST:PORT"),
        ({}, {"coordinator": "http://a:1", "processes": 2, "process": 0}, "expected HOST:PORT"),
    ],
)
def test_what_is_missing_or_cannot_be(environ, given, expected):
    with pytest.raises(UserError) as error:
        found(environ, **given)
    assert expected in str(error.value)


@pytest.mark.parametrize("address", ["[::1]:80", "10.0.0.1:80", "a.b-c.d:65535"])
def test_addresses(address):
    assert found({}, coordinator=address, processes=2, process=0).coordinator == address
