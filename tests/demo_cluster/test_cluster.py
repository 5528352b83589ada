"""One cluster without device constraint, shared by the tests of this file."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from demo_cluster import (
    ClusterSpec,
    CommandFailed,
    PrivateSlurm,
    StartError,
    WaitTimeout,
    new_directory,
)
from demo_cluster.host.processes import wait_until

from .conftest import People

pytestmark = pytest.mark.slurm

SHOW_GPUS = 'echo "$(id -un) $SLURM_JOB_GPUS $CUDA_VISIBLE_DEVICES $SLURMD_NODENAME"'


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateSlurm]:
    with PrivateSlurm(new_directory(), ClusterSpec(minors=((107, 103, 150, 111), (0, 1)))) as slurm:
        yield slurm
        slurm.stop(delete=True)


def test_two_users_share_a_node(cluster: PrivateSlurm, people: People) -> None:
    jobs = {
        user: cluster.submit(f"{SHOW_GPUS}; sleep 1", "--gres=gpu:2", "-w", "n1", user=user)
        for user in (people.alice, people.bob)
    }
    states = {user: cluster.wait_job(job)["JobState"] for user, job in jobs.items()}

    assert set(states.values()) == {"COMPLETED"}
    said = {user: cluster.output(job, user=user).split() for user, job in jobs.items()}
    assert {words[0] for words in said.values()} == {people.alice, people.bob}
    # Slurm numbers a node's GPUs by their place in gres.conf, whatever the device files are called.
    assert {words[1] for words in said.values()} == {"0,1", "2,3"}
    assert all(words[1] == words[2] for words in said.values())


def test_a_job_spans_both_nodes(cluster: PrivateSlurm, people: People) -> None:
    job = cluster.submit(f"srun sh -c '{SHOW_GPUS}'", "-N2", "--gres=gpu:2", user=people.alice)

    assert cluster.wait_job(job)["JobState"] == "COMPLETED"
    nodes = {line.split()[-1] for line in cluster.output(job, user=people.alice).splitlines()}
    assert nodes == {"n1", "n2"}


def test_interactive_commands_run_as_the_user(cluster: PrivateSlurm, people: People) -> None:
    done = cluster.run(["srun", "--gres=gpu:1", "id", "-un"], user=people.bob, check=True)

    assert done.stdout.split() == [people.bob]


def test_a_waiting_job_is_seen_and_can_be_cancelled(cluster: PrivateSlurm, people: People) -> None:
    job = cluster.submit("sleep 600", "--gres=gpu:4", "-w", "n1", user=people.alice)
    cluster.wait_job(job, states=("RUNNING",))
    assert cluster.node_states()["n1"] == "mixed"

    cluster.run(["scancel", str(job)], user=people.alice, check=True)

    assert cluster.wait_job(job)["JobState"] == "CANCELLED"
    cluster.wait_nodes_idle()


def test_a_job_outlives_its_slurmd(cluster: PrivateSlurm, people: People) -> None:
    job = cluster.submit("echo begun; sleep 2; echo done", "-w", "n2", user=people.alice)
    # RUNNING alone is too early: a slurmstepd that still asks slurmd for its settings dies with it.
    assert wait_until(lambda: "begun" in cluster.output(job, user=people.alice), timeout_s=30)

    cluster.kill_slurmd("n2")
    cluster.restart_slurmd("n2")

    assert cluster.wait_job(job)["JobState"] == "COMPLETED"
    assert cluster.output(job, user=people.alice) == "begun\ndone\n"


def test_the_controller_keeps_its_jobs_over_a_restart(
    cluster: PrivateSlurm, people: People
) -> None:
    job = cluster.submit("true", user=people.alice)
    cluster.wait_job(job)

    cluster.restart_slurmctld()

    assert cluster.job(job)["JobState"] == "COMPLETED"
    cluster.wait_nodes_idle()


def test_a_failing_command_says_why(cluster: PrivateSlurm, people: People) -> None:
    with pytest.raises(CommandFailed, match="sbatch --parsable --gres=gpu:99 ended with 1: "):
        cluster.submit("true", "--gres=gpu:99", user=people.alice)


def test_a_state_that_never_comes_is_reported_with_logs(
    cluster: PrivateSlurm, people: People
) -> None:
    job = cluster.submit("true", "--hold", user=people.alice)

    with pytest.raises(WaitTimeout, match=r"PENDING[\s\S]*slurmctld\.log"):
        cluster.wait_job(job, timeout_s=0.2)
    cluster.run(["scancel", str(job)], check=True)


def test_a_command_that_takes_too_long_is_killed(cluster: PrivateSlurm) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        cluster.run(["sh", "-c", "sleep 600 & wait"], timeout_s=0.2)


def test_a_running_cluster_is_not_started_twice(cluster: PrivateSlurm) -> None:
    with pytest.raises(StartError, match="is running already"):
        cluster.start()
    assert cluster.node_states()
