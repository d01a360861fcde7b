"""scripts/launch: ssh without a network, the sbatch file without SLURM, manifests by structure.

Beside this, each was tried by hand: README's section on several hosts says how far.
"""

import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

LAUNCH = Path(__file__).parents[1] / "scripts" / "launch"
SSH = LAUNCH / "over_ssh.py"

spec = importlib.util.spec_from_file_location("over_ssh", SSH)
assert spec is not None and spec.loader is not None
over_ssh = importlib.util.module_from_spec(spec)
sys.modules["over_ssh"] = over_ssh
spec.loader.exec_module(over_ssh)


@pytest.fixture
def ssh(tmp_path):
    """The launcher with a program in ssh's place that runs what it is given here."""
    fake = tmp_path / "ssh"
    fake.write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
    fake.chmod(0o755)
    return [sys.executable, str(SSH), f"--ssh={fake}", "--hosts=a,b", "--port=61500"]


def run(ssh, *arguments):
    return subprocess.run([*ssh, *arguments], capture_output=True, text=True, timeout=60)


def started(ssh, tmp_path, script, *arguments):
    """A launch whose two processes have begun; each leaves a file named by its number."""
    command = f"{script}; touch {tmp_path}/$IMGREC_PROCESS; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        [*ssh, *arguments, "--", "sh", "-c", command], stdout=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 30
    while not all((tmp_path / number).exists() for number in "01"):
        assert time.monotonic() < until
        time.sleep(0.02)
    return process


def test_each_host_is_a_process_that_knows_the_coordinator(ssh):
    done = run(
        ssh,
        "--",
        "sh",
        "-c",
        "echo $IMGREC_COORDINATOR $IMGREC_PROCESS/$IMGREC_PROCESSES $0",
        "x y",
    )

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "[a] a:61500 0/2 x y" in lines and "[b] a:61500 1/2 x y" in lines


def test_a_dry_run_prints_commands_that_a_shell_reads(ssh):
    done = run(ssh, "--dry_run", "--cwd=/some where", "--", "python", "-m", "imgrec.main")

    first, second = (shlex.split(done.stdout)[start : start + 3] for start in (0, 3))
    assert (first[1], second[1]) == ("a", "b")
    assert "cd '/some where' || exit 2" in shlex.split(first[2])[3]
    assert "IMGREC_PROCESS=1" in second[2] and "python -m imgrec.main" in second[2]


def test_the_coordinator_is_named_without_its_user():
    commands = over_ssh.commands_for(["me@a", "b"], ["x"], cwd="/", port=1, ssh=["ssh"])

    assert [command[1] for command in commands] == ["me@a", "b"]
    assert all("IMGREC_COORDINATOR=a:1 " in command[2] for command in commands)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_goes_to_all_and_75_comes_back(ssh, tmp_path, number):
    process = started(ssh, tmp_path, 'trap "echo saved; exit 75" TERM')
    process.send_signal(number)
    said, _ = process.communicate(timeout=30)

    assert process.returncode == 75
    assert said.count("saved") == 2


def test_the_others_are_ended_when_one_fails_be_they_deaf(ssh, tmp_path):
    script = f'trap "" TERM; [ $IMGREC_PROCESS = 0 ] && touch {tmp_path}/0 && exit 3'
    process = started(ssh, tmp_path, script, "--grace=0.3")
    said, _ = process.communicate(timeout=30)

    assert process.returncode == 3
    assert "TERM to b" in said and "KILL to b" in said and "[b] exit code 137" in said


def test_a_connection_that_ends_lets_the_run_save_and_still_write(ssh, tmp_path):
    save = 'trap "echo saving; sleep 0.2; echo more; touch {0}/saved; exit 75" TERM'
    process = started(ssh, tmp_path, save.format(tmp_path))
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()

    until = time.monotonic() + 30
    while not (tmp_path / "saved").exists():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("codes", "code"),
    [([0, 0], 0), ([75, 75], 75), ([75, 0], 75), ([75, 1], 1), ([0, 2, 1], 2), ([-9, 75], 137)],
)
def test_one_exit_code_out_of_many(codes, code):
    assert over_ssh.verdict(codes) == code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--hosts=a,a", "--", "x"], "expected different names"),
        (["--hosts=a,,b", "--", "x"], "expected different names"),
        (["--hosts=a", "--ssh=/no/such", "--", "x"], "there is no program /no/such"),
        (["--hosts=a"], "command"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, said):
    done = subprocess.run([sys.executable, str(SSH), *arguments], capture_output=True, text=True)

    assert done.returncode == 2
    assert said in done.stderr


