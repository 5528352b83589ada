"""The job of a process by its control group, where a real Slurm made the group."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from process_details import describe_process

from canhazgpu.schedulers.slurm.cgroup import job_of_cgroup
from demo_cluster import ClusterSpec, PrivateSlurm, new_directory
from demo_cluster.cgroups import CONTROLLERS, cluster_group
from demo_cluster.host.processes import wait_until

from .conftest import People

pytestmark = pytest.mark.slurm

SCRIPT = """
setsid sleep 600 &
echo $$ $!
srun --overlap sh -c 'echo $$; exec sleep 600'
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateSlurm]:
    spec = ClusterSpec(nodes=1, constrain_devices=True)
    with PrivateSlurm(new_directory(), spec) as slurm:
        yield slurm
        slurm.stop(delete=True)


def test_every_process_of_a_job_is_the_jobs_and_no_other(
    cluster: PrivateSlurm, people: People
) -> None:
    def as_on_a_host_of_its_own(text: str) -> str | None:
        # This cluster's groups are below one of its own, so that clusters do not meet.
        for controller in CONTROLLERS:
            text = text.replace(f":/{cluster_group(cluster.layout, controller).name}/", ":/")
        return job_of_cgroup(text)

    # Given a job with a batch script, a process that left its session, and a step
    job = cluster.submit(SCRIPT, "--gres=gpu:1", user=people.alice)
    cluster.wait_job(job, states=("RUNNING",))
    assert wait_until(
        lambda: len(cluster.output(job, user=people.alice).split()) == 3, timeout_s=20
    )
    pids = [int(one) for one in cluster.output(job, user=people.alice).split()]

    told = [describe_process(pid, None, as_on_a_host_of_its_own) for pid in pids]
    own = describe_process(os.getpid(), None, as_on_a_host_of_its_own)
    cluster.run(["scancel", str(job)], check=True)
    cluster.wait_job(job)

    # I expect each to be the job's and alice's, and this test to be nobody's
    assert {one.job for one in told} == {f"slurm:{job}"}
    assert {one.user for one in told} == {people.alice}
    assert own.job is None
