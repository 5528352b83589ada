"""ConstrainDevices=yes: the kernel denies a job every GPU that is not its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from demo_cluster import ClusterSpec, PrivateSlurm, new_directory
from demo_cluster.host.processes import find_process, wait_until

from .conftest import People

pytestmark = [pytest.mark.slurm, pytest.mark.release]

# A device that is allowed has no driver here (ENXIO); one that is not gives EPERM.
PROBE = r"""
for device in {devices}/*; do
  error=$( {{ : < "$device"; }} 2>&1 )
  case $error in
    *"not permitted"*) echo "${{device##*/}} denied" ;;
    *"No such device"*) echo "${{device##*/}} allowed" ;;
  esac
done
echo "job $SLURM_JOB_GPUS cuda $CUDA_VISIBLE_DEVICES"
sleep {sleep_s}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateSlurm]:
    spec = ClusterSpec(nodes=1, constrain_devices=True)
    with PrivateSlurm(new_directory(), spec) as slurm:
        yield slurm
        slurm.stop(delete=True)


def probe(cluster: PrivateSlurm, sleep_s: int) -> str:
    return PROBE.format(devices=cluster.layout.devices("n1"), sleep_s=sleep_s)


def test_each_job_opens_its_own_devices_only(cluster: PrivateSlurm, people: People) -> None:
    first = cluster.submit(probe(cluster, sleep_s=600), "--gres=gpu:2", user=people.alice)
    cluster.wait_job(first, states=("RUNNING",))
    second = cluster.submit(probe(cluster, sleep_s=0), "--gres=gpu:1", user=people.bob)
    cluster.wait_job(second)
    seen_by_first = cluster.output(first, user=people.alice)
    cluster.run(["scancel", str(first)], check=True)

    assert seen_by_first.splitlines() == [
        "nvidia100 allowed",
        "nvidia101 allowed",
        "nvidia102 denied",
        "nvidia103 denied",
        "job 0,1 cuda 0,1",
    ]
    assert cluster.output(second, user=people.bob).splitlines() == [
        "nvidia100 denied",
        "nvidia101 denied",
        "nvidia102 allowed",
        "nvidia103 denied",
        "job 2 cuda 0",
    ]


def test_a_process_left_behind_ends_with_its_job(cluster: PrivateSlurm, people: People) -> None:
    job = cluster.submit("setsid sleep 600 & echo $!; sleep 1", "--gres=gpu:1", user=people.alice)
    cluster.wait_job(job)

    pid = int(cluster.output(job, user=people.alice))
    assert wait_until(lambda: find_process(pid) is None, timeout_s=5)
