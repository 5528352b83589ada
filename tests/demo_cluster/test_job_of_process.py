"""The job of a process by its control group, where a real Slurm made the group."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from process_details import describe_process

from canhazgpu.schedulers.slurm.attribution.attribution import hook_attribution
from demo_cluster import ClusterSpec, PrivateSlurm, new_directory
from demo_cluster.host.processes import wait_until

from .conftest import People

pytestmark = [pytest.mark.slurm, pytest.mark.release]

SCRIPT = """
setsid sleep 600 &
echo $$ $!
srun --overlap sh -c 'echo $$; exec sleep 600'
"""


def own_groups() -> ClusterSpec:
    """Groups below one of the cluster's own, as in a container."""
    return ClusterSpec(nodes=1, constrain_devices=True)


def groups_of_the_host() -> ClusterSpec:
    """Groups where they are on a host with one Slurm.

    The tests on other suites share these groups, and have processes of the same numbers.
    """
    name = f"h{secrets.token_hex(4)}n"
    return ClusterSpec(nodes=1, constrain_devices=True, host_cgroups=True, node_prefix=name)


@pytest.fixture(scope="module", params=[own_groups, groups_of_the_host])
def cluster(request: pytest.FixtureRequest) -> Iterator[PrivateSlurm]:
    with PrivateSlurm(new_directory(), request.param()) as slurm:
        yield slurm
        slurm.stop(delete=True)


def test_every_process_of_a_job_is_the_jobs_and_no_other(
    cluster: PrivateSlurm, people: People, tmp_path: Path
) -> None:
    (node,) = cluster.spec.node_names()
    job_of = hook_attribution(cluster.layout.slurm_conf, node, tmp_path)
    of_another_node = hook_attribution(cluster.layout.slurm_conf, "n9", tmp_path)

    # Given a job with a batch script, a process that left its session, and a step
    job = cluster.submit(SCRIPT, "--gres=gpu:1", user=people.alice)
    cluster.wait_job(job, states=("RUNNING",))
    assert wait_until(
        lambda: len(cluster.output(job, user=people.alice).split()) == 3, timeout_s=20
    )
    pids = [int(one) for one in cluster.output(job, user=people.alice).split()]

    told = [describe_process(pid, None, job_of) for pid in pids]
    elsewhere = [describe_process(pid, None, of_another_node) for pid in pids]
    own = describe_process(os.getpid(), None, job_of)
    cluster.run(["scancel", str(job)], check=True)
    cluster.wait_job(job)

    # I expect each to be the job's and alice's, and this test to be nobody's
    assert {one.job for one in told} == {f"slurm:{job}"}
    assert {one.user for one in told} == {people.alice}
    assert own.job is None
    # Seen from another node of this host, it is a job of this one
    assert {one.job for one in elsewhere} == {f"slurm:{job}@{node}"}