@pytest.fixture
def batch(tmp_path):
    """The sbatch file as SLURM's node would run it, with stand-ins for SLURM's commands."""

    def run(code: int, python: str = "/bin/true"):
        for name, body in (
            ("srun", f'echo "srun $*"; exit {code}'),
            ("scontrol", 'echo "scontrol $*"'),
        ):
            (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
            (tmp_path / name).chmod(0o755)
        environment = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "7",
            "IMGREC_PYTHON": python,
        }
        arguments = ["bash", str(LAUNCH / "train.sbatch"), "--config=a b.py", "--config.seed=1"]
        return subprocess.run(arguments, env=environment, capture_output=True, text=True)

    return run


@pytest.mark.parametrize(("code", "again"), [(0, False), (75, True), (1, False), (2, False)])
def test_the_job_is_queued_again_where_the_run_was_stopped(batch, code, again):
    done = batch(code)

    assert done.returncode == code
    assert "/bin/true -m imgrec.main --config=a b.py --config.seed=1" in done.stdout
    assert ("scontrol requeue 7" in done.stdout) == again


def test_the_batch_file_says_where_there_is_no_python(batch):
    done = batch(0, python="/no/such/python")

    assert done.returncode == 2
    assert "there is no /no/such/python" in done.stderr and "srun" not in done.stdout


def test_the_batch_file_asks_for_a_signal_before_its_time_is_up():
    text = (LAUNCH / "train.sbatch").read_text()

    for option in ("--signal=TERM@120", "--requeue", "--ntasks-per-node=1", "--open-mode=append"):
        assert f"\n#SBATCH {option}\n" in text
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(LAUNCH / "train.sbatch")], check=True)


def manifests(name):
    return list(yaml.safe_load_all((LAUNCH / name).read_text()))


def job_specs():
    """The job of each manifest, as Kubernetes' batch/v1 has them."""
    _, job = manifests("indexed_job.yaml")
    (jobset,) = manifests("jobset.yaml")
    (replicated,) = jobset["spec"]["replicatedJobs"]
    return {"indexed_job.yaml": job["spec"], "jobset.yaml": replicated["template"]["spec"]}


@pytest.mark.parametrize("name", ["indexed_job.yaml", "jobset.yaml"])
def test_the_pods_are_as_many_as_the_processes_and_react_to_exit_codes(name):
    job = job_specs()[name]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}

    assert job["completionMode"] == "Indexed"
    assert str(job["completions"]) == str(job["parallelism"]) == environment["IMGREC_PROCESSES"]
    # podFailurePolicy is refused beside any other restartPolicy.
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] >= 60
    bad_input, stopped, taken_away = job["podFailurePolicy"]["rules"]
    assert bad_input["action"] == "FailJob" and bad_input["onExitCodes"]["values"] == [2]
    assert stopped["action"] == "Ignore" and stopped["onExitCodes"]["values"] == [75]
    assert taken_away["action"] == "Ignore"
    assert taken_away["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    for rule in (bad_input, stopped):
        assert rule["onExitCodes"]["operator"] == "In"
        assert rule["onExitCodes"]["containerName"] == container["name"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_indexed_jobs_pods_find_each_other_by_the_headless_service():
    service, job = manifests("indexed_job.yaml")

    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert job["spec"]["template"]["spec"]["subdomain"] == service["metadata"]["name"]


def test_the_jobset_makes_its_own_service_and_starts_all_again_together():
    """By hand what a schema would say: the definition of JobSets comes with no package."""
    (jobset,) = manifests("jobset.yaml")

    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert set(jobset["spec"]) == {"network", "failurePolicy", "replicatedJobs"}
    assert jobset["spec"]["network"] == {
        "enableDNSHostnames": True,
        "publishNotReadyAddresses": True,
    }
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0
    (rule,) = jobset["spec"]["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    assert jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["backoffLimit"] == 0
